package nbd

import (
	"sync"

	"golang.org/x/sys/unix"
)

// A writer sends replies. The lane sends its own in batches; workers queue
// theirs, and whoever gets hold of the wire takes the queue along. Nobody but
// the lane waits for the wire.
type writer struct {
	wire sync.Mutex // held while sending
	w    wire
	iov  []unix.Iovec // scratch of send, under wire

	mu    sync.Mutex
	queue *job // replies of workers, newest first
	tail  *job // the oldest of them
	err   error
}

// add queues the reply of a worker; send or flush makes it leave.
func (w *writer) add(j *job) {
	w.mu.Lock()
	j.next = nil
	if w.tail == nil {
		w.queue = j
	} else {
		w.tail.next = j
	}
	w.tail = j
	w.mu.Unlock()
}

// flush sends what workers have queued, unless somebody is sending already,
// who then does it.
func (w *writer) flush() {
	for w.pending() && w.wire.TryLock() {
		w.drain()
		w.wire.Unlock()
		// Whoever queued while we held the wire has left it to us: look again.
	}
}

func (w *writer) pending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.queue != nil
}

// send sends the lane's replies, and those of workers.
func (w *writer) send(v []unix.Iovec) error {
	w.wire.Lock()
	err := w.failed()
	if err == nil && len(v) > 0 {
		if err = w.w.Writev(v); err != nil {
			w.fail(err)
		}
	}
	w.drain()
	w.wire.Unlock()
	w.flush()
	return err
}

// drain sends the queue of workers until it is empty. wire is held.
func (w *writer) drain() {
	for {
		w.mu.Lock()
		first, err := w.queue, w.err
		w.queue, w.tail = nil, nil
		w.mu.Unlock()
		if first == nil {
			return
		}
		if err == nil {
			for j := first; j != nil; j = j.next {
				w.iov = j.appendReply(w.iov)
			}
			if err = w.w.Writev(w.iov); err != nil {
				w.fail(err)
			}
			clear(w.iov)
			w.iov = w.iov[:0]
		}
		for j := first; j != nil; {
			next := j.next
			j.release()
			j = next
		}
	}
}

// fail makes everything end: without replies the connection is of no use.
func (w *writer) fail(err error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
	}
	w.mu.Unlock()
	w.w.kill()
}

func (w *writer) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
