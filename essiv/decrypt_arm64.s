//go:build arm64 && !purego

#include "textflag.h"
#include "cbc_arm64.h"

// LOADGROUP loads eight blocks, and into V8-V15 those one place earlier, of which
// the first is in V31, with the last key added. V31 is then the last of the eight.
#define LOADGROUP \
	FLDPQ 0(SRC), (F0, F1); \
	FLDPQ 32(SRC), (F2, F3); \
	FLDPQ 64(SRC), (F4, F5); \
	FLDPQ 96(SRC), (F6, F7); \
	VEOR V30.B16, V31.B16, V8.B16; \
	FLDPQ 0(SRC), (F9, F10); \
	FLDPQ 32(SRC), (F11, F12); \
	FLDPQ 64(SRC), (F13, F14); \
	FLDPQ 96(SRC), (F15, F31); \
	ADD $128, SRC; \
	VEOR V30.B16, V9.B16, V9.B16; VEOR V30.B16, V10.B16, V10.B16; \
	VEOR V30.B16, V11.B16, V11.B16; VEOR V30.B16, V12.B16, V12.B16; \
	VEOR V30.B16, V13.B16, V13.B16; VEOR V30.B16, V14.B16, V14.B16; \
	VEOR V30.B16, V15.B16, V15.B16

#define STOREGROUP \
	VEOR V8.B16, V0.B16, V0.B16; VEOR V9.B16, V1.B16, V1.B16; VEOR V10.B16, V2.B16, V2.B16; \
	VEOR V11.B16, V3.B16, V3.B16; VEOR V12.B16, V4.B16, V4.B16; VEOR V13.B16, V5.B16, V5.B16; \
	VEOR V14.B16, V6.B16, V6.B16; VEOR V15.B16, V7.B16, V7.B16; \
	FSTPQ (F0, F1), 0(DST); \
	FSTPQ (F2, F3), 32(DST); \
	FSTPQ (F4, F5), 64(DST); \
	FSTPQ (F6, F7), 96(DST); \
	ADD $128, DST

// UNITSOF decrypts UNITS data units, eight blocks at a time and then single ones, and
// leaves the last block of ciphertext of each in IVS.
#define UNITSOF \
	CMP $12, ROUNDS; \
	BLT unit10; \
	BEQ unit12; \
unit14: \
	FMOVQ (IVS), F31; \
	MOVD BLOCKS, LEFT; \
group14: \
	SUBS $8, LEFT; \
	BLT few14; \
	LOADGROUP; \
	ROUND8(AESD, AESIMC, V16.B16); \
	ROUND8(AESD, AESIMC, V17.B16); \
	ROUND8(AESD, AESIMC, V18.B16); \
	ROUND8(AESD, AESIMC, V19.B16); \
	NINE(ROUND8, AESD, AESIMC); \
	LAST8(AESD); \
	STOREGROUP; \
	JMP group14; \
few14: \
	ADDS $8, LEFT; \
	BEQ next14; \
single14: \
	FMOVQ.P 16(SRC), F0; \
	VEOR V30.B16, V31.B16, V8.B16; \
	VMOV V0.B16, V31.B16; \
	ROUND1(AESD, AESIMC, V16.B16); \
	ROUND1(AESD, AESIMC, V17.B16); \
	ROUND1(AESD, AESIMC, V18.B16); \
	ROUND1(AESD, AESIMC, V19.B16); \
	NINE(ROUND1, AESD, AESIMC); \
	LAST1(AESD); \
	VEOR V8.B16, V0.B16, V0.B16; \
	FMOVQ.P F0, 16(DST); \
	SUBS $1, LEFT; \
	BNE single14; \
next14: \
	FMOVQ.P F31, 16(IVS); \
	SUB $1, UNITS; \
	CBNZ UNITS, unit14; \
	JMP done; \
unit12: \
	FMOVQ (IVS), F31; \
	MOVD BLOCKS, LEFT; \
group12: \
	SUBS $8, LEFT; \
	BLT few12; \
	LOADGROUP; \
	ROUND8(AESD, AESIMC, V18.B16); \
	ROUND8(AESD, AESIMC, V19.B16); \
	NINE(ROUND8, AESD, AESIMC); \
	LAST8(AESD); \
	STOREGROUP; \
	JMP group12; \
few12: \
	ADDS $8, LEFT; \
	BEQ next12; \
single12: \
	FMOVQ.P 16(SRC), F0; \
	VEOR V30.B16, V31.B16, V8.B16; \
	VMOV V0.B16, V31.B16; \
	ROUND1(AESD, AESIMC, V18.B16); \
	ROUND1(AESD, AESIMC, V19.B16); \
	NINE(ROUND1, AESD, AESIMC); \
	LAST1(AESD); \
	VEOR V8.B16, V0.B16, V0.B16; \
	FMOVQ.P F0, 16(DST); \
	SUBS $1, LEFT; \
	BNE single12; \
next12: \
	FMOVQ.P F31, 16(IVS); \
	SUB $1, UNITS; \
	CBNZ UNITS, unit12; \
	JMP done; \
unit10: \
	FMOVQ (IVS), F31; \
	MOVD BLOCKS, LEFT; \
group10: \
	SUBS $8, LEFT; \
	BLT few10; \
	LOADGROUP; \
	NINE(ROUND8, AESD, AESIMC); \
	LAST8(AESD); \
	STOREGROUP; \
	JMP group10; \
few10: \
	ADDS $8, LEFT; \
	BEQ next10; \
single10: \
	FMOVQ.P 16(SRC), F0; \
	VEOR V30.B16, V31.B16, V8.B16; \
	VMOV V0.B16, V31.B16; \
	NINE(ROUND1, AESD, AESIMC); \
	LAST1(AESD); \
	VEOR V8.B16, V0.B16, V0.B16; \
	FMOVQ.P F0, 16(DST); \
	SUBS $1, LEFT; \
	BNE single10; \
next10: \
	FMOVQ.P F31, 16(IVS); \
	SUB $1, UNITS; \
	CBNZ UNITS, unit10

// func decryptARMv8(keys *byte, rounds int, dst, src *byte, blocks, units int, ivs *byte)
TEXT ·decryptARMv8(SB), NOSPLIT, $0-56
	MOVD keys+0(FP), KEYS
	MOVD rounds+8(FP), ROUNDS
	MOVD dst+16(FP), DST
	MOVD src+24(FP), SRC
	MOVD blocks+32(FP), BLOCKS
	MOVD units+40(FP), UNITS
	MOVD ivs+48(FP), IVS
	LOADKEYS
	UNITSOF

done:
	CLEAR
	RET
