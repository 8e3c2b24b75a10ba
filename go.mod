module keyway

go 1.26.0

require golang.org/x/sys v0.49.0

require (
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/klauspost/cpuid/v2 v2.4.2
)
