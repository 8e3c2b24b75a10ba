//go:build arm64 && !purego

#include "textflag.h"

// NH on NEON. Two units of 16 bytes at a time, their low halves in one register and
// their high halves in another, since NH multiplies the words of one by those of the
// other: the key lies in memory in the same way (see pair), so that a pass over
// two units is two additions and two multiplications and nothing else. The key of
// pass p is that of pass 0 two units later, or four words from there: half of the
// keys that a step needs are still in registers.
//
// For 32 bytes that is 16 instructions of the passes, 2 that sort the halves, and 3
// loads: 0.28 cycles a byte on Neoverse N1 and 0.14 on V1 by llvm-mca 19.

#define LOW    R0 // key, pairs of low halves
#define HIGH   R1 // and of high halves
#define TEXT_  R2
#define LEFT   R3 // bytes
#define SUMS   R4

// Go's assembler lacks these: Vd.D2 += Vn.S2 * Vm.S2, and the same with the upper
// halves of Vn and Vm.
#define UMLAL(m, n, d) WORD $(0x2ea08000 | (m)<<16 | (n)<<5 | (d))
#define UMLAL2(m, n, d) WORD $(0x6ea08000 | (m)<<16 | (n)<<5 | (d))

// TWO_A and TWO_B do four passes over two units, in turn: of each four keys one of them
// loads what the other finds in registers.
#define TWO_A \
	FLDPQ.P 32(TEXT_), (F2, F3); \
	FLDPQ.P 32(LOW), (F6, F7); \
	FLDPQ.P 32(HIGH), (F10, F11); \
	VZIP1 V3.D2, V2.D2, V0.D2; VZIP2 V3.D2, V2.D2, V1.D2; \
	VADD V4.S4, V0.S4, V24.S4; VADD V8.S4, V1.S4, V25.S4; \
	VADD V5.S4, V0.S4, V26.S4; VADD V9.S4, V1.S4, V27.S4; \
	VADD V6.S4, V0.S4, V28.S4; VADD V10.S4, V1.S4, V29.S4; \
	VADD V7.S4, V0.S4, V30.S4; VADD V11.S4, V1.S4, V31.S4; \
	UMLAL(25, 24, 16); UMLAL2(25, 24, 20); \
	UMLAL(27, 26, 17); UMLAL2(27, 26, 21); \
	UMLAL(29, 28, 18); UMLAL2(29, 28, 22); \
	UMLAL(31, 30, 19); UMLAL2(31, 30, 23)

#define TWO_B \
	FLDPQ.P 32(TEXT_), (F2, F3); \
	FLDPQ.P 32(LOW), (F4, F5); \
	FLDPQ.P 32(HIGH), (F8, F9); \
	VZIP1 V3.D2, V2.D2, V0.D2; VZIP2 V3.D2, V2.D2, V1.D2; \
	VADD V6.S4, V0.S4, V24.S4; VADD V10.S4, V1.S4, V25.S4; \
	VADD V7.S4, V0.S4, V26.S4; VADD V11.S4, V1.S4, V27.S4; \
	VADD V4.S4, V0.S4, V28.S4; VADD V8.S4, V1.S4, V29.S4; \
	VADD V5.S4, V0.S4, V30.S4; VADD V9.S4, V1.S4, V31.S4; \
	UMLAL(25, 24, 16); UMLAL2(25, 24, 20); \
	UMLAL(27, 26, 17); UMLAL2(27, 26, 21); \
	UMLAL(29, 28, 18); UMLAL2(29, 28, 22); \
	UMLAL(31, 30, 19); UMLAL2(31, 30, 23)

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

// func nhNEON(low, high, sums *uint64, text *byte, bytes int)
TEXT ·nhNEON(SB), NOSPLIT, $0-40
	MOVD low+0(FP), LOW
	MOVD high+8(FP), HIGH
	MOVD sums+16(FP), SUMS
	MOVD text+24(FP), TEXT_
	MOVD bytes+32(FP), LEFT
	VEOR V16.B16, V16.B16, V16.B16
	VEOR V17.B16, V17.B16, V17.B16
	VEOR V18.B16, V18.B16, V18.B16
	VEOR V19.B16, V19.B16, V19.B16
	VEOR V20.B16, V20.B16, V20.B16
	VEOR V21.B16, V21.B16, V21.B16
	VEOR V22.B16, V22.B16, V22.B16
	VEOR V23.B16, V23.B16, V23.B16
	FLDPQ.P 32(LOW), (F4, F5)
	FLDPQ.P 32(HIGH), (F8, F9)
	SUBS $64, LEFT
	BLT units

	PCALIGN $32
four:
	TWO_A
	TWO_B
	SUBS $64, LEFT
	BGE four

units: // what is left, three units at most, one at a time; V4 and V8 hold the first key
	ADDS $64, LEFT
	BEQ done
	SUB $32, LOW
	SUB $32, HIGH
unit:
	FMOVQ.P 16(TEXT_), F0
	VEXT $8, V0.B16, V0.B16, V1.B16
	FLDPQ 0(LOW), (F4, F5)
	FLDPQ 32(LOW), (F6, F7)
	FLDPQ 0(HIGH), (F8, F9)
	FLDPQ 32(HIGH), (F10, F11)
	VADD V4.S4, V0.S4, V24.S4
	VADD V8.S4, V1.S4, V25.S4
	UMLAL(25, 24, 16)
	VADD V5.S4, V0.S4, V26.S4
	VADD V9.S4, V1.S4, V27.S4
	UMLAL(27, 26, 17)
	VADD V6.S4, V0.S4, V28.S4
	VADD V10.S4, V1.S4, V29.S4
	UMLAL(29, 28, 18)
	VADD V7.S4, V0.S4, V30.S4
	VADD V11.S4, V1.S4, V31.S4
	UMLAL(31, 30, 19)
	ADD $16, LOW
	ADD $16, HIGH
	SUBS $16, LEFT
	BNE unit

done:
	VADD V20.D2, V16.D2, V16.D2
	VADD V21.D2, V17.D2, V17.D2
	VADD V22.D2, V18.D2, V18.D2
	VADD V23.D2, V19.D2, V19.D2
	VADDP V17.D2, V16.D2, V16.D2
	VADDP V19.D2, V18.D2, V18.D2
	FSTPQ (F16, F18), (SUMS)
	CLEAR
	RET
