//go:build arm64 && !purego

#include "textflag.h"

// AES-XTS by the AES instructions of ARMv8. Eight blocks are in flight, and the
// tweaks of the next eight are computed between their rounds, as on amd64. The
// division of labour is another one: a core with these instructions has one, two
// or four vector pipes that do AES, general and load/store pipes beside them, and
// 32 vector registers. So the vector pipes get AES and nearly nothing else:
//
//   - All round keys stay in V16-V30, the last one in V30 whatever their number.
//     A round of eight blocks, V0-V7, is eight times AESE and AESMC, adjacent so
//     that cores fuse the two.
//   - Tweaks are doubled in general registers, three instructions each, and reach
//     the vector registers by way of the stack. A data unit that begins just loads
//     another number into the chain.
//   - AESE adds its key before the round and the text is as good a key as any, so
//     text + T + k0 costs nothing if T + k0 is at hand; and if T + kn is too, the
//     end of a block is one addition instead of two. Both are made in general
//     registers, where two more instructions are cheaper than one more here.
//
// A block of AES-256 is 14 AESE, 13 AESMC and 1 VEOR; beside the vector pipes 9
// instructions of arithmetic, 1.5 loads, 2.5 stores and 1 of the loop's. By
// llvm-mca 19, with each AESE and AESMC as one operation as those cores have them,
// cycles for a group of 128 bytes, and the AES limit (rounds over AES pipes):
//
//	            AES-128         AES-256
//	Neoverse N1  84 of  80      116 of 112
//	Neoverse N2  48 of  40       64 of  56
//	Neoverse V1  24 of  20       31 of  28
//	Neoverse V2  24 of  20       32 of  28
//
// With T + k0 + kn alone, one addition more before the first round, and fewer
// integer instructions, N2, V1 and V2 were 6 % slower and N1 the same.

#define ROUNDS  R2
#define DST     R3
#define SRC     R4
#define PERUNIT R5  // groups in a data unit
#define GROUPS  R6  // groups left
#define LO      R7  // the tweak that is stored next
#define HI      R8
#define AT      R9  // encrypted numbers, in the frame
#define TWEAKS  R10 // of eight blocks, each twice, in the frame
#define LEFT    R11 // groups left in the data unit
#define POLY    R12 // 0x87
#define K0LO    R13 // the first round key
#define K0HI    R14
#define KNLO    R15 // the last one
#define KNHI    R19
#define BEFLO   R20 // a tweak with the first key added
#define BEFHI   R21
#define AFTLO   R22 // and with the last one
#define AFTHI   R23
#define FOLD    R24
#define BY      R25 // by which numbers of data units grow

// LOADKEYS reads ROUNDS + 1 round keys from p, which it advances.
#define LOADKEYS(p, l12, l10) \
	CMP $12, ROUNDS; \
	BLT l10; \
	BEQ l12; \
	FLDPQ.P 32(p), (F16, F17); \
l12: \
	FLDPQ.P 32(p), (F18, F19); \
l10: \
	FLDPQ.P 32(p), (F20, F21); \
	FLDPQ.P 32(p), (F22, F23); \
	FLDPQ.P 32(p), (F24, F25); \
	FLDPQ.P 32(p), (F26, F27); \
	FLDPQ.P 32(p), (F28, F29); \
	FMOVQ (p), F30

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

// ROUND is a round of eight blocks, op and mix AESE and AESMC or their inverses.
#define ROUND(op, mix, k) \
	op k, V0.B16; \
	mix V0.B16, V0.B16; \
	op k, V1.B16; \
	mix V1.B16, V1.B16; \
	op k, V2.B16; \
	mix V2.B16, V2.B16; \
	op k, V3.B16; \
	mix V3.B16, V3.B16; \
	op k, V4.B16; \
	mix V4.B16, V4.B16; \
	op k, V5.B16; \
	mix V5.B16, V5.B16; \
	op k, V6.B16; \
	mix V6.B16, V6.B16; \
	op k, V7.B16; \
	mix V7.B16, V7.B16

// LASTROUND leaves out the last key.
#define LASTROUND(op, k) \
	op k, V0.B16; \
	op k, V1.B16; \
	op k, V2.B16; \
	op k, V3.B16; \
	op k, V4.B16; \
	op k, V5.B16; \
	op k, V6.B16; \
	op k, V7.B16

// STEP stores the tweak in HI:LO with the first and with the last round key added,
// and doubles it in GF(2^128): a bit that falls out at the top comes back as 0x87.
#define STEP(off) \
	EOR LO, K0LO, BEFLO; \
	EOR HI, K0HI, BEFHI; \
	STP (BEFLO, BEFHI), off(TWEAKS); \
	EOR LO, KNLO, AFTLO; \
	EOR HI, KNHI, AFTHI; \
	STP (AFTLO, AFTHI), (128+off)(TWEAKS); \
	AND HI->63, POLY, FOLD; \
	EXTR $63, LO, HI, HI; \
	EOR LO<<1, FOLD, LO

// ROUNDSTEP is both, woven.
#define ROUNDSTEP(op, mix, k, off) \
	op k, V0.B16; \
	mix V0.B16, V0.B16; \
	EOR LO, K0LO, BEFLO; \
	EOR HI, K0HI, BEFHI; \
	op k, V1.B16; \
	mix V1.B16, V1.B16; \
	EOR LO, KNLO, AFTLO; \
	op k, V2.B16; \
	mix V2.B16, V2.B16; \
	EOR HI, KNHI, AFTHI; \
	op k, V3.B16; \
	mix V3.B16, V3.B16; \
	STP (BEFLO, BEFHI), off(TWEAKS); \
	op k, V4.B16; \
	mix V4.B16, V4.B16; \
	AND HI->63, POLY, FOLD; \
	op k, V5.B16; \
	mix V5.B16, V5.B16; \
	STP (AFTLO, AFTHI), (128+off)(TWEAKS); \
	op k, V6.B16; \
	mix V6.B16, V6.B16; \
	EXTR $63, LO, HI, HI; \
	op k, V7.B16; \
	mix V7.B16, V7.B16; \
	EOR LO<<1, FOLD, LO

// BEGIN starts a group and does its first round. If it is the last group of its
// data unit, the tweaks that are computed meanwhile are those of the next one;
// after the last of all this reads one slot beyond the numbers, and nobody uses
// what comes of it.
#define BEGIN(op, mix, same) \
	SUB $1, LEFT; \
	LOAD8(SRC); \
	ADD $128, SRC; \
	FLDPQ 0(TWEAKS), (F30, F31); \
	FLDPQ 32(TWEAKS), (F8, F9); \
	FLDPQ 64(TWEAKS), (F10, F11); \
	FLDPQ 96(TWEAKS), (F12, F13); \
	op V30.B16, V0.B16; \
	mix V0.B16, V0.B16; \
	op V31.B16, V1.B16; \
	mix V1.B16, V1.B16; \
	FLDPQ 128(TWEAKS), (F30, F31); \
	op V8.B16, V2.B16; \
	mix V2.B16, V2.B16; \
	op V9.B16, V3.B16; \
	mix V3.B16, V3.B16; \
	FLDPQ 160(TWEAKS), (F8, F9); \
	op V10.B16, V4.B16; \
	mix V4.B16, V4.B16; \
	op V11.B16, V5.B16; \
	mix V5.B16, V5.B16; \
	FLDPQ 192(TWEAKS), (F10, F11); \
	op V12.B16, V6.B16; \
	mix V6.B16, V6.B16; \
	op V13.B16, V7.B16; \
	mix V7.B16, V7.B16; \
	FLDPQ 224(TWEAKS), (F12, F13); \
	CBNZ LEFT, same; \
	LDP.P 16(AT), (LO, HI); \
	MOVD PERUNIT, LEFT; \
same:

#define END(loop) \
	VEOR V30.B16, V0.B16, V0.B16; \
	VEOR V31.B16, V1.B16, V1.B16; \
	VEOR V8.B16, V2.B16, V2.B16; \
	VEOR V9.B16, V3.B16, V3.B16; \
	VEOR V10.B16, V4.B16, V4.B16; \
	VEOR V11.B16, V5.B16, V5.B16; \
	VEOR V12.B16, V6.B16, V6.B16; \
	VEOR V13.B16, V7.B16, V7.B16; \
	STORE8(DST); \
	ADD $128, DST; \
	SUB $1, GROUPS; \
	CBNZ GROUPS, loop

// REST is what a group has after its first one, three or five rounds.
#define REST(op, mix) \
	ROUNDSTEP(op, mix, V21.B16, 0); \
	ROUNDSTEP(op, mix, V22.B16, 16); \
	ROUNDSTEP(op, mix, V23.B16, 32); \
	ROUNDSTEP(op, mix, V24.B16, 48); \
	ROUNDSTEP(op, mix, V25.B16, 64); \
	ROUNDSTEP(op, mix, V26.B16, 80); \
	ROUNDSTEP(op, mix, V27.B16, 96); \
	ROUNDSTEP(op, mix, V28.B16, 112); \
	LASTROUND(op, V29.B16)

// NUMBERS encrypts the numbers of R1 data units from HI:LO, eight at a time, to
// AT on. The keys of the tweak are loaded.
#define NUMBERS(loop, r12, r10) \
loop: \
	STP.P (LO, HI), 16(AT); \
	ADDS BY, LO; \
	ADC ZR, HI; \
	STP.P (LO, HI), 16(AT); \
	ADDS BY, LO; \
	ADC ZR, HI; \
	STP.P (LO, HI), 16(AT); \
	ADDS BY, LO; \
	ADC ZR, HI; \
	STP.P (LO, HI), 16(AT); \
	ADDS BY, LO; \
	ADC ZR, HI; \
	STP.P (LO, HI), 16(AT); \
	ADDS BY, LO; \
	ADC ZR, HI; \
	STP.P (LO, HI), 16(AT); \
	ADDS BY, LO; \
	ADC ZR, HI; \
	STP.P (LO, HI), 16(AT); \
	ADDS BY, LO; \
	ADC ZR, HI; \
	STP.P (LO, HI), 16(AT); \
	ADDS BY, LO; \
	ADC ZR, HI; \
	SUB $128, AT; \
	LOAD8(AT); \
	CMP $12, ROUNDS; \
	BLT r10; \
	BEQ r12; \
	ROUND(AESE, AESMC, V16.B16); \
	ROUND(AESE, AESMC, V17.B16); \
r12: \
	ROUND(AESE, AESMC, V18.B16); \
	ROUND(AESE, AESMC, V19.B16); \
r10: \
	ROUND(AESE, AESMC, V20.B16); \
	ROUND(AESE, AESMC, V21.B16); \
	ROUND(AESE, AESMC, V22.B16); \
	ROUND(AESE, AESMC, V23.B16); \
	ROUND(AESE, AESMC, V24.B16); \
	ROUND(AESE, AESMC, V25.B16); \
	ROUND(AESE, AESMC, V26.B16); \
	ROUND(AESE, AESMC, V27.B16); \
	ROUND(AESE, AESMC, V28.B16); \
	LASTROUND(AESE, V29.B16); \
	VEOR V30.B16, V0.B16, V0.B16; \
	VEOR V30.B16, V1.B16, V1.B16; \
	VEOR V30.B16, V2.B16, V2.B16; \
	VEOR V30.B16, V3.B16, V3.B16; \
	VEOR V30.B16, V4.B16, V4.B16; \
	VEOR V30.B16, V5.B16, V5.B16; \
	VEOR V30.B16, V6.B16, V6.B16; \
	VEOR V30.B16, V7.B16, V7.B16; \
	STORE8(AT); \
	ADD $128, AT; \
	SUBS $8, R1; \
	BGT loop

// PREPARE makes the tweaks of the first group.
#define PREPARE \
	LDP.P 16(AT), (LO, HI); \
	STEP(0); \
	STEP(16); \
	STEP(32); \
	STEP(48); \
	STEP(64); \
	STEP(80); \
	STEP(96); \
	STEP(112)

// FORGET clears 128 bytes of memory at p.
#define FORGET(p) \
	STP (ZR, ZR), 0(p); \
	STP (ZR, ZR), 16(p); \
	STP (ZR, ZR), 32(p); \
	STP (ZR, ZR), 48(p); \
	STP (ZR, ZR), 64(p); \
	STP (ZR, ZR), 80(p); \
	STP (ZR, ZR), 96(p); \
	STP (ZR, ZR), 112(p)

// CLEAR erases what the stack holds, AT being one slot past the last number that
// was used, and every register that held a key, a tweak or text.
#define CLEAR(loop) \
	FORGET(TWEAKS); \
	ADD $128, TWEAKS; \
	FORGET(TWEAKS); \
	ADD $16, RSP, TWEAKS; \
loop: \
	FORGET(TWEAKS); \
	ADD $128, TWEAKS; \
	CMP AT, TWEAKS; \
	BLO loop; \
	MOVD ZR, LO; \
	MOVD ZR, HI; \
	MOVD ZR, K0LO; \
	MOVD ZR, K0HI; \
	MOVD ZR, KNLO; \
	MOVD ZR, KNHI; \
	MOVD ZR, BEFLO; \
	MOVD ZR, BEFHI; \
	MOVD ZR, AFTLO; \
	MOVD ZR, AFTHI; \
	MOVD ZR, FOLD; \
	VEOR V0.B16, V0.B16, V0.B16; \
	VEOR V1.B16, V1.B16, V1.B16; \
	VEOR V2.B16, V2.B16, V2.B16; \
	VEOR V3.B16, V3.B16, V3.B16; \
	VEOR V4.B16, V4.B16, V4.B16; \
	VEOR V5.B16, V5.B16, V5.B16; \
	VEOR V6.B16, V6.B16, V6.B16; \
	VEOR V7.B16, V7.B16, V7.B16; \
	VEOR V8.B16, V8.B16, V8.B16; \
	VEOR V9.B16, V9.B16, V9.B16; \
	VEOR V10.B16, V10.B16, V10.B16; \
	VEOR V11.B16, V11.B16, V11.B16; \
	VEOR V12.B16, V12.B16, V12.B16; \
	VEOR V13.B16, V13.B16, V13.B16; \
	VEOR V16.B16, V16.B16, V16.B16; \
	VEOR V17.B16, V17.B16, V17.B16; \
	VEOR V18.B16, V18.B16, V18.B16; \
	VEOR V19.B16, V19.B16, V19.B16; \
	VEOR V20.B16, V20.B16, V20.B16; \
	VEOR V21.B16, V21.B16, V21.B16; \
	VEOR V22.B16, V22.B16, V22.B16; \
	VEOR V23.B16, V23.B16, V23.B16; \
	VEOR V24.B16, V24.B16, V24.B16; \
	VEOR V25.B16, V25.B16, V25.B16; \
	VEOR V26.B16, V26.B16, V26.B16; \
	VEOR V27.B16, V27.B16, V27.B16; \
	VEOR V28.B16, V28.B16, V28.B16; \
	VEOR V29.B16, V29.B16, V29.B16; \
	VEOR V30.B16, V30.B16, V30.B16; \
	VEOR V31.B16, V31.B16, V31.B16

// CRYPT is a whole function but for its arguments: the keys in R0, those of the
// tweak in R1, the number of data units in GROUPS, their size in PERUNIT. The frame
// holds, from 16(RSP), which is aligned, 64 encrypted numbers and eight tweaks twice.
#define CRYPT(op, mix) \
	LOADKEYS(R1, tweakKeys12, tweakKeys10); \
	MOVD GROUPS, R1; \
	ADD $16, RSP, AT; \
	NUMBERS(numbers, numbers12, numbers10); \
	LOADKEYS(R0, keys12, keys10); \
	VMOV V30.D[0], KNLO; \
	VMOV V30.D[1], KNHI; \
	LSR $7, PERUNIT; \
	MOVD PERUNIT, LEFT; \
	MUL PERUNIT, GROUPS; \
	MOVD $0x87, POLY; \
	ADD $16, RSP, AT; \
	ADD $1024, AT, TWEAKS; \
	CMP $12, ROUNDS; \
	BLT begin10; \
	BEQ begin12; \
	VMOV V16.D[0], K0LO; \
	VMOV V16.D[1], K0HI; \
	PREPARE; \
PCALIGN $32; \
group14: \
	BEGIN(op, mix, same14); \
	ROUND(op, mix, V17.B16); \
	ROUND(op, mix, V18.B16); \
	ROUND(op, mix, V19.B16); \
	ROUND(op, mix, V20.B16); \
	REST(op, mix); \
	END(group14); \
	JMP done; \
begin12: \
	VMOV V18.D[0], K0LO; \
	VMOV V18.D[1], K0HI; \
	PREPARE; \
PCALIGN $32; \
group12: \
	BEGIN(op, mix, same12); \
	ROUND(op, mix, V19.B16); \
	ROUND(op, mix, V20.B16); \
	REST(op, mix); \
	END(group12); \
	JMP done; \
begin10: \
	VMOV V20.D[0], K0LO; \
	VMOV V20.D[1], K0HI; \
	PREPARE; \
PCALIGN $32; \
group10: \
	BEGIN(op, mix, same10); \
	REST(op, mix); \
	END(group10); \
done: \
	CLEAR(forget)

// func encryptARMv8(keys, tweakKeys *byte, rounds int, dst, src *byte, unit, units int, lo, hi, step uint64)
TEXT ·encryptARMv8(SB), 0, $1288-80
	MOVD keys+0(FP), R0
	MOVD tweakKeys+8(FP), R1
	MOVD rounds+16(FP), ROUNDS
	MOVD dst+24(FP), DST
	MOVD src+32(FP), SRC
	MOVD unit+40(FP), PERUNIT
	MOVD units+48(FP), GROUPS
	MOVD lo+56(FP), LO
	MOVD hi+64(FP), HI
	MOVD step+72(FP), BY
	CRYPT(AESE, AESMC)
	RET

// func decryptARMv8(keys, tweakKeys *byte, rounds int, dst, src *byte, unit, units int, lo, hi, step uint64)
TEXT ·decryptARMv8(SB), 0, $1288-80
	MOVD keys+0(FP), R0
	MOVD tweakKeys+8(FP), R1
	MOVD rounds+16(FP), ROUNDS
	MOVD dst+24(FP), DST
	MOVD src+32(FP), SRC
	MOVD unit+40(FP), PERUNIT
	MOVD units+48(FP), GROUPS
	MOVD lo+56(FP), LO
	MOVD hi+64(FP), HI
	MOVD step+72(FP), BY
	CRYPT(AESD, AESIMC)
	RET
