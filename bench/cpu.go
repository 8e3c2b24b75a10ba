package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// userHZ is what Linux counts processor time in towards user space, everywhere.
const userHZ = 100

// cpu returns the processor seconds that the server has used, threads that have
// ended included.
func (s *server) cpu() float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	// The name, second field, may hold anything up to the last parenthesis.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	return ticks(f[11], f[12])
}

// allCPU returns the processor seconds that the machine spent, not idle.
func allCPU() float64 {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	return ticks(f[1], f[2], f[3], f[6], f[7], f[8]) // user nice system irq softirq steal
}

// childrenCPU returns the processor seconds of the clients that have ended.
func childrenCPU() float64 {
	var r syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_CHILDREN, &r) != nil {
		return 0
	}
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}

func ticks(fields ...string) (seconds float64) {
	for _, f := range fields {
		n, _ := strconv.ParseFloat(f, 64)
		seconds += n / userHZ
	}
	return seconds
}
