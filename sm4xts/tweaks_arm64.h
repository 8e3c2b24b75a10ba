// The tweaks of SM4-XTS: doubled in general registers between the rounds of the group
// before, which leave those alone, and handed over in memory.

#define KEYS    R0 // of the data
#define TKEYS   R1 // of the tweak
#define N       R2
#define DST     R3
#define SRC     R4
#define PERUNIT R5 // groups of blocks in a data unit
#define GROUPS  R6 // groups left
#define LO      R7 // the tweak that is stored next
#define HI      R8
#define AT      R9 // encrypted numbers, in the frame
#define CUR     R10 // tweaks of this group, in the frame
#define NEXT    R11 // and of the next one
#define LEFT    R12 // groups left in the data unit
#define POLY    R13 // 0x87
#define FOLD    R14
#define KEYP    R15
#define BY      R19 // by which numbers of data units grow

// STEP stores the tweak in HI:LO and doubles it in GF(2^128): a bit that falls out at
// the top comes back as 0x87.
#define STEP \
	STP.P (LO, HI), 16(NEXT); \
	AND HI->63, POLY, FOLD; \
	EXTR $63, LO, HI, HI; \
	EOR LO<<1, FOLD, LO

// NUMBER stores the number of a data unit and counts on.
#define NUMBER \
	STP.P (LO, HI), 16(AT); \
	ADDS BY, LO; \
	ADC ZR, HI

// FOLLOW begins a group: if it is the last one of its data unit, the tweaks that are
// computed meanwhile are those of the next one. After the last of all this reads
// one slot beyond the numbers, and nobody uses what comes of it.
#define FOLLOW(same) \
	SUB $1, LEFT; \
	CBNZ LEFT, same; \
	LDP.P 16(AT), (LO, HI); \
	MOVD PERUNIT, LEFT; \
same:

// FORGET clears n bytes, at least 16, from from on.
#define FORGET(from, n, loop) \
	MOVD n, N; \
loop: \
	STP.P (ZR, ZR), 16(from); \
	SUB $16, N; \
	CBNZ N, loop

// CLEAR clears the registers that held keys, tweaks or text.
#define CLEAR \
	MOVD ZR, LO; \
	MOVD ZR, HI; \
	MOVD ZR, FOLD; \
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
