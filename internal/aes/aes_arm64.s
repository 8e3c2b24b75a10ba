//go:build arm64 && !purego

#include "textflag.h"

// FIPS 197 by the AES instructions of ARMv8. AESE adds the round key, substitutes
// and shifts rows; AESMC mixes columns; so the last key is added by VEOR. AESD and
// AESIMC are the inverses, for the schedule of the equivalent inverse cipher.

// CLEARKEYS and CLEARTEXT clear the vector registers that hold them.
#define CLEARKEYS \
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
	VEOR V30.B16, V30.B16, V30.B16

#define CLEARTEXT \
	VEOR V0.B16, V0.B16, V0.B16; \
	VEOR V1.B16, V1.B16, V1.B16; \
	VEOR V2.B16, V2.B16, V2.B16; \
	VEOR V3.B16, V3.B16, V3.B16; \
	VEOR V4.B16, V4.B16, V4.B16; \
	VEOR V5.B16, V5.B16, V5.B16; \
	VEOR V6.B16, V6.B16, V6.B16; \
	VEOR V7.B16, V7.B16, V7.B16

// SUBWORD sets R12 to SubWord of the word in, or to its bytes rotated if right is
// 8 bits: in a vector of four equal columns ShiftRows changes nothing. V1 is zero.
#define SUBWORD(in, right) \
	VDUP in, V0.S4; \
	AESE V1.B16, V0.B16; \
	VMOV V0.S[0], R12; \
	RORW $right, R12

// CHAIN makes four words from the four behind them.
#define CHAIN(a, b, c, d) \
	EORW R12, a; \
	EORW a, b; \
	EORW b, c; \
	EORW c, d

// ROTWORD is the start of each pass over the key: SubWord(RotWord(in)) + Rcon,
// and the next Rcon, which is in R3.
#define ROTWORD(in) \
	SUBWORD(in, 8); \
	EORW R3, R12; \
	LSLW $1, R3; \
	TSTW $0x100, R3; \
	CSELW EQ, ZR, R13, R14; \
	EORW R14, R3

// func expandKey(w, key *byte, rounds int)
TEXT ·expandKey(SB), NOSPLIT, $0-24
	MOVD w+0(FP), R0
	MOVD key+8(FP), R1
	MOVD rounds+16(FP), R2
	MOVD $1, R3
	MOVD $0x11b, R13
	VEOR V1.B16, V1.B16, V1.B16
	LDPW (R1), (R4, R5)
	LDPW 8(R1), (R6, R7)
	STPW.P (R4, R5), 8(R0)
	STPW.P (R6, R7), 8(R0)
	CMP $12, R2
	BEQ key192
	BGT key256

key128: // R2 is 10, a round key a pass
	ROTWORD(R7)
	CHAIN(R4, R5, R6, R7)
	STPW.P (R4, R5), 8(R0)
	STPW.P (R6, R7), 8(R0)
	SUB $1, R2
	CBNZ R2, key128
	JMP done

key192: // a round key and a half a pass, in the last one a round key
	MOVD $8, R2
	LDPW 16(R1), (R8, R9)
	STPW.P (R8, R9), 8(R0)

pass192:
	ROTWORD(R9)
	CHAIN(R4, R5, R6, R7)
	STPW.P (R4, R5), 8(R0)
	STPW.P (R6, R7), 8(R0)
	SUB $1, R2
	CBZ R2, done
	EORW R7, R8
	EORW R8, R9
	STPW.P (R8, R9), 8(R0)
	JMP pass192

key256: // two round keys a pass, in the last one the first of them
	MOVD $7, R2
	LDPW 16(R1), (R8, R9)
	LDPW 24(R1), (R10, R11)
	STPW.P (R8, R9), 8(R0)
	STPW.P (R10, R11), 8(R0)

pass256:
	ROTWORD(R11)
	CHAIN(R4, R5, R6, R7)
	STPW.P (R4, R5), 8(R0)
	STPW.P (R6, R7), 8(R0)
	SUB $1, R2
	CBZ R2, done
	SUBWORD(R7, 0)
	CHAIN(R8, R9, R10, R11)
	STPW.P (R8, R9), 8(R0)
	STPW.P (R10, R11), 8(R0)
	JMP pass256

done:
	MOVD ZR, R4
	MOVD ZR, R5
	MOVD ZR, R6
	MOVD ZR, R7
	MOVD ZR, R8
	MOVD ZR, R9
	MOVD ZR, R10
	MOVD ZR, R11
	MOVD ZR, R12
	VEOR V0.B16, V0.B16, V0.B16
	VEOR V1.B16, V1.B16, V1.B16
	RET

// func invertKey(dec, enc *byte, rounds int)
TEXT ·invertKey(SB), NOSPLIT, $0-24
	MOVD dec+0(FP), R0
	MOVD enc+8(FP), R1
	MOVD rounds+16(FP), R2
	ADD R2<<4, R1
	SUB $1, R2
	FMOVQ.P -16(R1), F0
	FMOVQ.P F0, 16(R0)

middle:
	FMOVQ.P -16(R1), F0
	AESIMC V0.B16, V0.B16
	FMOVQ.P F0, 16(R0)
	SUB $1, R2
	CBNZ R2, middle
	FMOVQ (R1), F0
	FMOVQ F0, (R0)
	VEOR V0.B16, V0.B16, V0.B16
	RET

// LOADKEYS reads R1 + 1 round keys from R0: to V16 to V30, of which the last one is
// in V30 whatever their number.
#define LOADKEYS \
	CMP $12, R1; \
	BLT load10; \
	BEQ load12; \
	FLDPQ.P 32(R0), (F16, F17); \
load12: \
	FLDPQ.P 32(R0), (F18, F19); \
load10: \
	FLDPQ.P 32(R0), (F20, F21); \
	FLDPQ.P 32(R0), (F22, F23); \
	FLDPQ.P 32(R0), (F24, F25); \
	FLDPQ.P 32(R0), (F26, F27); \
	FLDPQ.P 32(R0), (F28, F29); \
	FMOVQ (R0), F30

// ROUND8 is a round of eight blocks. The two instructions of a pair are adjacent so
// that cores fuse them.
#define ROUND8(op, mix, k) \
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

#define LAST8(op) \
	op V29.B16, V0.B16; \
	op V29.B16, V1.B16; \
	op V29.B16, V2.B16; \
	op V29.B16, V3.B16; \
	op V29.B16, V4.B16; \
	op V29.B16, V5.B16; \
	op V29.B16, V6.B16; \
	op V29.B16, V7.B16; \
	VEOR V30.B16, V0.B16, V0.B16; \
	VEOR V30.B16, V1.B16, V1.B16; \
	VEOR V30.B16, V2.B16, V2.B16; \
	VEOR V30.B16, V3.B16, V3.B16; \
	VEOR V30.B16, V4.B16, V4.B16; \
	VEOR V30.B16, V5.B16, V5.B16; \
	VEOR V30.B16, V6.B16, V6.B16; \
	VEOR V30.B16, V7.B16, V7.B16

#define ROUND1(op, mix, k) \
	op k, V0.B16; \
	mix V0.B16, V0.B16

// BLOCKS runs R15 blocks from R3 to R2: eight at a time, then one at a time, of which
// cores that execute out of order do several at once.
#define BLOCKS(op, mix) \
	LOADKEYS; \
	SUBS $8, R15; \
	BLT few; \
eight: \
	FLDPQ.P 32(R3), (F0, F1); \
	FLDPQ.P 32(R3), (F2, F3); \
	FLDPQ.P 32(R3), (F4, F5); \
	FLDPQ.P 32(R3), (F6, F7); \
	CMP $12, R1; \
	BLT ten8; \
	BEQ twelve8; \
	ROUND8(op, mix, V16.B16); \
	ROUND8(op, mix, V17.B16); \
twelve8: \
	ROUND8(op, mix, V18.B16); \
	ROUND8(op, mix, V19.B16); \
ten8: \
	ROUND8(op, mix, V20.B16); \
	ROUND8(op, mix, V21.B16); \
	ROUND8(op, mix, V22.B16); \
	ROUND8(op, mix, V23.B16); \
	ROUND8(op, mix, V24.B16); \
	ROUND8(op, mix, V25.B16); \
	ROUND8(op, mix, V26.B16); \
	ROUND8(op, mix, V27.B16); \
	ROUND8(op, mix, V28.B16); \
	LAST8(op); \
	FSTPQ.P (F0, F1), 32(R2); \
	FSTPQ.P (F2, F3), 32(R2); \
	FSTPQ.P (F4, F5), 32(R2); \
	FSTPQ.P (F6, F7), 32(R2); \
	SUBS $8, R15; \
	BGE eight; \
few: \
	ADDS $8, R15; \
	BEQ done; \
one: \
	FMOVQ.P 16(R3), F0; \
	CMP $12, R1; \
	BLT ten1; \
	BEQ twelve1; \
	ROUND1(op, mix, V16.B16); \
	ROUND1(op, mix, V17.B16); \
twelve1: \
	ROUND1(op, mix, V18.B16); \
	ROUND1(op, mix, V19.B16); \
ten1: \
	ROUND1(op, mix, V20.B16); \
	ROUND1(op, mix, V21.B16); \
	ROUND1(op, mix, V22.B16); \
	ROUND1(op, mix, V23.B16); \
	ROUND1(op, mix, V24.B16); \
	ROUND1(op, mix, V25.B16); \
	ROUND1(op, mix, V26.B16); \
	ROUND1(op, mix, V27.B16); \
	ROUND1(op, mix, V28.B16); \
	op V29.B16, V0.B16; \
	VEOR V30.B16, V0.B16, V0.B16; \
	FMOVQ.P F0, 16(R2); \
	SUBS $1, R15; \
	BNE one; \
done: \
	CLEARKEYS; \
	CLEARTEXT

// func encryptBlocks(keys *byte, rounds int, dst, src *byte, blocks int)
TEXT ·encryptBlocks(SB), NOSPLIT, $0-40
	MOVD keys+0(FP), R0
	MOVD rounds+8(FP), R1
	MOVD dst+16(FP), R2
	MOVD src+24(FP), R3
	MOVD blocks+32(FP), R15
	BLOCKS(AESE, AESMC)
	RET

// func decryptBlocks(keys *byte, rounds int, dst, src *byte, blocks int)
TEXT ·decryptBlocks(SB), NOSPLIT, $0-40
	MOVD keys+0(FP), R0
	MOVD rounds+8(FP), R1
	MOVD dst+16(FP), R2
	MOVD src+24(FP), R3
	MOVD blocks+32(FP), R15
	BLOCKS(AESD, AESIMC)
	RET
