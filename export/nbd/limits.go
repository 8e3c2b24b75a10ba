package nbd

import (
	"context"
	"errors"
	"time"
)

// This file: how a lane waits for its turn when a limit is reached.

// slot waits until one more request may wait in the device, holding cost
// bytes.
func (l *lane) slot(cost int64) error {
	if l.c.inFlight.Load() >= int64(l.c.srv.cfg.MaxInFlight) {
		if err := l.wait(func() (<-chan struct{}, bool) {
			return nil, l.c.inFlight.Load() < int64(l.c.srv.cfg.MaxInFlight)
		}); err != nil {
			return err
		}
	}
	return l.charge(cost)
}

// charge waits until n more bytes may be in flight.
func (l *lane) charge(n int64) error {
	if n == 0 {
		return nil
	}
	cfg, b := &l.c.srv.cfg, &l.c.srv.budget
	try := func() (<-chan struct{}, bool) {
		held := l.c.held.Load()
		if held > 0 && held+n > cfg.ConnBytes {
			return nil, false
		}
		return b.take(n, held == 0)
	}
	if _, ok := try(); !ok {
		if err := l.wait(try); err != nil {
			return err
		}
	}
	l.c.held.Add(n)
	return nil
}

func (l *lane) uncharge(n int64) {
	l.c.held.Add(-n)
	l.c.srv.budget.give(n)
}

// wait sends what is ready and returns once ready reports true; ready may
// name a channel to look at besides. Meanwhile nothing is read, so the peer's
// going has to be asked for.
func (l *lane) wait(ready func() (<-chan struct{}, bool)) error {
	if err := l.flush(); err != nil {
		return err
	}
	if l.timer == nil {
		l.timer = time.NewTimer(askPeer)
	}
	for {
		other, ok := ready()
		if ok {
			return nil
		}
		l.timer.Reset(askPeer)
		select {
		case <-l.jobs.freed:
		case <-other:
		case <-l.c.ctx.Done():
			return context.Cause(l.c.ctx)
		case <-l.timer.C:
			if l.w.gone() {
				return errors.New("the peer left while its requests waited")
			}
			if err := l.writer.failed(); err != nil {
				return err
			}
		}
	}
}

const askPeer = 200 * time.Millisecond
