//go:build arm64 && !purego

#include "textflag.h"

// ChaCha (Bernstein, "ChaCha, a variant of Salsa20", 2008) on NEON: four blocks side
// by side, word i of all of them in V<i>, so that a round is the same for all and
// moves nothing. Rotations by 16 and 8 bits move bytes (VREV32, VTBL), those by 12
// and 7 are a shift and an insert.
//
// Four blocks keep two vector pipes busy with operations that take two cycles each.
// Wider cores want more, and have registers for two more blocks: those lie row by
// row, V20-V23 and V24-V27, and are woven between the others. By llvm-mca 19, cycles
// for a block of ChaCha12, four at once and six at once:
//
//	Neoverse N1   96  102
//	Neoverse N2   96  102
//	Neoverse V1   87   60
//	Neoverse V2   84   60
//	Cortex-A72   138  104
//	Cortex-A55   177  186
//	Cortex-A510  141  105

// "expand 32-byte k"; the numbers of four blocks; the bytes of a word rotated left
// by 8 bits.
DATA constants<>+0x00(SB)/8, $0x3320646e61707865
DATA constants<>+0x08(SB)/8, $0x6b20657479622d32
DATA constants<>+0x10(SB)/8, $0x0000000100000000
DATA constants<>+0x18(SB)/8, $0x0000000300000002
DATA constants<>+0x20(SB)/8, $0x0605040702010003
DATA constants<>+0x28(SB)/8, $0x0e0d0c0f0a09080b
GLOBL constants<>(SB), RODATA|NOPTR, $48

#define SIGMA   (R6)
#define COUNT   16(R6)
#define ROTATE8 32(R6)

#define SUBKEY R0
#define DST    R1
#define TEXT_  R2
#define LEFT   R3 // bytes
#define AT     R4 // number of the next block
#define ROUNDS R5
#define CONST  R6
#define KS     R7 // stream in the frame
#define PAIRS  R8 // double rounds left

// ROUND4 is a round of four blocks; the arguments are the rows, or the diagonals, of
// the state. It needs V16-V19, and the rotation by 8 in V31.
#define ROUND4(a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3) \
	VADD b0.S4, a0.S4, a0.S4; VADD b1.S4, a1.S4, a1.S4; \
	VADD b2.S4, a2.S4, a2.S4; VADD b3.S4, a3.S4, a3.S4; \
	VEOR a0.B16, d0.B16, d0.B16; VEOR a1.B16, d1.B16, d1.B16; \
	VEOR a2.B16, d2.B16, d2.B16; VEOR a3.B16, d3.B16, d3.B16; \
	VREV32 d0.H8, d0.H8; VREV32 d1.H8, d1.H8; \
	VREV32 d2.H8, d2.H8; VREV32 d3.H8, d3.H8; \
	VADD d0.S4, c0.S4, c0.S4; VADD d1.S4, c1.S4, c1.S4; \
	VADD d2.S4, c2.S4, c2.S4; VADD d3.S4, c3.S4, c3.S4; \
	VEOR c0.B16, b0.B16, b0.B16; VEOR c1.B16, b1.B16, b1.B16; \
	VEOR c2.B16, b2.B16, b2.B16; VEOR c3.B16, b3.B16, b3.B16; \
	VSHL $12, b0.S4, V16.S4; VSHL $12, b1.S4, V17.S4; \
	VSHL $12, b2.S4, V18.S4; VSHL $12, b3.S4, V19.S4; \
	VSRI $20, b0.S4, V16.S4; VSRI $20, b1.S4, V17.S4; \
	VSRI $20, b2.S4, V18.S4; VSRI $20, b3.S4, V19.S4; \
	VADD V16.S4, a0.S4, a0.S4; VADD V17.S4, a1.S4, a1.S4; \
	VADD V18.S4, a2.S4, a2.S4; VADD V19.S4, a3.S4, a3.S4; \
	VEOR a0.B16, d0.B16, d0.B16; VEOR a1.B16, d1.B16, d1.B16; \
	VEOR a2.B16, d2.B16, d2.B16; VEOR a3.B16, d3.B16, d3.B16; \
	VTBL V31.B16, [d0.B16], d0.B16; VTBL V31.B16, [d1.B16], d1.B16; \
	VTBL V31.B16, [d2.B16], d2.B16; VTBL V31.B16, [d3.B16], d3.B16; \
	VADD d0.S4, c0.S4, c0.S4; VADD d1.S4, c1.S4, c1.S4; \
	VADD d2.S4, c2.S4, c2.S4; VADD d3.S4, c3.S4, c3.S4; \
	VEOR c0.B16, V16.B16, V16.B16; VEOR c1.B16, V17.B16, V17.B16; \
	VEOR c2.B16, V18.B16, V18.B16; VEOR c3.B16, V19.B16, V19.B16; \
	VSHL $7, V16.S4, b0.S4; VSHL $7, V17.S4, b1.S4; \
	VSHL $7, V18.S4, b2.S4; VSHL $7, V19.S4, b3.S4; \
	VSRI $25, V16.S4, b0.S4; VSRI $25, V17.S4, b1.S4; \
	VSRI $25, V18.S4, b2.S4; VSRI $25, V19.S4, b3.S4

// ROUND6 is a round of six: of the two that lie row by row too, whose rows two and four it then
// turns by rb and rd bytes, from columns to diagonals or back. It needs V28 and V29 besides.
#define ROUND6(a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3, rb, rd) \
	VADD b0.S4, a0.S4, a0.S4; VADD b1.S4, a1.S4, a1.S4; \
	VADD b2.S4, a2.S4, a2.S4; VADD b3.S4, a3.S4, a3.S4; \
	VADD V21.S4, V20.S4, V20.S4; VADD V25.S4, V24.S4, V24.S4; \
	VEOR a0.B16, d0.B16, d0.B16; VEOR a1.B16, d1.B16, d1.B16; \
	VEOR a2.B16, d2.B16, d2.B16; VEOR a3.B16, d3.B16, d3.B16; \
	VEOR V20.B16, V23.B16, V23.B16; VEOR V24.B16, V27.B16, V27.B16; \
	VREV32 d0.H8, d0.H8; VREV32 d1.H8, d1.H8; \
	VREV32 d2.H8, d2.H8; VREV32 d3.H8, d3.H8; \
	VREV32 V23.H8, V23.H8; VREV32 V27.H8, V27.H8; \
	VADD d0.S4, c0.S4, c0.S4; VADD d1.S4, c1.S4, c1.S4; \
	VADD d2.S4, c2.S4, c2.S4; VADD d3.S4, c3.S4, c3.S4; \
	VADD V23.S4, V22.S4, V22.S4; VADD V27.S4, V26.S4, V26.S4; \
	VEOR c0.B16, b0.B16, b0.B16; VEOR c1.B16, b1.B16, b1.B16; \
	VEOR c2.B16, b2.B16, b2.B16; VEOR c3.B16, b3.B16, b3.B16; \
	VEOR V22.B16, V21.B16, V21.B16; VEOR V26.B16, V25.B16, V25.B16; \
	VSHL $12, b0.S4, V16.S4; VSHL $12, b1.S4, V17.S4; \
	VSHL $12, b2.S4, V18.S4; VSHL $12, b3.S4, V19.S4; \
	VSHL $12, V21.S4, V28.S4; VSHL $12, V25.S4, V29.S4; \
	VSRI $20, b0.S4, V16.S4; VSRI $20, b1.S4, V17.S4; \
	VSRI $20, b2.S4, V18.S4; VSRI $20, b3.S4, V19.S4; \
	VSRI $20, V21.S4, V28.S4; VSRI $20, V25.S4, V29.S4; \
	VADD V16.S4, a0.S4, a0.S4; VADD V17.S4, a1.S4, a1.S4; \
	VADD V18.S4, a2.S4, a2.S4; VADD V19.S4, a3.S4, a3.S4; \
	VADD V28.S4, V20.S4, V20.S4; VADD V29.S4, V24.S4, V24.S4; \
	VEOR a0.B16, d0.B16, d0.B16; VEOR a1.B16, d1.B16, d1.B16; \
	VEOR a2.B16, d2.B16, d2.B16; VEOR a3.B16, d3.B16, d3.B16; \
	VEOR V20.B16, V23.B16, V23.B16; VEOR V24.B16, V27.B16, V27.B16; \
	VTBL V31.B16, [d0.B16], d0.B16; VTBL V31.B16, [d1.B16], d1.B16; \
	VTBL V31.B16, [d2.B16], d2.B16; VTBL V31.B16, [d3.B16], d3.B16; \
	VTBL V31.B16, [V23.B16], V23.B16; VTBL V31.B16, [V27.B16], V27.B16; \
	VADD d0.S4, c0.S4, c0.S4; VADD d1.S4, c1.S4, c1.S4; \
	VADD d2.S4, c2.S4, c2.S4; VADD d3.S4, c3.S4, c3.S4; \
	VADD V23.S4, V22.S4, V22.S4; VADD V27.S4, V26.S4, V26.S4; \
	VEOR c0.B16, V16.B16, V16.B16; VEOR c1.B16, V17.B16, V17.B16; \
	VEOR c2.B16, V18.B16, V18.B16; VEOR c3.B16, V19.B16, V19.B16; \
	VEOR V22.B16, V28.B16, V28.B16; VEOR V26.B16, V29.B16, V29.B16; \
	VSHL $7, V16.S4, b0.S4; VSHL $7, V17.S4, b1.S4; \
	VSHL $7, V18.S4, b2.S4; VSHL $7, V19.S4, b3.S4; \
	VSHL $7, V28.S4, V21.S4; VSHL $7, V29.S4, V25.S4; \
	VSRI $25, V16.S4, b0.S4; VSRI $25, V17.S4, b1.S4; \
	VSRI $25, V18.S4, b2.S4; VSRI $25, V19.S4, b3.S4; \
	VSRI $25, V28.S4, V21.S4; VSRI $25, V29.S4, V25.S4; \
	VEXT $rb, V21.B16, V21.B16, V21.B16; VEXT $rb, V25.B16, V25.B16, V25.B16; \
	VEXT $8, V22.B16, V22.B16, V22.B16; VEXT $8, V26.B16, V26.B16, V26.B16; \
	VEXT $rd, V23.B16, V23.B16, V23.B16; VEXT $rd, V27.B16, V27.B16, V27.B16

// FIRSTROW sets V0 to V3, KEYROWS V4 to V11 from R9 on: word by word, the same for four blocks.
#define KEYROWS \
	VLD1R.P 4(R9), [V4.S4]; VLD1R.P 4(R9), [V5.S4]; \
	VLD1R.P 4(R9), [V6.S4]; VLD1R.P 4(R9), [V7.S4]; \
	VLD1R.P 4(R9), [V8.S4]; VLD1R.P 4(R9), [V9.S4]; \
	VLD1R.P 4(R9), [V10.S4]; VLD1R.P 4(R9), [V11.S4]

#define FIRSTROW \
	MOVD CONST, R9; \
	VLD1R.P 4(R9), [V0.S4]; VLD1R.P 4(R9), [V1.S4]; \
	VLD1R.P 4(R9), [V2.S4]; VLD1R.P 4(R9), [V3.S4]

// TRANSPOSE exchanges rows and columns of four words by four.
#define TRANSPOSE(p, q, r, s) \
	VTRN1 q.S4, p.S4, V16.S4; VTRN2 q.S4, p.S4, V17.S4; \
	VTRN1 s.S4, r.S4, V18.S4; VTRN2 s.S4, r.S4, V19.S4; \
	VTRN1 V18.D2, V16.D2, p.D2; VTRN1 V19.D2, V17.D2, q.D2; \
	VTRN2 V18.D2, V16.D2, r.D2; VTRN2 V19.D2, V17.D2, s.D2

// FINISH4 adds the input of four blocks that begin with number AT, and transposes: block i
// is then V<i>, V<i+4>, V<i+8> and V<i+12>.
#define FINISH4 \
	MOVD CONST, R9; \
	VLD1R.P 4(R9), [V16.S4]; VADD V16.S4, V0.S4, V0.S4; \
	VLD1R.P 4(R9), [V16.S4]; VADD V16.S4, V1.S4, V1.S4; \
	VLD1R.P 4(R9), [V16.S4]; VADD V16.S4, V2.S4, V2.S4; \
	VLD1R.P 4(R9), [V16.S4]; VADD V16.S4, V3.S4, V3.S4; \
	MOVD SUBKEY, R9; \
	VLD1R.P 4(R9), [V16.S4]; VADD V16.S4, V4.S4, V4.S4; \
	VLD1R.P 4(R9), [V17.S4]; VADD V17.S4, V5.S4, V5.S4; \
	VLD1R.P 4(R9), [V18.S4]; VADD V18.S4, V6.S4, V6.S4; \
	VLD1R.P 4(R9), [V19.S4]; VADD V19.S4, V7.S4, V7.S4; \
	VLD1R.P 4(R9), [V16.S4]; VADD V16.S4, V8.S4, V8.S4; \
	VLD1R.P 4(R9), [V17.S4]; VADD V17.S4, V9.S4, V9.S4; \
	VLD1R.P 4(R9), [V18.S4]; VADD V18.S4, V10.S4, V10.S4; \
	VLD1R.P 4(R9), [V19.S4]; VADD V19.S4, V11.S4, V11.S4; \
	FMOVQ COUNT, F16; \
	VDUP AT, V17.S4; VADD V17.S4, V16.S4, V16.S4; VADD V16.S4, V12.S4, V12.S4; \
	VMOVI $1, V17.B16; VUSHR $24, V17.S4, V17.S4; VADD V17.S4, V14.S4, V14.S4; \
	TRANSPOSE(V0, V1, V2, V3); \
	TRANSPOSE(V4, V5, V6, V7); \
	TRANSPOSE(V8, V9, V10, V11); \
	TRANSPOSE(V12, V13, V14, V15)

// BEGIN4 sets up four blocks that begin with number AT. The third word of the nonce is 1.
#define BEGIN4 \
	FIRSTROW; \
	MOVD SUBKEY, R9; \
	KEYROWS; \
	FMOVQ COUNT, F12; \
	VDUP AT, V16.S4; \
	VADD V16.S4, V12.S4, V12.S4; \
	VEOR V13.B16, V13.B16, V13.B16; \
	VMOVI $1, V14.B16; \
	VUSHR $24, V14.S4, V14.S4; \
	VEOR V15.B16, V15.B16, V15.B16

// BEGIN2 sets up the two blocks behind those.
#define BEGIN2 \
	FMOVQ SIGMA, F20; \
	FMOVQ (SUBKEY), F21; \
	FMOVQ 16(SUBKEY), F22; \
	VMOV V20.B16, V24.B16; \
	VMOV V21.B16, V25.B16; \
	VMOV V22.B16, V26.B16; \
	ADD $4, AT, R9; \
	MOVD $1, R10; \
	VEOR V23.B16, V23.B16, V23.B16; \
	VMOV R9, V23.S[0]; \
	VMOV R10, V23.S[2]; \
	ADD $1, R9; \
	VMOV V23.B16, V27.B16; \
	VMOV R9, V27.S[0]

// FINISH2 adds their input.
#define FINISH2 \
	FMOVQ SIGMA, F28; \
	VADD V28.S4, V20.S4, V20.S4; \
	VADD V28.S4, V24.S4, V24.S4; \
	FMOVQ (SUBKEY), F29; \
	VADD V29.S4, V21.S4, V21.S4; \
	VADD V29.S4, V25.S4, V25.S4; \
	FMOVQ 16(SUBKEY), F28; \
	VADD V28.S4, V22.S4, V22.S4; \
	VADD V28.S4, V26.S4, V26.S4; \
	ADD $4, AT, R9; \
	MOVD $1, R10; \
	VEOR V29.B16, V29.B16, V29.B16; \
	VMOV R9, V29.S[0]; \
	VMOV R10, V29.S[2]; \
	VADD V29.S4, V23.S4, V23.S4; \
	ADD $1, R9; \
	VMOV R9, V29.S[0]; \
	VADD V29.S4, V27.S4, V27.S4

// XORBLOCK adds a block of the stream to the text and writes the sum to both places.
#define XORBLOCK(Va, Vb, Vc, Vd, Fa, Fb, Fc, Fd) \
	FLDPQ.P 32(TEXT_), (F16, F17); FLDPQ.P 32(TEXT_), (F18, F19); \
	VEOR V16.B16, Va.B16, Va.B16; VEOR V17.B16, Vb.B16, Vb.B16; \
	VEOR V18.B16, Vc.B16, Vc.B16; VEOR V19.B16, Vd.B16, Vd.B16; \
	FSTPQ (Fa, Fb), -64(TEXT_); FSTPQ (Fc, Fd), -32(TEXT_); \
	FSTPQ.P (Fa, Fb), 32(DST); FSTPQ.P (Fc, Fd), 32(DST)

#define XOR4 \
	XORBLOCK(V0, V4, V8, V12, F0, F4, F8, F12); \
	XORBLOCK(V1, V5, V9, V13, F1, F5, F9, F13); \
	XORBLOCK(V2, V6, V10, V14, F2, F6, F10, F14); \
	XORBLOCK(V3, V7, V11, V15, F3, F7, F11, F15)

// CLEAR clears the vector registers.
#define CLEAR \
	VEOR V0.B16, V0.B16, V0.B16; VEOR V1.B16, V1.B16, V1.B16; VEOR V2.B16, V2.B16, V2.B16; \
	VEOR V3.B16, V3.B16, V3.B16; VEOR V4.B16, V4.B16, V4.B16; VEOR V5.B16, V5.B16, V5.B16; \
	VEOR V6.B16, V6.B16, V6.B16; VEOR V7.B16, V7.B16, V7.B16; VEOR V8.B16, V8.B16, V8.B16; \
	VEOR V9.B16, V9.B16, V9.B16; VEOR V10.B16, V10.B16, V10.B16; VEOR V11.B16, V11.B16, V11.B16; \
	VEOR V12.B16, V12.B16, V12.B16; VEOR V13.B16, V13.B16, V13.B16; VEOR V14.B16, V14.B16, V14.B16; \
	VEOR V15.B16, V15.B16, V15.B16; VEOR V16.B16, V16.B16, V16.B16; VEOR V17.B16, V17.B16, V17.B16; \
	VEOR V18.B16, V18.B16, V18.B16; VEOR V19.B16, V19.B16, V19.B16; VEOR V20.B16, V20.B16, V20.B16; \
	VEOR V21.B16, V21.B16, V21.B16; VEOR V22.B16, V22.B16, V22.B16; VEOR V23.B16, V23.B16, V23.B16; \
	VEOR V24.B16, V24.B16, V24.B16; VEOR V25.B16, V25.B16, V25.B16; VEOR V26.B16, V26.B16, V26.B16; \
	VEOR V27.B16, V27.B16, V27.B16; VEOR V28.B16, V28.B16, V28.B16; VEOR V29.B16, V29.B16, V29.B16; \
	VEOR V30.B16, V30.B16, V30.B16; VEOR V31.B16, V31.B16, V31.B16

// func streamNEON(sub *uint32, dst, text *byte, bytes int, block uint32, rounds int)
TEXT ·streamNEON(SB), 0, $264-48
	MOVD sub+0(FP), SUBKEY
	MOVD dst+8(FP), DST
	MOVD text+16(FP), TEXT_
	MOVD bytes+24(FP), LEFT
	MOVWU block+32(FP), AT
	MOVD rounds+40(FP), ROUNDS
	MOVD $constants<>(SB), CONST
	ADD $16, RSP, KS
	FMOVQ ROTATE8, F31

six: // as long as more than eight blocks are left: six and then twice four are as good
	CMP $512, LEFT
	BLE four
	BEGIN4
	BEGIN2
	LSR $1, ROUNDS, PAIRS

	PCALIGN $32
rounds6:
	ROUND6(V0, V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11, V12, V13, V14, V15, 4, 12)
	ROUND6(V0, V1, V2, V3, V5, V6, V7, V4, V10, V11, V8, V9, V15, V12, V13, V14, 12, 4)
	SUB $1, PAIRS
	CBNZ PAIRS, rounds6
	FINISH2
	FINISH4
	XOR4
	XORBLOCK(V20, V21, V22, V23, F20, F21, F22, F23)
	XORBLOCK(V24, V25, V26, V27, F24, F25, F26, F27)
	ADD $6, AT
	SUB $384, LEFT
	JMP six

four:
	BEGIN4
	LSR $1, ROUNDS, PAIRS

	PCALIGN $32
rounds4:
	ROUND4(V0, V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11, V12, V13, V14, V15)
	ROUND4(V0, V1, V2, V3, V5, V6, V7, V4, V10, V11, V8, V9, V15, V12, V13, V14)
	SUB $1, PAIRS
	CBNZ PAIRS, rounds4
	FINISH4
	CMP $256, LEFT
	BLT part
	XOR4
	ADD $4, AT
	SUBS $256, LEFT
	BNE four
	JMP done

part: // of four blocks, 16 bytes at a time from the frame
	FSTPQ (F0, F4), 0(KS)
	FSTPQ (F8, F12), 32(KS)
	FSTPQ (F1, F5), 64(KS)
	FSTPQ (F9, F13), 96(KS)
	FSTPQ (F2, F6), 128(KS)
	FSTPQ (F10, F14), 160(KS)
	FSTPQ (F3, F7), 192(KS)
	FSTPQ (F11, F15), 224(KS)
sixteen:
	FMOVQ.P 16(KS), F0
	FMOVQ (TEXT_), F1
	VEOR V1.B16, V0.B16, V0.B16
	FMOVQ.P F0, 16(TEXT_)
	FMOVQ.P F0, 16(DST)
	SUBS $16, LEFT
	BNE sixteen
	ADD $16, RSP, KS
	MOVD $16, LEFT
forget:
	STP.P (ZR, ZR), 16(KS)
	SUB $1, LEFT
	CBNZ LEFT, forget

done:
	CLEAR
	RET

// func subkeysNEON(key, sub *uint32, nonces *byte, rounds int)
TEXT ·subkeysNEON(SB), NOSPLIT, $0-32
	MOVD key+0(FP), R9
	MOVD sub+8(FP), DST
	MOVD nonces+16(FP), R10
	MOVD rounds+24(FP), PAIRS
	LSR $1, PAIRS
	KEYROWS
	MOVD $constants<>(SB), CONST
	FMOVQ ROTATE8, F31
	FIRSTROW
	FLDPQ 0(R10), (F12, F13)
	FLDPQ 32(R10), (F14, F15)
	TRANSPOSE(V12, V13, V14, V15)

	PCALIGN $32
rounds4:
	ROUND4(V0, V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, V11, V12, V13, V14, V15)
	ROUND4(V0, V1, V2, V3, V5, V6, V7, V4, V10, V11, V8, V9, V15, V12, V13, V14)
	SUB $1, PAIRS
	CBNZ PAIRS, rounds4
	TRANSPOSE(V0, V1, V2, V3)
	TRANSPOSE(V12, V13, V14, V15)
	FSTPQ (F0, F12), 0(DST)
	FSTPQ (F1, F13), 32(DST)
	FSTPQ (F2, F14), 64(DST)
	FSTPQ (F3, F15), 96(DST)
	CLEAR
	RET
