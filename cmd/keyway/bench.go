package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"keyway/backend"
	"keyway/blkcrypto"
	"keyway/block"
	"keyway/dm"
	"keyway/internal/cipher"
	"keyway/internal/secret"
	"keyway/internal/size"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

// benchTime is how long each row is measured: long enough for the clock of
// the processor to settle, short enough for all rows within a minute.
const benchTime = 300 * time.Millisecond

// A benchRow is one measurement.
type benchRow struct {
	What     string  `json:"what"`
	Mode     string  `json:"mode"`
	DataUnit int     `json:"data_unit"` // bytes
	Size     int     `json:"size"`      // bytes of a request
	BytesPS  float64 `json:"bytes_per_second"`
	NsPerOp  float64 `json:"ns_per_request"`
}

func (c *cli) bench() *cobra.Command {
	var mode, request string
	cmd := &cobra.Command{
		Use:   "bench [--mode M] [--size S]",
		Short: "Measure the ciphers and the data path on this machine, on one core",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			modes := blkcrypto.Modes()
			if mode != "" {
				m, err := blkcrypto.ParseMode(mode)
				if err != nil {
					return misusef("bench: --mode: %w", err)
				}
				if !cipher.Supported(m) {
					return fmt.Errorf("bench: %v has no cipher in this version", m)
				}
				modes = []blkcrypto.Mode{m}
			}
			sizes := []int{4096, 65536}
			if request != "" {
				n, err := size.Parse(request)
				if err != nil || n < blkcrypto.MaxDataUnit/16 || n > 16<<20 || n%4096 != 0 {
					return misusef("bench: --size %q is not a multiple of 4K up to 16M", request)
				}
				sizes = []int{int(n)}
			}
			rows := []benchRow{}
			for _, m := range modes {
				if !cipher.Supported(m) {
					continue
				}
				more, err := benchMode(cmd.Context(), m, sizes)
				if err != nil {
					return err
				}
				rows = append(rows, more...)
			}
			if c.json {
				return printJSON(rows)
			}
			w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', tabwriter.AlignRight)
			fmt.Fprintln(w, "MODE\tDATA UNIT\tREQUEST\tWHAT\tGB/s\tns\t")
			for _, r := range rows {
				fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%.2f\t%.0f\t\n", r.Mode, r.DataUnit, size.Format(int64(r.Size)), r.What, r.BytesPS/1e9, r.NsPerOp)
			}
			return w.Flush()
		},
	}
	cmd.Flags().StringVar(&mode, "mode", "", "only this encryption `mode`")
	cmd.Flags().StringVar(&request, "size", "", "`size` of requests (default: 4K and 64K)")
	return c.withJSON(cmd)
}

func benchMode(ctx context.Context, m blkcrypto.Mode, sizes []int) (rows []benchRow, err error) {
	key, err := secret.New(m.KeySize())
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	rand.Read(key.Bytes())
	for _, unit := range []int{512, 4096} {
		ci, err := cipher.New(m, unit, key.Bytes())
		if err != nil {
			return nil, err
		}
		defer ci.Wipe()
		for _, n := range sizes {
			dst, src := make([]byte, n), make([]byte, n)
			for _, x := range []struct {
				what string
				f    func() error
			}{
				{"encrypt", func() error { ci.Encrypt(dst, src, blkcrypto.DUN64(1)); return nil }},
				{"decrypt", func() error { ci.Decrypt(dst, src, blkcrypto.DUN64(1)); return nil }},
			} {
				if err := measure(ctx, &rows, benchRow{What: x.what, Mode: m.String(), DataUnit: unit, Size: n}, x.f); err != nil {
					return nil, err
				}
			}
		}
	}
	more, err := benchPath(ctx, m, key, sizes)
	return append(rows, more...), err
}

// benchPath measures requests through the stack: a leaf in memory with and
// without an engine, which leaves the work to the fallback.
func benchPath(ctx context.Context, m blkcrypto.Mode, bytes *secret.Buffer, sizes []int) (rows []benchRow, err error) {
	const disk = 16 << 20
	fallback := keyslot.New(soft.New("fallback", soft.FallbackSlots))
	for _, with := range []bool{true, false} {
		c := blkcrypto.Config{Mode: m, KeyType: blkcrypto.Raw, DataUnitSize: 4096, DUNBytes: 8}
		b, err := secret.New(bytes.Len())
		if err != nil {
			return nil, err
		}
		copy(b.Bytes(), bytes.Bytes())
		k, err := blkcrypto.NewKey("bench", c, b)
		if err != nil {
			return nil, err
		}
		dev, err := backend.Open(ctx, fmt.Sprintf("mem:%d", disk), backend.Options{})
		if err != nil {
			return nil, err
		}
		leaf, by := dm.Leaf{Dev: dev, Text: "mem", Fallback: fallback}, "fallback"
		if with {
			leaf.Engine, by = keyslot.New(soft.New("engine", soft.DefaultSlots)), "engine"
		}
		mapped, err := dm.NewLeaf("bench", leaf, dm.Options{})
		if err != nil {
			return nil, err
		}
		for _, n := range sizes {
			data := make([]byte, n)
			for _, op := range []block.Op{block.OpWrite, block.OpRead} {
				var off int64
				err := measure(ctx, &rows, benchRow{What: fmt.Sprintf("%v through %s", op, by), Mode: m.String(), DataUnit: 4096, Size: n}, func() error {
					off = (off + int64(n)) % (disk - int64(n) + 4096) &^ 4095
					return mapped.Do(ctx, block.Request{
						Op: op, Off: off, Len: int64(n), Data: block.Bytes(data),
						Crypt: blkcrypto.Context{Key: k, DUN: blkcrypto.DUN64(uint64(off) >> 12)},
					})
				})
				if err != nil {
					return nil, err
				}
			}
		}
		if _, err := k.Evict(ctx); err != nil {
			return nil, err
		}
		if err := mapped.Remove(ctx, dm.RemoveOptions{}); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

func measure(ctx context.Context, rows *[]benchRow, r benchRow, f func() error) error {
	var took time.Duration
	n := 0
	for step := 1; took < benchTime; step *= 2 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		begin := time.Now()
		for range step {
			if err := f(); err != nil {
				return err
			}
		}
		took += time.Since(begin)
		n += step
	}
	r.NsPerOp = float64(took.Nanoseconds()) / float64(n)
	r.BytesPS = float64(r.Size) / r.NsPerOp * 1e9
	*rows = append(*rows, r)
	return nil
}
