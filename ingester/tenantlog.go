package ingester

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/prometheus/prometheus/tsdb/wlog"
)

// walDirName is where stock keeps the write log of samples in order; wlog.WblDirName is that of samples out of order.
const walDirName = "wal"

// tenantLog syncs one tenant's logs by rounds: whoever commits while a round runs waits for the next one, which one of
// them leads for all.
type tenantLog struct {
	dir string

	mu   sync.Mutex
	next *syncRound // the round that gathers, not begun; nil when nobody waits

	running sync.Mutex               // held by the leader of the round that syncs; guards what follows
	failure error                    // the first failed sync: nothing is proven after it
	held    map[string][]heldSegment // by log folder
}

// syncRound is one sync and all who wait for it.
type syncRound struct {
	done chan struct{} // closed after err is set
	err  error
}

// heldSegment is a segment that may have bytes that are not on disk. It stays open between rounds, because a file
// opened after an error was reported to someone else, such as stock's own sync of a finished segment, does not learn
// of it.
type heldSegment struct {
	index int
	file  *os.File
}

func newTenantLog(dir string) *tenantLog {
	return &tenantLog{dir: dir, held: map[string][]heldSegment{}}
}

// join returns the round that will cover everything written before the call, and whether the caller must lead it.
func (l *tenantLog) join() (round *syncRound, leads bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next != nil {
		return l.next, false
	}
	l.next = &syncRound{done: make(chan struct{})}
	return l.next, true
}

// lead waits for the round before, syncs, and wakes all who joined. It returns an error only for the first failure.
func (l *tenantLog) lead(round *syncRound, calls syncCalls) error {
	l.running.Lock()
	defer l.running.Unlock()
	l.mu.Lock()
	l.next = nil // from here on a Commit may come too late for this round
	l.mu.Unlock()
	defer close(round.done)
	if l.failure != nil {
		round.err = l.failure
		return nil
	}
	if err := l.sync(calls); err != nil {
		l.failure = fmt.Errorf("sync write log of %s: %w", l.dir, err)
		round.err = l.failure
		return l.failure
	}
	return nil
}

func (l *tenantLog) sync(calls syncCalls) error {
	for _, name := range []string{walDirName, wlog.WblDirName} {
		if err := l.syncLog(filepath.Join(l.dir, name), calls); err != nil {
			return err
		}
	}
	return nil
}

// syncLog makes all segments of one log durable that may have changed since the round before: the newest of that round
// and those that appeared. Usually that is one; a Commit that crosses into a new segment makes it two and the folder.
func (l *tenantLog) syncLog(dir string, calls syncCalls) error {
	first, last, err := wlog.Segments(dir)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && last < 0) {
		return nil // no out-of-order log yet
	}
	if err != nil {
		return err
	}
	held, known := l.held[dir]
	if n := len(held); n > 0 {
		first = held[n-1].index + 1
	}
	held, err = openSegments(held, dir, first, last)
	l.held[dir] = held
	if err != nil {
		return err
	}
	for _, s := range held {
		if err := calls.file(s.file); err != nil {
			return err
		}
	}
	if first <= last {
		if err := calls.dir(dir); err != nil {
			return err
		}
	}
	if !known {
		if err := calls.dir(filepath.Dir(dir)); err != nil {
			return err
		}
	}
	// Stock writes to none but the newest.
	if n := len(held); n > 1 {
		l.held[dir] = held[n-1:]
		return closeSegments(held[:n-1])
	}
	return nil
}

// openSegments appends segments first to last. One that was deleted meanwhile is in a checkpoint or a block.
func openSegments(held []heldSegment, dir string, first, last int) ([]heldSegment, error) {
	for i := first; i <= last; i++ {
		f, err := os.Open(wlog.SegmentName(dir, i))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return held, err
		}
		held = append(held, heldSegment{index: i, file: f})
	}
	return held, nil
}

func closeSegments(held []heldSegment) error {
	var errs []error
	for _, s := range held {
		errs = append(errs, s.file.Close())
	}
	return errors.Join(errs...)
}

// close gives the files back. The round under way ends first.
func (l *tenantLog) close() {
	l.running.Lock()
	defer l.running.Unlock()
	for _, held := range l.held {
		_ = closeSegments(held) // nothing was written through them
	}
	clear(l.held)
}
