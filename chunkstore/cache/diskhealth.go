package cache

import (
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"
)

const (
	// badOperations in a row turn the cache off for restTime: a dying disk often takes long to say no.
	badOperations = 3
	restTime      = time.Minute
	// sayInterval is the least time between two warnings of the same text.
	sayInterval = time.Minute
)

// diskHealth turns the cache off for a while when the disk fails again and again.
type diskHealth struct {
	now     func() time.Time
	log     *slog.Logger
	metrics *diskMetrics

	mu    sync.Mutex
	bad   int // failures in a row
	until time.Time
	said  map[string]time.Time // when each text was last logged
}

// off reports whether the disk is left alone at the moment.
func (h *diskHealth) off() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.until.IsZero() {
		return false
	}
	if h.now().Before(h.until) {
		return true
	}
	h.until = time.Time{}
	h.metrics.off.Set(0)
	return false
}

// failed notes that the disk refused an operation.
func (h *diskHealth) failed(operation string, err error) {
	h.metrics.failures.WithLabelValues(operation).Inc()
	h.mu.Lock()
	if h.bad++; h.bad >= badOperations {
		h.until = h.now().Add(restTime)
		h.metrics.off.Set(1)
	}
	off := !h.until.IsZero()
	h.mu.Unlock()
	h.say("disk cache failed; what it should hold is read from the bucket", "operation", operation, "off", off, "err", err)
}

// succeeded notes that the disk works.
func (h *diskHealth) succeeded() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.bad = 0
}

// say warns, but of the same text not more often than once in a while: a volume that is full does not hide that the disk fails.
func (h *diskHealth) say(msg string, attrs ...any) {
	h.mu.Lock()
	now := h.now()
	last, before := h.said[msg]
	quiet := before && now.Sub(last) < sayInterval
	if !quiet {
		h.said[msg] = now
	}
	h.mu.Unlock()
	if !quiet {
		h.log.Warn(msg, attrs...) //nolint:sloglint // the callers' messages are constant
	}
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
