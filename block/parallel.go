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

// Parallel performs all parts and returns when all are complete. The result
// is the error of the first part, in the order given, that failed: every part
// is performed whatever the others answer. Parts run side by side, the last
// on the caller's goroutine; where sequential is set, because no part can
// block, all run there one after the other.
//
// A NoWait request must not be fanned out by parts that may block: the parts
// done before one answers ErrWouldBlock would be done twice.
func Parallel(ctx context.Context, parts []Part, sequential bool) error {
	errs := make([]error, len(parts))
	var wg sync.WaitGroup
	for i, p := range parts {
		if sequential || i == len(parts)-1 {
			errs[i] = p.Dev.Do(ctx, p.Req)
			continue
		}
		wg.Go(func() { errs[i] = p.Dev.Do(ctx, p.Req) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
