package nbd

import "sync"

// A budget bounds the bytes in flight of all connections.
type budget struct {
	limit int64

	mu    sync.Mutex
	used  int64
	freed chan struct{} // closed by the next release; nil while nobody waits
}

// take charges n bytes, or returns a channel that closes when trying again
// may help. force charges in any case.
func (b *budget) take(n int64, force bool) (wait <-chan struct{}, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if force || b.used+n <= b.limit {
		b.used += n
		return nil, true
	}
	if b.freed == nil {
		b.freed = make(chan struct{})
	}
	return b.freed, false
}

func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= n
	if b.freed != nil {
		close(b.freed)
		b.freed = nil
	}
}
