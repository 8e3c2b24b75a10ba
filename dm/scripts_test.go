package dm_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestScripts runs testdata/*.txt: what happens to keys and requests while
// tables change, told step by step. A line is a command; "!" before it wants
// that it fails, "stdout" and "stderr" match what it said. Sizes of devices
// take K and M, places and lengths are sectors of 512 bytes. Words in quotes
// are table rows.
//
// What there is:
//
//	leaf A SIZE [engine SPEC] [hardware=H]
//	                         a disk in memory, with an inline engine before it:
//	                         cpu, ufs, cqhci, fmp, with options (ufs?slots=2)
//	fallback SLOTS           the fallback's keyslots; before the first leaf
//	key K [unit=N] [dun=BYTES] [mode=M] [bytes=K0] [wrapped [hardware=H]] [table]
//	                         a key: of its own bytes, or of those of another; for
//	                         requests, or for tables that name :64:logon:K
//
// Devices, as dmsetup has them:
//
//	create D [ROW...] [readonly] [immutable]
//	build T ROW...; load D built=T    a load in two steps: read, then taken
//	load D ROW... [readonly]    clear D    suspend D [noflush]    resume D
//	reload D ROW... [revoke]    load, suspend and resume as one step
//	turns D ROW ROW &x&         reloads with two tables in turn until cancelled
//	remove D [deferred]         keep D (no deferred removal)      rename D E
//	open D WHO                  close D WHO
//	message D SECTOR WORD...
//
// Requests. TEXT is a word that stands for as many bytes as the request has;
// TEXT+N is the same text from sector N on, zeroes are zeroes. Without dun= the
// number of a data unit is its place on the device:
//
//	write D SECTOR COUNT TEXT [key=K] [dun=N] [fua] [nowait] [marked]
//	read D SECTOR COUNT TEXT ...     fails unless that is what it reads
//	flush D    discard D SECTOR COUNT    zero D SECTOR COUNT
//	medium A SECTOR COUNT TEXT [key=K] [dun=N] [unit=N]
//	                         the disk itself holds this: plain, or as the cipher
//	                         of test/naive, which shares no code, encrypts it
//	fresh D A N              N new keys write one data unit each to D, and each
//	                         must be on disk A as encrypted with its own bytes
//
// Keys:
//
//	start K D [by=WHO]       blk_crypto_start_using_key;  finish K D
//	evict K [on=D] [idle|force] [within=TIME]
//	                         evict everywhere, or from D alone; says from where.
//	                         Afterwards no engine may hold the bytes
//	keyslots A|fallback      which keys are in which keyslots, by the manager's
//	                         books and by what the registers encrypt with
//	reset A                  the engine loses its keys and gets them back
//	fault A KIND|none        from now on these calls fail; kinds as for stall
//	boot [hardware=H]        the wrapping keys are new: blobs of before are no good
//	derive K D               the software secret of a wrapped key
//
// In the background, without a sleep:
//
//	COMMAND ... &x&          goes on meanwhile
//	busy x                   it has not ended
//	done x                   waits for its end; ! done x wants it to fail
//	cancel x                 its context ends
//	stall A write|read|flush|program|evict|crypt    such calls stand still
//	release A [KIND]         they go on
//	await A stalled N | await A queued N | await D inside N |
//	await D waiting N | await K inuse N |
//	await K evicting | await D closing | await D shows TEXT
//	                         until so many stand still in A, have had to wait for
//	                         a keyslot of A, are under way in D, wait for D's
//	                         resume, use K; until the eviction of K, or a
//	                         suspension of D, has begun; until D's status has that
//
// To look at:
//
//	state D    table D [inactive]    profile D
//	explain D SECTOR [key=K] [dun=N] [write] [marked]
//	events D                 what has happened since this was last asked
//	watch D &x&              ends with the next event that counts
//	sample D N               every profile that it shows, at least N
//	counts A                 requests that the disk has seen
//	warnings                 what went wrong after a change had taken effect
//
// Every script also fails if a byte that was sent with a key reached a disk as
// plaintext, if a request is left over, or if an engine keeps a key after its
// leaf was removed.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			w := newScriptWorld(e.T().(testing.TB))
			e.Values["world"] = w
			e.Defer(w.letGo)
			return nil
		},
		Cmds: scriptCommands(),
	})
}

// A scriptCommand reads its words and returns what is to be done.
type scriptCommand func(w *scriptWorld, a *scriptArgs) scriptDo

// A scriptDo does it, and returns what it has to say.
type scriptDo func(context.Context) (string, error)

func scriptCommands() map[string]func(*testscript.TestScript, bool, []string) {
	all := map[string]func(*testscript.TestScript, bool, []string){
		"done": scriptDone, "busy": scriptBusy, "cancel": scriptCancel,
	}
	for name, c := range map[string]scriptCommand{
		"leaf": cmdLeaf, "fallback": cmdFallback, "key": cmdKey,
		"boot": cmdBoot, "build": cmdBuild, "turns": cmdTurns, "sample": cmdSample, "create": cmdCreate, "load": cmdLoad, "clear": cmdClear, "suspend": cmdSuspend, "resume": cmdResume,
		"reload": cmdReload, "remove": cmdRemove, "keep": cmdKeep, "rename": cmdRename, "open": cmdOpen,
		"close": cmdClose, "message": cmdMessage,
		"write": cmdWrite, "read": cmdRead, "flush": cmdFlush, "discard": cmdDiscard, "zero": cmdZero,
		"medium": cmdMedium, "fresh": cmdFresh,
		"start": cmdStart, "finish": cmdFinish, "evict": cmdEvict, "keyslots": cmdKeyslots, "reset": cmdReset,
		"fault": cmdFault, "derive": cmdDerive,
		"stall": cmdStall, "release": cmdRelease, "await": cmdAwait,
		"state": cmdState, "table": cmdTable, "profile": cmdProfile,
		"explain": cmdExplain, "events": cmdEvents, "watch": cmdWatch, "counts": cmdCounts, "warnings": cmdWarnings,
	} {
		all[name] = c.run
	}
	return all
}

// run carries out one line.
func (c scriptCommand) run(ts *testscript.TestScript, neg bool, words []string) {
	w := ts.Value("world").(*scriptWorld)
	a := &scriptArgs{ts: ts, words: slices.Clone(words)}
	background := ""
	if n := len(words); n > 0 && len(words[n-1]) > 2 && words[n-1][0] == '&' && strings.HasSuffix(words[n-1], "&") {
		background = strings.Trim(words[n-1], "&")
		a.words = a.words[:n-1]
	}
	do := c(w, a)
	a.end()
	j := startScriptJob(do)
	if background == "" {
		j.wait(ts, neg)
		return
	}
	if neg || w.jobs[background] != nil {
		ts.Fatalf("&%s&: another has the name, or \"!\" stands here and not before done", background)
	}
	w.jobs[background] = j
}

// scriptPatience is how long a script waits for what should be there at once.
const scriptPatience = time.Minute

func report(ts *testscript.TestScript, neg bool, out string, err error) {
	fmt.Fprint(ts.Stdout(), out)
	if err != nil {
		fmt.Fprintln(ts.Stderr(), err)
	}
	switch {
	case neg && err == nil:
		ts.Fatalf("succeeds")
	case !neg && err != nil:
		ts.Fatalf("%v", err)
	}
}

// A scriptJob is a command in the background.
type scriptJob struct {
	cancel context.CancelFunc
	ended  chan struct{}
	out    string
	err    error
}

func startScriptJob(do scriptDo) *scriptJob {
	ctx, cancel := context.WithCancel(context.Background())
	j := &scriptJob{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(j.ended)
		j.out, j.err = do(ctx)
	}()
	return j
}

// wait waits for the end of j, not for ever, and reports.
func (j *scriptJob) wait(ts *testscript.TestScript, neg bool) {
	defer j.cancel()
	select {
	case <-j.ended:
	case <-time.After(scriptPatience):
		j.cancel()
		ts.Fatalf("it does not end")
	}
	report(ts, neg, j.out, j.err)
}

func jobOf(ts *testscript.TestScript, args []string) (*scriptWorld, string, *scriptJob) {
	w := ts.Value("world").(*scriptWorld)
	if len(args) != 1 || w.jobs[args[0]] == nil {
		ts.Fatalf("want the name of something in the background")
	}
	return w, args[0], w.jobs[args[0]]
}

func scriptDone(ts *testscript.TestScript, neg bool, args []string) {
	w, name, j := jobOf(ts, args)
	delete(w.jobs, name)
	j.wait(ts, neg)
}

func scriptBusy(ts *testscript.TestScript, neg bool, args []string) {
	_, name, j := jobOf(ts, args)
	select {
	case <-j.ended:
		ts.Fatalf("%s has ended: %v", name, j.err)
	default:
	}
	if neg {
		ts.Fatalf("! busy: use done")
	}
}

func scriptCancel(ts *testscript.TestScript, _ bool, args []string) {
	_, _, j := jobOf(ts, args)
	j.cancel()
}

// scriptArgs are the words of a line.
type scriptArgs struct {
	ts    *testscript.TestScript
	words []string
}

// next takes the first word.
func (a *scriptArgs) next(what string) string {
	if len(a.words) == 0 {
		a.ts.Fatalf("%s is missing", what)
	}
	word := a.words[0]
	a.words = a.words[1:]
	return word
}

// flag takes a word wherever it stands behind the first.
func (a *scriptArgs) flag(name string) bool {
	i := slices.Index(a.words, name)
	if i >= 0 {
		a.words = slices.Delete(a.words, i, i+1)
	}
	return i >= 0
}

// option takes name=value.
func (a *scriptArgs) option(name string) (string, bool) {
	for i, word := range a.words {
		if v, ok := strings.CutPrefix(word, name+"="); ok {
			a.words = slices.Delete(a.words, i, i+1)
			return v, true
		}
	}
	return "", false
}

// rows takes what has a space in it.
func (a *scriptArgs) rows() (rows []string) {
	a.words = slices.DeleteFunc(a.words, func(word string) bool {
		row := strings.Contains(word, " ")
		if row {
			rows = append(rows, word)
		}
		return row
	})
	return rows
}

func (a *scriptArgs) number(what string) int64 {
	return a.parse(what, a.next(what))
}

func (a *scriptArgs) parse(what, word string) int64 {
	var n int64
	if _, err := fmt.Sscanf(word, "%v", &n); err != nil || fmt.Sprint(n) != word && !strings.HasPrefix(word, "0x") {
		a.ts.Fatalf("%s: %q is not a number", what, word)
	}
	return n
}

func (a *scriptArgs) end() {
	if len(a.words) > 0 {
		a.ts.Fatalf("what is %q?", a.words)
	}
}
