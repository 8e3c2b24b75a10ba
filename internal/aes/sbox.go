package aes

// The S-box and its inverse as circuits on bit planes, without tables and without
// branches on data: their time does not depend on what they are given.
//
// Each is 113 gates: an inversion in GF(2^8) between two linear layers. The
// inversion is that of Boyar and Peralta ("A small depth-16 circuit for the AES
// S-box", 2011; y, t and z are named as there). The layers compute what
// theirs do, those of the inverse S-box after and before the inverse of the
// affine map. They were made small by the heuristic of Boyar, Matthews and Peralta
// ("Logic minimization techniques with applications to cryptology", 2013), run
// with many seeds: of those with 23 and 30 gates these take the compiler the
// fewest spills, which is a seventh of the time.
//
// The constant of the affine map, affine, is left to the caller. ShiftRows
// and MixColumns do not change a state of sixteen times the same byte, so it goes
// into the round keys: sub gives its result, and invSub takes its argument, short
// of it.
const affine = 0x63

// sub is the S-box without the constant. Planes are those of bit 0 to bit 7.
func sub(x7, x6, x5, x4, x3, x2, x1, x0 uint64) (_, _, _, _, _, _, _, _ uint64) {
	y8 := x0 ^ x5
	y13 := x0 ^ x6
	y9 := x0 ^ x3
	y14 := x3 ^ x5
	y12 := y13 ^ y14
	r0 := x4 ^ y12
	y15 := x5 ^ r0
	y6 := x7 ^ y15
	y20 := x1 ^ r0
	y11 := y9 ^ y20
	y7 := x7 ^ y11
	r1 := x1 ^ x2
	y16 := y11 ^ r1
	y21 := y13 ^ y16
	y17 := y15 ^ y16
	y10 := y15 ^ r1
	y18 := x0 ^ y16
	y2 := y7 ^ y18
	y5 := y13 ^ y2
	y3 := y8 ^ y5
	y19 := y8 ^ y10
	y4 := y9 ^ y2
	y1 := x0 ^ y2

	t2 := y12 & y15
	t4 := y3&y6 ^ t2
	t6 := y4&x7 ^ t2
	t7 := y13 & y16
	t9 := y5&y1 ^ t7
	t11 := y2&y7 ^ t7
	t12 := y9 & y11
	t14 := y14&y17 ^ t12
	t16 := y8&y10 ^ t12
	t21 := t4 ^ t14 ^ y20
	t22 := t6 ^ t16 ^ y19
	t23 := t9 ^ t14 ^ y21
	t24 := t11 ^ t16 ^ y18
	t25 := t21 ^ t22
	t26 := t21 & t23
	t27 := t24 ^ t26
	t29 := t25&t27 ^ t22
	t30 := t23 ^ t24
	t31 := t22 ^ t26
	t33 := t31&t30 ^ t24
	t34 := t23 ^ t33
	t35 := t27 ^ t33
	t36 := t24 & t35
	t37 := t36 ^ t34
	t38 := t27 ^ t36
	t40 := t25 ^ t29&t38
	t41 := t40 ^ t37
	t42 := t29 ^ t33
	t43 := t29 ^ t40
	t44 := t33 ^ t37
	t45 := t42 ^ t41
	z0 := t44 & y15
	z1 := t37 & y6
	z2 := t33 & x7
	z3 := t43 & y16
	z4 := t40 & y1
	z5 := t29 & y7
	z6 := t42 & y11
	z7 := t45 & y17
	z8 := t41 & y10
	z9 := t44 & y12
	z10 := t37 & y3
	z11 := t33 & y4
	z12 := t43 & y13
	z13 := t40 & y5
	z14 := t29 & y2
	z15 := t42 & y9
	z16 := t45 & y14
	z17 := t41 & y8

	u0 := z15 ^ z16
	u1 := z10 ^ u0
	u2 := z9 ^ u1
	u3 := z4 ^ u2
	u4 := z3 ^ u3
	u5 := z0 ^ z2
	u6 := z12 ^ u5
	u7 := z6 ^ z7
	s0 := u4 ^ u7
	u8 := z0 ^ z1
	s3 := u4 ^ u8
	u9 := z3 ^ z5
	u10 := z13 ^ u0
	u11 := z6 ^ u6
	u12 := z8 ^ u11
	u13 := z14 ^ u12
	u14 := u2 ^ s0
	s1 := s3 ^ u14
	u15 := u5 ^ u9
	s4 := s3 ^ u15
	u16 := u10 ^ u15
	s7 := z12 ^ u16
	u17 := z17 ^ u13
	s2 := z15 ^ u17
	u18 := u14 ^ u16
	s6 := u12 ^ u18
	u19 := z11 ^ u1
	u20 := u13 ^ u14
	s5 := u19 ^ u20

	return s7, s6, s5, s4, s3, s2, s1, s0
}

// invSub is the inverse of sub.
func invSub(x7, x6, x5, x4, x3, x2, x1, x0 uint64) (_, _, _, _, _, _, _, _ uint64) {
	y19 := x4 ^ x7
	y8 := x0 ^ x1
	y9 := x3 ^ x4
	y6 := x3 ^ y8
	y14 := x4 ^ y6
	y18 := x2 ^ y9
	y3 := x0 ^ x3
	y10 := y19 ^ y8
	y1 := x3 ^ y19
	y13 := x6 ^ y1
	y12 := y14 ^ y13
	y5 := x0 ^ y6
	y4 := y3 ^ y12
	y7 := x2 ^ y4
	y2 := y9 ^ y4
	y21 := x6 ^ y7
	y16 := y1 ^ y7
	r0 := x0 ^ x5
	y0 := x2 ^ r0
	y15 := y6 ^ y0
	y17 := y16 ^ y15
	y20 := y2 ^ r0
	y11 := y9 ^ y20

	t2 := y12 & y15
	t4 := y3&y6 ^ t2
	t6 := y4&y0 ^ t2
	t7 := y13 & y16
	t9 := y5&y1 ^ t7
	t11 := y2&y7 ^ t7
	t12 := y9 & y11
	t14 := y14&y17 ^ t12
	t16 := y8&y10 ^ t12
	t21 := t4 ^ t14 ^ y20
	t22 := t6 ^ t16 ^ y19
	t23 := t9 ^ t14 ^ y21
	t24 := t11 ^ t16 ^ y18
	t25 := t21 ^ t22
	t26 := t21 & t23
	t27 := t24 ^ t26
	t29 := t25&t27 ^ t22
	t30 := t23 ^ t24
	t31 := t22 ^ t26
	t33 := t31&t30 ^ t24
	t34 := t23 ^ t33
	t35 := t27 ^ t33
	t36 := t24 & t35
	t37 := t36 ^ t34
	t38 := t27 ^ t36
	t40 := t25 ^ t29&t38
	t41 := t40 ^ t37
	t42 := t29 ^ t33
	t43 := t29 ^ t40
	t44 := t33 ^ t37
	t45 := t42 ^ t41
	z0 := t44 & y15
	z1 := t37 & y6
	z2 := t33 & y0
	z3 := t43 & y16
	z4 := t40 & y1
	z5 := t29 & y7
	z6 := t42 & y11
	z7 := t45 & y17
	z8 := t41 & y10
	z9 := t44 & y12
	z10 := t37 & y3
	z11 := t33 & y4
	z12 := t43 & y13
	z13 := t40 & y5
	z14 := t29 & y2
	z15 := t42 & y9
	z16 := t45 & y14
	z17 := t41 & y8

	u0 := z6 ^ z15
	u1 := z12 ^ u0
	u2 := z16 ^ u1
	u3 := z13 ^ u2
	u4 := z8 ^ u3
	u5 := z3 ^ u4
	s0 := z5 ^ u5
	u6 := z4 ^ u5
	u7 := z1 ^ u6
	u8 := z2 ^ z10
	u9 := z0 ^ u4
	s3 := z2 ^ u9
	u10 := z9 ^ z17
	u11 := z14 ^ u7
	u12 := u8 ^ u11
	u13 := z8 ^ u6
	s6 := z7 ^ u13
	u14 := s0 ^ u9
	s5 := u7 ^ u14
	u15 := z11 ^ u10
	s7 := z15 ^ u15
	u16 := z11 ^ u12
	s2 := z13 ^ u16
	u17 := z16 ^ u16
	u18 := z12 ^ u17
	s1 := u15 ^ u18
	u19 := z17 ^ u11
	u20 := u17 ^ u19
	u21 := u14 ^ u20
	s4 := s6 ^ u21

	return s7, s6, s5, s4, s3, s2, s1, s0
}

// subWord is SubWord of FIPS 197, section 5.2. Plane b is x shifted by b bits, of
// which every eighth counts.
func subWord(x uint32) uint32 {
	const every8 = 0x01010101
	w := uint64(x)
	b0, b1, b2, b3, b4, b5, b6, b7 := sub(w, w>>1, w>>2, w>>3, w>>4, w>>5, w>>6, w>>7)
	return uint32(b0&every8|b1&every8<<1|b2&every8<<2|b3&every8<<3|
		b4&every8<<4|b5&every8<<5|b6&every8<<6|b7&every8<<7) ^ affine*every8
}
