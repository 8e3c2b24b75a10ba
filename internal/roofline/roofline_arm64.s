//go:build arm64 && !purego

#include "textflag.h"

// One round: AESE adds the key (zero), substitutes and shifts rows, AESMC mixes
// columns. The pair on one register is one operation on cores that fuse it.
#define ROUND(v) \
	AESE  V31.B16, v.B16 \
	AESMC v.B16, v.B16

#define TWELVE \
	ROUND(V0) \
	ROUND(V1) \
	ROUND(V2) \
	ROUND(V3) \
	ROUND(V4) \
	ROUND(V5) \
	ROUND(V6) \
	ROUND(V7) \
	ROUND(V8) \
	ROUND(V9) \
	ROUND(V10) \
	ROUND(V11)

// func roundsArmv8(state *byte, turns int)
TEXT ·roundsArmv8(SB), NOSPLIT, $0-16
	MOVD state+0(FP), R0
	MOVD turns+8(FP), R1
	VEOR V31.B16, V31.B16, V31.B16
	MOVD R0, R2
	VLD1.P 64(R2), [V0.B16, V1.B16, V2.B16, V3.B16]
	VLD1.P 64(R2), [V4.B16, V5.B16, V6.B16, V7.B16]
	VLD1   (R2), [V8.B16, V9.B16, V10.B16, V11.B16]

turn:
	TWELVE
	TWELVE
	TWELVE
	TWELVE
	SUBS $1, R1, R1
	BNE  turn

	VST1.P [V0.B16, V1.B16, V2.B16, V3.B16], 64(R0)
	VST1.P [V4.B16, V5.B16, V6.B16, V7.B16], 64(R0)
	VST1   [V8.B16, V9.B16, V10.B16, V11.B16], (R0)
	RET
