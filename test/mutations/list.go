package main

// Where a fault in the lower floors shows.
var (
	lower  = []string{"./blkcrypto", "./block", "./keyslot"}
	mapped = []string{"./dm"}
)

// list is in the order of a request's way down, then of reload, eviction and keys.
var list = []mutation{
	{
		name: "skip-the-gate", breaks: "no request runs during a suspension (dm-fscrypt.md 18)",
		file: "block/gate.go", tests: append([]string{"./block"}, mapped...),
		old: "	if !g.closed.Load() {\n		return nil\n	}\n	g.Leave(lane)\n	if nowait {",
		new: "	if s != nil {\n		return nil\n	}\n	g.Leave(lane)\n	if nowait {",
	},
	{
		name: "split-keeps-the-number", breaks: "each data unit has its own number behind a cut (blkcrypto.md 3)",
		file: "block/request.go", tests: append([]string{"./block"}, mapped...),
		old: "		r.Crypt = r.Crypt.Advance(off)\n", new: "",
	},
	{
		name: "split-loses-the-context", breaks: "what is behind a cut is encrypted too (blkcrypto.md 1)",
		file: "block/request.go", tests: append([]string{"./block"}, mapped...),
		old: "		r.Crypt = r.Crypt.Advance(off)\n", new: "		r.Crypt = blkcrypto.Context{}\n",
	},
	{
		name: "no-carry", breaks: "numbers carry through all limbs (blkcrypto.md 3)",
		file: "blkcrypto/dun.go", tests: lower,
		old: "		d[i], c = bits.Add64(d[i], 0, c)\n", new: "		d[i], c = d[i], 0\n",
	},
	{
		name: "units-cut-by-rows", breaks: "a profile leaves out data units that a row boundary cuts (dm-fscrypt.md 6)",
		file: "dm/ability.go", tests: mapped,
		old: "a.profile.Dividing(w.start).Dividing(w.chunk)", new: "a.profile.Dividing(w.chunk)",
	},
	{
		name: "context-to-any-row", breaks: "a context goes down only where it is served (dm-fscrypt.md 46)",
		file: "dm/tablecrypt.go", tests: mapped,
		old: "	if f&PassesCrypto == 0 {\n		return notPassed, nil\n	}\n", new: "",
	},
	{
		name: "flush-one-device", breaks: "a flush reaches every device beneath (dm-fscrypt.md 12)",
		file: "dm/table.go", tests: mapped,
		old: "	if len(devices) == 1 {", new: "	if len(devices) > 0 {",
	},
	{
		name: "engine-gives-up", breaks: "software serves what an engine refuses (dm-fscrypt.md 48)",
		file: "dm/tablecrypt.go", tests: mapped,
		old: "errors.Is(err, keyslot.ErrProgram)", new: "errors.Is(err, keyslot.ErrProgram) && false",
	},
	{
		name: "shrink-without-a-look", breaks: "a wrapped key in use keeps its engine (dm-fscrypt.md 38)",
		file: "dm/startkey.go", tests: mapped,
		old: "	if e.Keys == nil {\n		return nil\n	}\n", new: "	if e.Keys == nil || len(e.Keys) > 0 {\n		return nil\n	}\n",
	},
	{
		name: "growth-stays-below", breaks: "growth is visible in all devices above (dm-fscrypt.md 42)",
		file: "dm/ripple.go", tests: mapped,
		old: "			r.set(t.owner, t.ability(r))\n", new: "			r.set(t.owner, t.ability(nil))\n",
	},
	{
		name: "no-reserve", breaks: "what software needs is kept for keys that are started (blkcrypto.md 36)",
		file: "dm/startkey.go", tests: mapped,
		old: "	return t.fallback.Reserve(c.Mode)\n", new: "	return func() {}, nil\n",
	},
	{
		name: "evict-the-live-table-only", breaks: "an eviction on a device reaches its inactive table (dm-fscrypt.md 51)",
		file: "dm/keyslots.go", tests: mapped,
		old: "[]*Table{m.live.Load(), m.inactive, m.aside}", new: "[]*Table{m.live.Load()}",
	},
	{
		name: "forget-the-fallback", breaks: "an eviction on a device reaches the fallback, after growth too (dm-fscrypt.md 57)",
		file: "dm/keyslots.go", tests: mapped,
		old: "		add(t.fallback)\n", new: "",
	},
	{
		name: "forget-what-was-dropped", breaks: "a reload evicts from the devices that it drops (dm-fscrypt.md 61)",
		file: "dm/entered.go", tests: mapped,
		old: "		s.entered.addTo(keys)\n", new: "		_ = s\n",
	},
	{
		name: "evict-from-others", breaks: "two stacks on one leaf keep their keys (dm-fscrypt.md 59)",
		file: "dm/entered.go", tests: mapped,
		old: "	return s.entered.has(k)\n", new: "	return false\n",
	},
	{
		name: "first-holder-only", breaks: "every place that was told a key is remembered (dm-fscrypt.md 50)",
		file: "blkcrypto/key.go", tests: append(lower, mapped...),
		old: "	k.holders = append(k.holders, h)\n", new: "	if k.holders == nil {\n		k.holders = append(k.holders, h)\n	}\n",
	},
	{
		name: "bytes-stay", breaks: "an evicted key's bytes are wiped (blkcrypto.md 26)",
		file: "blkcrypto/evict.go", tests: lower,
		old: "		k.bytes.Wipe()\n", new: "",
	},
	{
		name: "evict-without-waiting", breaks: "an eviction waits for requests (dm-fscrypt.md 52)",
		file: "blkcrypto/use.go", tests: append(lower, mapped...),
		old: "	for !k.idle() && !k.Dead() {", new: "	for false {",
	},
	{
		name: "requests-not-counted", breaks: "requests at a suspended device count (dm-fscrypt.md 52)",
		file: "dm/mapped.go", tests: mapped,
		old: "	held.Flags |= block.KeyHeld\n", new: "	k.Leave(r.Lane)\n	defer k.Enter(r.Lane)\n",
	},
	{
		name: "identity-by-name", breaks: "a key is itself, whatever it is called (dm-fscrypt.md 11)",
		file: "keyslot/manager.go", tests: append(lower, mapped...),
		old: "	for s != nil && s.key.Load() != k {", new: "	for s != nil && (s.key.Load() == nil || s.key.Load().Name() != k.Name()) {",
	},
	{
		name: "slot-not-checked-again", breaks: "a slot is used only while it holds the key (blkcrypto.md 13)",
		file: "keyslot/manager.go", tests: lower,
		old: "	if s.key.Load() == k && !k.Dead() {", new: "	if k != nil {",
	},
	{
		name: "slot-in-use-is-taken", breaks: "a slot is emptied only when no request uses it (blkcrypto.md 13)",
		file: "keyslot/queue.go", tests: lower,
		old: "		if m.calling || !w.slot.refs.CompareAndSwap(0, taken) {", new: "		if m.calling || w.slot.refs.Swap(taken) < 0 {",
	},
	{
		name: "no-quarantine", breaks: "a slot that the engine could not empty is nobody's (dm-fscrypt.md 53)",
		file: "keyslot/queue.go", tests: lower,
		old: "	s.broken = err\n	m.tellOf(s, was)\n	if err != nil {", new: "	m.tellOf(s, was)\n	if err != nil && s == nil {",
	},
	{
		name: "no-retry", breaks: "a quarantined slot is tried again by itself (dm-fscrypt.md 53)",
		file: "keyslot/queue.go", tests: lower,
		old: "		m.retryLater()\n", new: "",
	},
	{
		name: "reset-forgets", breaks: "after a reset every key is back before its use (blkcrypto.md 20)",
		file: "keyslot/reset.go", tests: append(lower, mapped...),
		old: "	if k != nil {\n		if err := m.load(k, s)", new: "	if k != nil && s == nil {\n		if err := m.load(k, s)",
	},
	{
		name: "one-slot-held-below", breaks: "no slot is held while a request is below (blkcrypto.md 37)",
		file: "keyslot/over.go", tests: lower,
		old: "	if err := o.dev.Do(ctx, down); err != nil {\n		return err\n	}\n	point.At(\"keyslot: read\")\n",
		new: "	s, err := o.m.Get(ctx, r.Crypt.Key, false)\n	if err != nil {\n		return err\n	}\n	defer s.Put()\n	if err := o.dev.Do(ctx, down); err != nil {\n		return err\n	}\n",
	},
}
