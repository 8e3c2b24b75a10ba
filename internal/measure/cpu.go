package measure

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// userHZ is what Linux counts processor time in towards user space, everywhere.
const userHZ = 100

// ProcessCPU returns the processor seconds that a process has used, threads that
// have ended included; 0 if it is gone.
func ProcessCPU(pid int) float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name, second field, may hold anything up to the last parenthesis.
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	return ticks(f[11], f[12])
}

// AllCPU returns the processor seconds that the machine spent, not idle.
func AllCPU() float64 {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(line)
	if len(f) < 9 {
		return 0
	}
	return ticks(f[1], f[2], f[3], f[6], f[7], f[8]) // user nice system irq softirq steal
}

// ChildrenCPU returns the processor seconds of the children that have ended.
func ChildrenCPU() float64 { return usage(syscall.RUSAGE_CHILDREN) }

// OwnCPU returns the processor seconds of this process.
func OwnCPU() float64 { return usage(syscall.RUSAGE_SELF) }

func usage(who int) float64 {
	var r syscall.Rusage
	if syscall.Getrusage(who, &r) != nil {
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

// Noise counts the processor time of others.
type Noise struct {
	begin time.Time
	busy  float64
	pids  []int
}

// NewNoise begins to count; this process, its children that end and those in
// pids are not others.
func NewNoise(pids ...int) *Noise {
	n := &Noise{begin: time.Now(), pids: pids}
	n.busy = n.others()
	return n
}

func (n *Noise) others() float64 {
	all := AllCPU() - OwnCPU() - ChildrenCPU()
	for _, p := range n.pids {
		all -= ProcessCPU(p)
	}
	return all
}

// Processors is how many processors others have kept busy on average since.
func (n *Noise) Processors() float64 {
	return max(0, (n.others()-n.busy)/time.Since(n.begin).Seconds())
}
