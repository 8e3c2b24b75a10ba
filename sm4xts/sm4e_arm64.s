//go:build arm64 && !purego

#include "textflag.h"
#include "tweaks_arm64.h"

// SM4-XTS by the SM4 instructions of ARMv8.2 (FEAT_SM4): SM4E does four rounds of a
// block. Eight blocks are in flight in V0-V7, their tweaks in V8-V15, all round keys
// in V24-V31. A block is 8 SM4E and 5 more: two additions of the tweak, VREV32 on
// the way in, VREV64 and VEXT, which reverse words and bytes, on the way out.

// Go's assembler lacks it.
#define SM4E(key, block) WORD $(0xcec08400 | (key)<<5 | (block))

#define LOAD8(p) \
	FLDPQ 0(p), (F0, F1); \
	FLDPQ 32(p), (F2, F3); \
	FLDPQ 64(p), (F4, F5); \
	FLDPQ 96(p), (F6, F7)

#define STORE8(p) \
	FSTPQ (F0, F1), 0(p); \
	FSTPQ (F2, F3), 32(p); \
	FSTPQ (F4, F5), 64(p); \
	FSTPQ (F6, F7), 96(p)

#define LOADTWEAKS \
	FLDPQ 0(CUR), (F8, F9); \
	FLDPQ 32(CUR), (F10, F11); \
	FLDPQ 64(CUR), (F12, F13); \
	FLDPQ 96(CUR), (F14, F15)

#define ADDTWEAKS \
	VEOR V8.B16, V0.B16, V0.B16; VEOR V9.B16, V1.B16, V1.B16; \
	VEOR V10.B16, V2.B16, V2.B16; VEOR V11.B16, V3.B16, V3.B16; \
	VEOR V12.B16, V4.B16, V4.B16; VEOR V13.B16, V5.B16, V5.B16; \
	VEOR V14.B16, V6.B16, V6.B16; VEOR V15.B16, V7.B16, V7.B16

#define LOADKEYS(p) \
	FLDPQ 0(p), (F24, F25); \
	FLDPQ 32(p), (F26, F27); \
	FLDPQ 64(p), (F28, F29); \
	FLDPQ 96(p), (F30, F31)

#define IN \
	VREV32 V0.B16, V0.B16; VREV32 V1.B16, V1.B16; VREV32 V2.B16, V2.B16; VREV32 V3.B16, V3.B16; \
	VREV32 V4.B16, V4.B16; VREV32 V5.B16, V5.B16; VREV32 V6.B16, V6.B16; VREV32 V7.B16, V7.B16

#define OUT \
	VREV64 V0.B16, V0.B16; VEXT $8, V0.B16, V0.B16, V0.B16; VREV64 V1.B16, V1.B16; VEXT $8, V1.B16, V1.B16, V1.B16; \
	VREV64 V2.B16, V2.B16; VEXT $8, V2.B16, V2.B16, V2.B16; VREV64 V3.B16, V3.B16; VEXT $8, V3.B16, V3.B16, V3.B16; \
	VREV64 V4.B16, V4.B16; VEXT $8, V4.B16, V4.B16, V4.B16; VREV64 V5.B16, V5.B16; VEXT $8, V5.B16, V5.B16, V5.B16; \
	VREV64 V6.B16, V6.B16; VEXT $8, V6.B16, V6.B16, V6.B16; VREV64 V7.B16, V7.B16; VEXT $8, V7.B16, V7.B16, V7.B16

// ROUNDS4 is four rounds of eight blocks, STEPROUNDS4 with a tweak between.
#define ROUNDS4(k) \
	SM4E(k, 0); SM4E(k, 1); SM4E(k, 2); SM4E(k, 3); \
	SM4E(k, 4); SM4E(k, 5); SM4E(k, 6); SM4E(k, 7)

#define STEPROUNDS4(k) \
	SM4E(k, 0); SM4E(k, 1); \
	STP.P (LO, HI), 16(NEXT); \
	SM4E(k, 2); SM4E(k, 3); \
	AND HI->63, POLY, FOLD; \
	SM4E(k, 4); SM4E(k, 5); \
	EXTR $63, LO, HI, HI; \
	SM4E(k, 6); SM4E(k, 7); \
	EOR LO<<1, FOLD, LO

// func cryptSM4E(keys, tweakKeys *uint32, dst, src *byte, unit, units int, lo, hi, step uint64)
//
// The frame holds, from 16(RSP), which is aligned, 64 encrypted numbers and eight
// tweaks, which each group reads before it writes those of the next.
TEXT ·cryptSM4E(SB), 0, $1160-72
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
	LSR $7, PERUNIT
	LOADKEYS(TKEYS)
	ADD $16, RSP, AT
	MOVD GROUPS, N

numbers:
	NUMBER
	NUMBER
	NUMBER
	NUMBER
	NUMBER
	NUMBER
	NUMBER
	NUMBER
	SUB $128, AT
	LOAD8(AT)
	IN
	ROUNDS4(24)
	ROUNDS4(25)
	ROUNDS4(26)
	ROUNDS4(27)
	ROUNDS4(28)
	ROUNDS4(29)
	ROUNDS4(30)
	ROUNDS4(31)
	OUT
	STORE8(AT)
	ADD $128, AT
	SUBS $8, N
	BGT numbers

	LOADKEYS(KEYS)
	MOVD PERUNIT, LEFT
	MUL PERUNIT, GROUPS
	ADD $16, RSP, AT
	ADD $1024, AT, CUR
	MOVD CUR, NEXT
	LDP.P 16(AT), (LO, HI)
	STEP
	STEP
	STEP
	STEP
	STEP
	STEP
	STEP
	STEP

	PCALIGN $32
group:
	LOAD8(SRC)
	ADD $128, SRC
	LOADTWEAKS
	MOVD CUR, NEXT
	FOLLOW(same)
	ADDTWEAKS
	IN
	STEPROUNDS4(24)
	STEPROUNDS4(25)
	STEPROUNDS4(26)
	STEPROUNDS4(27)
	STEPROUNDS4(28)
	STEPROUNDS4(29)
	STEPROUNDS4(30)
	STEPROUNDS4(31)
	OUT
	ADDTWEAKS
	STORE8(DST)
	ADD $128, DST
	SUB $1, GROUPS
	CBNZ GROUPS, group

	FORGET(CUR, $128, forget)
	ADD $16, RSP, CUR
	SUB CUR, AT, KEYP // one number more than there are data units
	ADD $112, KEYP
	AND $~127, KEYP
	FORGET(CUR, KEYP, forgetNumbers)
	CLEAR
	RET
