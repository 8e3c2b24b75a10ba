package dataunittest

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	armLine   = regexp.MustCompile(`^\t0x[0-9a-f]+ ([0-9]+) \([^)]*\)\t([A-Z0-9.]+)(?:\t(.*))?$`)
	armVector = regexp.MustCompile(`\b[VF]([0-9]+)\b`)
	armBranch = regexp.MustCompile(`^(?:JMP|B|B[A-Z]{2}|CBN?ZW?|TBN?Z)$`)
	armTarget = regexp.MustCompile(`(?:^|, )([0-9]+)$`)
	armZeroV  = regexp.MustCompile(`^V([0-9]+)\.B16, V([0-9]+)\.B16, V([0-9]+)\.B16$`)
)

// armInstr is one instruction of an assembler listing.
type armInstr struct {
	pc       int
	op, args string
}

// vectors are the vector registers that the instruction names. One that is given
// as a word must be of the vector class, and its destination counts.
func (in armInstr) vectors(t *testing.T) []string {
	if in.op == "WORD" {
		w, err := strconv.ParseUint(strings.TrimPrefix(in.args, "$"), 0, 32)
		if err != nil || w>>25&7 != 7 {
			t.Errorf("WORD %s is no vector instruction", in.args)
		}
		return []string{"V" + strconv.Itoa(int(w&31))}
	}
	var names []string
	for _, m := range armVector.FindAllStringSubmatch(in.args, -1) {
		names = append(names, "V"+m[1])
	}
	return names
}

// zeroes is the register that the instruction clears, or empty.
func (in armInstr) zeroes() string {
	if m := armZeroV.FindStringSubmatch(in.args); in.op == "VEOR" && m != nil && m[1] == m[2] && m[2] == m[3] {
		return "V" + m[1]
	}
	if r, ok := strings.CutPrefix(in.args, "ZR, "); in.op == "MOVD" && ok {
		return r
	}
	return ""
}

// ClearsNEON is Clears for the arm64 assembly asm: between the last place where
// two ways meet and its one RET each function clears every vector register that
// it uses, and those of the general registers secrets ("R7") that it uses. It
// reads the listing of Go's assembler, in which macros are expanded, so it runs on
// any machine with the go command.
func ClearsNEON(t *testing.T, asm string, functions int, secrets ...string) {
	t.Helper()
	code := armListing(t, asm)
	if len(code) != functions {
		t.Errorf("%d functions in %s, want %d", len(code), asm, functions)
	}
	for name, instrs := range code {
		used, joins, returns := map[string]bool{}, map[int]bool{}, 0
		for _, in := range instrs {
			for _, v := range in.vectors(t) {
				used[v] = true
			}
			for _, r := range secrets {
				if regexp.MustCompile(`\b` + r + `\b`).MatchString(in.args) {
					used[r] = true
				}
			}
			if armBranch.MatchString(in.op) {
				m := armTarget.FindStringSubmatch(in.args)
				if m == nil {
					t.Fatalf("%s: cannot read the target of %s %s", name, in.op, in.args)
				}
				pc, _ := strconv.Atoi(m[1])
				joins[pc] = true
			}
			if in.op == "RET" {
				returns++
			}
		}
		if returns != 1 {
			t.Errorf("%s: %d returns, want 1", name, returns)
			continue
		}
		if len(used) == 0 {
			t.Errorf("%s: uses no vector register: the listing was misread", name)
		}
		// Backwards from RET: what is cleared and not touched again.
		end := 0
		for i, in := range instrs {
			if in.op == "RET" {
				end = i
			}
		}
		touched := map[string]bool{}
		for i := end; i > 0 && !joins[instrs[i].pc] && !armBranch.MatchString(instrs[i-1].op); i-- {
			in := instrs[i-1]
			if r := in.zeroes(); r != "" && !touched[r] {
				delete(used, r)
				continue
			}
			for _, v := range in.vectors(t) {
				touched[v] = true
			}
			for _, r := range secrets {
				if regexp.MustCompile(`\b` + r + `\b`).MatchString(in.args) {
					touched[r] = true
				}
			}
		}
		for r := range used {
			t.Errorf("%s: RET without clearing %s", name, r)
		}
	}
}

// armListing returns the instructions of each function of asm.
func armListing(t *testing.T, asm string) map[string][]armInstr {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("no go command here to assemble " + asm)
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "tool", "asm", "-S", "-p", "p", "-o", os.DevNull,
		"-I", filepath.Join(strings.TrimSpace(string(root)), "pkg", "include"), asm)
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("assemble %s: %v\n%s", asm, err, out)
	}
	code, name := map[string][]armInstr{}, ""
	for line := range strings.Lines(string(out)) {
		m := armLine.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			if f := strings.Fields(line); len(f) > 1 && f[1] == "STEXT" {
				name = f[0]
				code[name] = nil
			}
			continue
		}
		switch m[2] {
		case "TEXT", "PCDATA", "FUNCDATA":
			continue
		}
		pc, _ := strconv.Atoi(m[1])
		code[name] = append(code[name], armInstr{pc, m[2], m[3]})
	}
	return code
}
