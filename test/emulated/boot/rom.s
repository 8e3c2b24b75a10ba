# The whole firmware of the emulated machine: from the reset vector to the 32-bit
# entry of a Linux kernel (the PVH entry: flat protected mode, ebx points at a
# hvm_start_info) that Bochs has put into memory already.  Assembled to a flat
# 64 KiB image which ends at the top of the address space and is also seen at
# 0xf0000.
#
# At 0xf00000 lies what ../image.go wrote: where the image ends, the kernel's
# entry, the start info.

	.set	header, 0xf00000
	.set	base, 0xf0000	# of this text, which is linked at 0

	.code16
	.text
start:
	cli
	cld
	lgdtl	%cs:gdtr
	movl	%cr0, %eax
	orb	$1, %al
	movl	%eax, %cr0
	ljmpl	$8, $base+protected

	.code32
protected:
	movw	$16, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss

	# Bochs gives guest memory its place in host memory at the first touch, in
	# the order of touches, but has read the image into one piece.  So the image
	# is touched from its beginning to its end before any other memory: hence no
	# stack until here either.
	movl	$header, %ebx
touch:	movb	(%ebx), %al
	addl	$4096, %ebx
	cmpl	header, %ebx
	jb	touch

	inb	$0x92, %al		# address line 20 on
	orb	$2, %al
	andb	$0xfe, %al
	outb	%al, $0x92
	movl	header+8, %ebx
	jmp	*header+4

	.balign	8
gdt:	.quad	0
	.quad	0x00cf9b000000ffff	# code; both already marked as accessed, since
	.quad	0x00cf93000000ffff	# this is read-only memory
gdtr:	.word	gdtr - gdt - 1
	.long	base+gdt

	.org	0xfff0
	.code16
	ljmp	$0xf000, $start
	.org	0x10000
