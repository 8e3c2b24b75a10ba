#include "textflag.h"

// The identity matrix of GF2P8AFFINEQB, eight times.
DATA identity<>+0(SB)/8, $0x0102040810204080
GLOBL identity<>(SB), RODATA, $8

// func affine512(dst, src *[64]byte)
TEXT ·affine512(SB), NOSPLIT, $0-16
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	VPBROADCASTQ identity<>(SB), Z0
	VMOVDQU64 (SI), Z1
	VGF2P8AFFINEQB $0, Z0, Z1, Z2
	VMOVDQU64 Z2, (DI)
	VZEROUPPER
	RET

// func affine256(dst, src *[64]byte)
TEXT ·affine256(SB), NOSPLIT, $0-16
	MOVQ dst+0(FP), DI
	MOVQ src+8(FP), SI
	VPBROADCASTQ identity<>(SB), Y0
	VMOVDQU (SI), Y1
	VGF2P8AFFINEQB $0, Y0, Y1, Y2
	VMOVDQU Y2, (DI)
	VMOVDQU 32(SI), Y1
	VGF2P8AFFINEQB $0, Y0, Y1, Y2
	VMOVDQU Y2, 32(DI)
	VZEROUPPER
	RET
