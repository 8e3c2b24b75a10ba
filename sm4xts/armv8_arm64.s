//go:build arm64 && !purego

#include "textflag.h"
#include "tweaks_arm64.h"

// SM4-XTS by the AES instructions of ARMv8, for the many cores without those for SM4.
// The S-boxes of the two ciphers are both an inversion in GF(2^8) between linear maps,
// and the fields are isomorphic: S = behind(AES S-box(front(x + a))) + b. A linear map
// of bytes is two look-ups of half a byte in a register (VTBL) and their sum; AESE
// makes the first sum on its own. What AESE moves, its ShiftRows, is undone by the
// look-ups that rotate words by whole bytes in the linear transformation. No look-up
// is in memory, so the time does not depend on data. The constants a and b are in the
// round keys (see fold).
//
// Sixteen blocks are in flight: word i of four of them is in one register, and
// V0-V3, V4-V7, V8-V11, V12-V15 are the blocks. A round of four blocks is 23
// instructions, which is 11.5 for a byte; tweaks, transposition and the rest add
// 1.1. By llvm-mca 19 a byte takes 5.8 cycles on Neoverse N1, whose two vector pipes
// are never idle then, 5.1 on V1 and 3.9 on V2.

DATA tables<>+0x00(SB)/8, $0x0f0f0f0f0f0f0f0f // the low half of each byte
DATA tables<>+0x08(SB)/8, $0x0f0f0f0f0f0f0f0f
DATA tables<>+0x10(SB)/8, $0xe117c533d224f600 // front of low halves
DATA tables<>+0x18(SB)/8, $0x1fe93bcd2cda08fe
DATA tables<>+0x20(SB)/8, $0xecae387a96d44200 // and of high halves
DATA tables<>+0x28(SB)/8, $0x185acc8e6220b6f4
DATA tables<>+0x30(SB)/8, $0x1af2f01802eae800 // behind
DATA tables<>+0x38(SB)/8, $0x0be3e10913fbf911
DATA tables<>+0x40(SB)/8, $0xd524718055a4f100
DATA tables<>+0x48(SB)/8, $0xa25306f722d38677
DATA tables<>+0x50(SB)/8, $0x0b0e0104070a0d00 // back from ShiftRows
DATA tables<>+0x58(SB)/8, $0x0306090c0f020508
DATA tables<>+0x60(SB)/8, $0x0e01040b0a0d0007 // and words rotated left by 8 bits
DATA tables<>+0x68(SB)/8, $0x06090c030205080f
DATA tables<>+0x70(SB)/8, $0x0605040702010003 // words rotated by 8 bits
DATA tables<>+0x78(SB)/8, $0x0e0d0c0f0a09080b
DATA tables<>+0x80(SB)/8, $0x0407060500030201 // and by 24 bits
DATA tables<>+0x88(SB)/8, $0x0c0f0e0d080b0a09
GLOBL tables<>(SB), RODATA|NOPTR, $144

#define LOADTABLES \
	MOVD $tables<>(SB), KEYP; \
	FLDPQ 0(KEYP), (F16, F17); \
	FLDPQ 32(KEYP), (F18, F19); \
	FLDPQ 64(KEYP), (F20, F21); \
	FLDPQ 96(KEYP), (F22, F23); 	FMOVQ 128(KEYP), F24

// ROUND8 is a round of eight blocks: a and e are replaced. The key is in V31. The
// linear transformation of a word t behind the S-box is, with m = t + (t <<< 8),
//
//	(m <<< 24) + (t + (m <<< 8)) <<< 2
#define ROUND8(a, b, c, d, e, f, g, h) \
	VEOR c.B16, b.B16, V25.B16; VEOR g.B16, f.B16, V28.B16; \
	VEOR V31.B16, d.B16, V26.B16; VEOR V31.B16, h.B16, V29.B16; \
	VEOR V26.B16, V25.B16, V25.B16; VEOR V29.B16, V28.B16, V28.B16; \
	VUSHR $4, V25.B16, V26.B16; VUSHR $4, V28.B16, V29.B16; \
	VAND V16.B16, V25.B16, V25.B16; VAND V16.B16, V28.B16, V28.B16; \
	VTBL V26.B16, [V18.B16], V26.B16; VTBL V29.B16, [V18.B16], V29.B16; \
	VTBL V25.B16, [V17.B16], V25.B16; VTBL V28.B16, [V17.B16], V28.B16; \
	AESE V26.B16, V25.B16; AESE V29.B16, V28.B16; \
	VUSHR $4, V25.B16, V26.B16; VUSHR $4, V28.B16, V29.B16; \
	VAND V16.B16, V25.B16, V25.B16; VAND V16.B16, V28.B16, V28.B16; \
	VTBL V26.B16, [V20.B16], V26.B16; VTBL V29.B16, [V20.B16], V29.B16; \
	VTBL V25.B16, [V19.B16], V25.B16; VTBL V28.B16, [V19.B16], V28.B16; \
	VEOR V26.B16, V25.B16, V25.B16; VEOR V29.B16, V28.B16, V28.B16; \
	VTBL V21.B16, [V25.B16], V26.B16; VTBL V21.B16, [V28.B16], V29.B16; \
	VTBL V22.B16, [V25.B16], V27.B16; VTBL V22.B16, [V28.B16], V30.B16; \
	VEOR V26.B16, V27.B16, V27.B16; VEOR V29.B16, V30.B16, V30.B16; \
	VTBL V23.B16, [V27.B16], V25.B16; VTBL V23.B16, [V30.B16], V28.B16; \
	VTBL V24.B16, [V27.B16], V27.B16; VTBL V24.B16, [V30.B16], V30.B16; \
	VEOR V25.B16, V26.B16, V26.B16; VEOR V28.B16, V29.B16, V29.B16; \
	VEOR V27.B16, a.B16, a.B16; VEOR V30.B16, e.B16, e.B16; \
	VSHL $2, V26.S4, V25.S4; VSHL $2, V29.S4, V28.S4; \
	VSRI $30, V26.S4, V25.S4; VSRI $30, V29.S4, V28.S4; \
	VEOR V25.B16, a.B16, a.B16; VEOR V28.B16, e.B16, e.B16

#define ROUND16(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p) \
	VLD1R.P 4(KEYP), [V31.S4]; \
	ROUND8(a, b, c, d, e, f, g, h); \
	ROUND8(i, j, k, l, m, n, o, p)

// ROUNDS is all rounds, with two steps after every four.
#define ROUNDS(loop, step) \
	MOVD $8, N; \
loop: \
	ROUND16(V0, V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11, V12, V13, V14, V15); \
	ROUND16(V1, V2, V3, V0, V5, V6, V7, V4, V9, V10, V11, V8, V13, V14, V15, V12); \
	step; \
	ROUND16(V2, V3, V0, V1, V6, V7, V4, V5, V10, V11, V8, V9, V14, V15, V12, V13); \
	ROUND16(V3, V0, V1, V2, V7, V4, V5, V6, V11, V8, V9, V10, V15, V12, V13, V14); \
	step; \
	SUB $1, N; \
	CBNZ N, loop

// TRANSPOSE exchanges rows and columns of four words by four.
#define TRANSPOSE(p, q, r, s) \
	VTRN1 q.S4, p.S4, V25.S4; VTRN2 q.S4, p.S4, V26.S4; \
	VTRN1 s.S4, r.S4, V27.S4; VTRN2 s.S4, r.S4, V28.S4; \
	VTRN1 V27.D2, V25.D2, p.D2; VTRN1 V28.D2, V26.D2, q.D2; \
	VTRN2 V27.D2, V25.D2, r.D2; VTRN2 V28.D2, V26.D2, s.D2

// IN makes words of four blocks, OUT blocks of words, in reverse order: d is the first
// block then.
#define IN(a, b, c, d) \
	VREV32 a.B16, a.B16; VREV32 b.B16, b.B16; \
	VREV32 c.B16, c.B16; VREV32 d.B16, d.B16; \
	TRANSPOSE(a, b, c, d)

#define OUT(a, b, c, d) \
	TRANSPOSE(d, c, b, a); \
	VREV32 a.B16, a.B16; VREV32 b.B16, b.B16; \
	VREV32 c.B16, c.B16; VREV32 d.B16, d.B16

#define LOAD4(p, Fa, Fb, Fc, Fd) \
	FLDPQ.P 32(p), (Fa, Fb); \
	FLDPQ.P 32(p), (Fc, Fd)

#define ADDTWEAKS(a, b, c, d) \
	FLDPQ.P 32(CUR), (F25, F26); FLDPQ.P 32(CUR), (F27, F28); \
	VEOR V25.B16, a.B16, a.B16; VEOR V26.B16, b.B16, b.B16; \
	VEOR V27.B16, c.B16, c.B16; VEOR V28.B16, d.B16, d.B16

// func cryptARMv8(keys, tweakKeys *uint32, dst, src *byte, unit, units int, lo, hi, step uint64)
//
// The frame holds, from 16(RSP), which is aligned, 64 encrypted numbers, and two times
// sixteen tweaks: those of a group are needed before and after its rounds, during
// which those of the next are made.
TEXT ·cryptARMv8(SB), 0, $1544-72
	MOVD keys+0(FP), KEYS
	MOVD tweakKeys+8(FP), TKEYS
	MOVD dst+16(FP), DST
	MOVD src+24(FP), SRC
	MOVD unit+32(FP), PERUNIT
	MOVD units+40(FP), GROUPS
	MOVD lo+48(FP), LO
	MOVD hi+56(FP), HI
	MOVD step+64(FP), BY
	MOVD $0x87, POLY
	LSR $8, PERUNIT
	LOADTABLES
	ADD $16, RSP, AT
	MOVD GROUPS, LEFT

numbers:
	MOVD $16, N
number:
	NUMBER
	SUB $1, N
	CBNZ N, number
	SUB $256, AT
	LOAD4(AT, F0, F1, F2, F3)
	IN(V0, V1, V2, V3)
	LOAD4(AT, F4, F5, F6, F7)
	IN(V4, V5, V6, V7)
	LOAD4(AT, F8, F9, F10, F11)
	IN(V8, V9, V10, V11)
	LOAD4(AT, F12, F13, F14, F15)
	IN(V12, V13, V14, V15)
	SUB $256, AT
	MOVD TKEYS, KEYP
	ROUNDS(numberRounds, NOOP)
	OUT(V0, V1, V2, V3)
	FSTPQ.P (F3, F2), 32(AT)
	FSTPQ.P (F1, F0), 32(AT)
	OUT(V4, V5, V6, V7)
	FSTPQ.P (F7, F6), 32(AT)
	FSTPQ.P (F5, F4), 32(AT)
	OUT(V8, V9, V10, V11)
	FSTPQ.P (F11, F10), 32(AT)
	FSTPQ.P (F9, F8), 32(AT)
	OUT(V12, V13, V14, V15)
	FSTPQ.P (F15, F14), 32(AT)
	FSTPQ.P (F13, F12), 32(AT)
	SUBS $16, LEFT
	BGT numbers

	MOVD PERUNIT, LEFT
	MUL PERUNIT, GROUPS
	ADD $16, RSP, AT
	ADD $1024, AT, CUR
	ADD $1280, AT, TKEYS // the other half
	MOVD CUR, NEXT
	LDP.P 16(AT), (LO, HI)
	MOVD $16, N
first:
	STEP
	SUB $1, N
	CBNZ N, first

group:
	MOVD TKEYS, NEXT
	FOLLOW(same)
	LOAD4(SRC, F0, F1, F2, F3)
	ADDTWEAKS(V0, V1, V2, V3)
	IN(V0, V1, V2, V3)
	LOAD4(SRC, F4, F5, F6, F7)
	ADDTWEAKS(V4, V5, V6, V7)
	IN(V4, V5, V6, V7)
	LOAD4(SRC, F8, F9, F10, F11)
	ADDTWEAKS(V8, V9, V10, V11)
	IN(V8, V9, V10, V11)
	LOAD4(SRC, F12, F13, F14, F15)
	ADDTWEAKS(V12, V13, V14, V15)
	IN(V12, V13, V14, V15)
	SUB $256, CUR
	MOVD KEYS, KEYP
	ROUNDS(rounds, STEP)
	OUT(V0, V1, V2, V3)
	ADDTWEAKS(V3, V2, V1, V0)
	FSTPQ.P (F3, F2), 32(DST)
	FSTPQ.P (F1, F0), 32(DST)
	OUT(V4, V5, V6, V7)
	ADDTWEAKS(V7, V6, V5, V4)
	FSTPQ.P (F7, F6), 32(DST)
	FSTPQ.P (F5, F4), 32(DST)
	OUT(V8, V9, V10, V11)
	ADDTWEAKS(V11, V10, V9, V8)
	FSTPQ.P (F11, F10), 32(DST)
	FSTPQ.P (F9, F8), 32(DST)
	OUT(V12, V13, V14, V15)
	ADDTWEAKS(V15, V14, V13, V12)
	FSTPQ.P (F15, F14), 32(DST)
	FSTPQ.P (F13, F12), 32(DST)
	SUB $256, CUR, TKEYS
	SUB $256, NEXT, CUR
	SUB $1, GROUPS
	CBNZ GROUPS, group

	ADD $1040, RSP, CUR
	FORGET(CUR, $512, forget)
	ADD $16, RSP, CUR
	SUB CUR, AT, KEYP // one number more than there are data units
	ADD $240, KEYP
	AND $~255, KEYP
	FORGET(CUR, KEYP, forgetNumbers)
	CLEAR
	RET
