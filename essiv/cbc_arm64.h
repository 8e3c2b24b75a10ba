// AES-CBC by the AES instructions of ARMv8. All round keys stay in V16-V30, the
// last one in V30 whatever their number. A round is nothing but AESE and AESMC for
// each block, adjacent so that cores fuse the two.
//
// Encryption runs up to eight data units side by side, a block of each at a time.
// What goes from block to block in V0-V7 is the ciphertext without the last round
// key, kn: AESE adds text and state anyway, so with the text go k0 and kn, and a
// block takes no longer than its rounds. Beside the chain are two additions for
// each block.
//
// Decryption runs eight blocks of a data unit side by side. The ciphertext that is
// added at the end is loaded twice instead of copied, and kn added to it while the
// rounds run: again two additions for each block.
//
// By llvm-mca 19, with each AESE and AESMC as one operation as those cores have
// them, cycles for eight blocks of AES-128 and the AES limit (rounds over AES pipes):
//
//	             encrypt, 8 units    decrypt
//	Neoverse N1  90 of 80            84 of 80
//	Neoverse N2  52 of 40            52 of 40
//	Neoverse V1  26 of 20            25 of 20
//	Neoverse V2  26 of 20            26 of 20

#define KEYS   R0
#define ROUNDS R1
#define DST    R2
#define SRC    R3
#define STRIDE R4 // bytes from data unit to data unit
#define BLOCKS R5 // in each data unit
#define UNITS  R6
#define IVS    R7
#define LEFT   R8 // blocks left in the data unit, when decrypting
// When encrypting, R8 to R15 are where the next blocks of eight data units come
// from, R19 to R26 where they go.

// LOADKEYS reads ROUNDS + 1 round keys.
#define LOADKEYS \
	CMP $12, ROUNDS; \
	BLT load10; \
	BEQ load12; \
	FLDPQ.P 32(KEYS), (F16, F17); \
load12: \
	FLDPQ.P 32(KEYS), (F18, F19); \
load10: \
	FLDPQ.P 32(KEYS), (F20, F21); \
	FLDPQ.P 32(KEYS), (F22, F23); \
	FLDPQ.P 32(KEYS), (F24, F25); \
	FLDPQ.P 32(KEYS), (F26, F27); \
	FLDPQ.P 32(KEYS), (F28, F29); \
	FMOVQ (KEYS), F30

// ROUNDn is a round of n blocks, LASTn the last one without its last key.

#define ROUND8(op, mix, k) \
	op k, V0.B16; mix V0.B16, V0.B16; op k, V1.B16; mix V1.B16, V1.B16; \
	op k, V2.B16; mix V2.B16, V2.B16; op k, V3.B16; mix V3.B16, V3.B16; \
	op k, V4.B16; mix V4.B16, V4.B16; op k, V5.B16; mix V5.B16, V5.B16; \
	op k, V6.B16; mix V6.B16, V6.B16; op k, V7.B16; mix V7.B16, V7.B16

#define ROUND4(op, mix, k) \
	op k, V0.B16; mix V0.B16, V0.B16; op k, V1.B16; mix V1.B16, V1.B16; \
	op k, V2.B16; mix V2.B16, V2.B16; op k, V3.B16; mix V3.B16, V3.B16

#define ROUND1(op, mix, k) \
	op k, V0.B16; mix V0.B16, V0.B16

#define LAST8(op) \
	op V29.B16, V0.B16; op V29.B16, V1.B16; op V29.B16, V2.B16; op V29.B16, V3.B16; \
	op V29.B16, V4.B16; op V29.B16, V5.B16; op V29.B16, V6.B16; op V29.B16, V7.B16

#define LAST4(op) \
	op V29.B16, V0.B16; op V29.B16, V1.B16; op V29.B16, V2.B16; op V29.B16, V3.B16

#define LAST1(op) \
	op V29.B16, V0.B16

// NINE is the rounds before the last one that are left when there are ten.
#define NINE(round, op, mix) \
	round(op, mix, V20.B16); \
	round(op, mix, V21.B16); \
	round(op, mix, V22.B16); \
	round(op, mix, V23.B16); \
	round(op, mix, V24.B16); \
	round(op, mix, V25.B16); \
	round(op, mix, V26.B16); \
	round(op, mix, V27.B16); \
	round(op, mix, V28.B16)

#define EIGHT(round, op, mix) \
	round(op, mix, V21.B16); \
	round(op, mix, V22.B16); \
	round(op, mix, V23.B16); \
	round(op, mix, V24.B16); \
	round(op, mix, V25.B16); \
	round(op, mix, V26.B16); \
	round(op, mix, V27.B16); \
	round(op, mix, V28.B16)

// CLEAR clears every register that held a key or text.
#define CLEAR \
	VEOR V0.B16, V0.B16, V0.B16; VEOR V1.B16, V1.B16, V1.B16; VEOR V2.B16, V2.B16, V2.B16; \
	VEOR V3.B16, V3.B16, V3.B16; VEOR V4.B16, V4.B16, V4.B16; VEOR V5.B16, V5.B16, V5.B16; \
	VEOR V6.B16, V6.B16, V6.B16; VEOR V7.B16, V7.B16, V7.B16; VEOR V8.B16, V8.B16, V8.B16; \
	VEOR V9.B16, V9.B16, V9.B16; VEOR V10.B16, V10.B16, V10.B16; \
	VEOR V11.B16, V11.B16, V11.B16; VEOR V12.B16, V12.B16, V12.B16; \
	VEOR V13.B16, V13.B16, V13.B16; VEOR V14.B16, V14.B16, V14.B16; \
	VEOR V15.B16, V15.B16, V15.B16; VEOR V16.B16, V16.B16, V16.B16; \
	VEOR V17.B16, V17.B16, V17.B16; VEOR V18.B16, V18.B16, V18.B16; \
	VEOR V19.B16, V19.B16, V19.B16; VEOR V20.B16, V20.B16, V20.B16; \
	VEOR V21.B16, V21.B16, V21.B16; VEOR V22.B16, V22.B16, V22.B16; \
	VEOR V23.B16, V23.B16, V23.B16; VEOR V24.B16, V24.B16, V24.B16; \
	VEOR V25.B16, V25.B16, V25.B16; VEOR V26.B16, V26.B16, V26.B16; \
	VEOR V27.B16, V27.B16, V27.B16; VEOR V28.B16, V28.B16, V28.B16; \
	VEOR V29.B16, V29.B16, V29.B16; VEOR V30.B16, V30.B16, V30.B16; \
	VEOR V31.B16, V31.B16, V31.B16
