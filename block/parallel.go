package block

import (
	"context"
	"sync"
)

// A Part is one leg of a request that goes to several devices, or to several
// places of one.
type Part struct {
	Dev Device
	Req Request
}

// Parallel performs the parts of one request and returns when all are
// complete: side by side, the last on the caller's goroutine. The result is
// the error of the first part, in the order given, that failed; every part is
// performed whatever the others answer.
//
// Parts that must not wait go one after the other and end at the first error:
// the whole request will be issued again, so no part may scribble on its
// data.
func Parallel(ctx context.Context, parts []Part) error {
	if len(parts) == 0 {
		return nil
	}
	if parts[0].Req.NoWait() {
		return inTurn(ctx, parts)
	}
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	last := len(parts) - 1
	for i, p := range parts[:last] {
		wg.Go(func() { errs[i] = p.Dev.Do(ctx, p.Req) })
	}
	errs[last] = parts[last].Dev.Do(ctx, parts[last].Req)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func inTurn(ctx context.Context, parts []Part) error {
	for _, p := range parts {
		p.Req.Flags &^= Scratch
		if err := p.Dev.Do(ctx, p.Req); err != nil {
			return err
		}
	}
	return nil
}
