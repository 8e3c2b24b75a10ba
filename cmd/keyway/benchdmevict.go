package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keyway/blkcrypto"
	"keyway/keyslot"
	"keyway/keyslot/soft"
)

const (
	dmEngines = 32
	dmKeys    = 1000
)

type evictionRow struct {
	Keys      int `json:"keys"`
	Engines   int `json:"engines"`    // with 32 keyslots each
	Holders   int `json:"in_engines"` // those that had the key in a keyslot
	Evictions int `json:"evictions"`
	times
}

// evict measures evictions of idle keys for about d, a few at least, among as many
// keys as the engines have room for.
func (r *dmReport) evict(ctx context.Context, everywhere bool, d time.Duration) (err error) {
	var engines []*keyslot.Manager
	for i := range dmEngines {
		engines = append(engines, keyslot.New(soft.New(fmt.Sprint("engine ", i), soft.DefaultSlots)))
	}
	keys := make([]*blkcrypto.Key, dmKeys)
	defer func() {
		for _, k := range keys {
			if k != nil {
				_, gone := k.Evict(context.Background())
				err = errors.Join(err, gone)
			}
		}
	}()
	// renew puts a new key in the place of keys[i], in its engine.
	renew := func(i int) error {
		k, err := dmKey(fmt.Sprint("bench", i))
		if err != nil {
			return err
		}
		keys[i] = k
		return program(ctx, k, engines[i%dmEngines])
	}
	for i := range keys {
		if err := renew(i); err != nil {
			return err
		}
	}
	var took []float64
	row := evictionRow{Keys: dmKeys, Engines: dmEngines, Holders: 1}
	const fewest = 8
	begin := time.Now()
	for i := 0; time.Since(begin) < d || len(took) < fewest; i = (i + 7) % dmKeys {
		if everywhere {
			row.Holders = dmEngines
			if err := program(ctx, keys[i], engines...); err != nil {
				return err
			}
		}
		start := time.Now()
		receipt, err := keys[i].Evict(ctx)
		took = append(took, float64(time.Since(start)))
		if err == nil && len(receipt.Places) != row.Holders {
			err = fmt.Errorf("an eviction from %d places, want %d", len(receipt.Places), row.Holders)
		}
		if err != nil {
			return err
		}
		if err := renew(i); err != nil {
			return err
		}
	}
	row.Evictions, row.times = len(took), timesOf(took)
	r.Evictions = append(r.Evictions, row)
	return context.Cause(ctx)
}

// program has k in a keyslot of each engine.
func program(ctx context.Context, k *blkcrypto.Key, engines ...*keyslot.Manager) error {
	for _, m := range engines {
		s, err := m.Get(ctx, k, false)
		if err != nil {
			return err
		}
		s.Put()
	}
	return nil
}
