package distributor

import (
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/golang/snappy"

	"github.com/duramendb/duramen/distributor/wire"
	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// hardMaxRequestBytes holds when a tenant has no limit; half of what can be addressed, so that scattered labels,
	// which are copied behind the body, fit too.
	hardMaxRequestBytes = wire.MaxBody / 2
	// trustedLength is how much of a Content-Length is allocated before the bytes arrive.
	trustedLength = 256 << 10
	// maxRatio is above the highest ratio that snappy can reach: 64 bytes for a copy of 3.
	maxRatio = 22
	// retryAfter is the least wait that an overloaded distributor asks for; it is spread up to twice as long, so that
	// senders do not come back together.
	retryAfter = time.Second
)

// reserve counts n more bytes against the limit on requests in flight.
func (r *request) reserve(n int64) error {
	limit := r.d.cfg.MaxInflightBytes
	if r.held+n > limit {
		return errkind.New(errkind.TooLarge,
			"the request needs %d bytes of memory, the limit -distributor.max-inflight-bytes is %d",
			r.held+n, limit)
	}
	if now := r.d.inflight.Add(n); now > limit {
		r.d.inflight.Add(-n)
		return overloaded("%d bytes of requests are in flight, the limit -distributor.max-inflight-bytes is %d",
			now-n, limit)
	}
	r.held += n
	return nil
}

// release gives back what reserve took.
func (r *request) release() {
	r.d.inflight.Add(-r.held)
	r.held = 0
}

// Grant implements wire.Memory: what a decoded request takes beyond the size of its body is counted too, and bounded,
// because two bytes of a hostile body can make a series.
func (r *request) Grant(n int) (int, error) {
	const step = 256 << 10
	n = max(n, step)
	r.grants += n
	if limit := 4*r.limit + step; r.grants > limit {
		return 0, errkind.New(errkind.TooLarge,
			"the decoded request needs %d bytes of memory, four times the limit max_request_bytes of %d",
			r.grants, r.limit)
	}
	return n, r.reserve(int64(n))
}

// read reads the compressed body. length is the Content-Length, -1 when unknown.
func (r *request) read(ctx context.Context, body io.Reader, length int64) error {
	most := int64(snappy.MaxEncodedLen(r.limit))
	if length > most {
		return r.tooLarge("compressed", length)
	}
	want := int64(4 << 10)
	if length >= 0 {
		want = min(length, trustedLength) + 1 // one more, so that the read that meets the end has room
	}
	buf := r.compressed[:0]
	var reserved int64
	for {
		if int64(cap(buf)) < want {
			grown := make([]byte, len(buf), want)
			copy(grown, buf)
			buf = grown
			r.compressed = buf
		}
		if reserved < want {
			if err := r.reserve(want - reserved); err != nil {
				return err
			}
			reserved = want
		}
		n, err := body.Read(buf[len(buf):min(int64(cap(buf)), want)])
		buf = buf[:len(buf)+n]
		switch {
		case int64(len(buf)) > most:
			return r.tooLarge("compressed", int64(len(buf)))
		case errors.Is(err, io.EOF):
			r.compressed = buf
			return nil
		case err != nil:
			return readError(ctx, err)
		}
		if int64(len(buf)) == want {
			want *= 2
		}
	}
}

// readError gives a kind to a failure to read the body. What passes, a slow or lost connection, may be sent again.
func readError(ctx context.Context, err error) error {
	var (
		netErr net.Error
		tooBig *http.MaxBytesError
	)
	switch {
	case ctx.Err() != nil:
		return errkind.New(errkind.Canceled, "read the body: %w", err)
	case errors.As(err, &tooBig):
		return errkind.New(errkind.TooLarge, "read the body: %w", err)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &netErr):
		return errkind.New(errkind.Unavailable, "read the body: %w", err)
	default:
		return errkind.New(errkind.Invalid, "read the body: %w", err)
	}
}

// decompress decodes the snappy block. Its header is checked before memory is spent on what it promises.
func (r *request) decompress() error {
	n, err := snappy.DecodedLen(r.compressed)
	switch {
	case err != nil:
		return errkind.New(errkind.Invalid, "the body is not a snappy block: %w", err)
	case n > r.limit:
		return r.tooLarge("decoded", int64(n))
	case n > maxRatio*len(r.compressed):
		return errkind.New(errkind.Invalid,
			"the body is not a snappy block: %d bytes cannot hold the %d that the header promises",
			len(r.compressed), n)
	}
	if err := r.reserve(int64(n)); err != nil {
		return err
	}
	if cap(r.body) < n {
		r.body = make([]byte, n)
	}
	if r.body, err = snappy.Decode(r.body[:n], r.compressed); err != nil {
		return errkind.New(errkind.Invalid, "the body is not a snappy block: %w", err)
	}
	return nil
}

func (r *request) tooLarge(what string, n int64) error {
	return errkind.New(errkind.TooLarge, "the %s body has %d bytes, the limit max_request_bytes is %d", what, n,
		r.limit)
}

// overloaded is an error that asks the sender to come back a little later.
func overloaded(format string, args ...any) error {
	err := errkind.New(errkind.Unavailable, format, args...)
	var e *errkind.Error
	if errors.As(err, &e) {
		e.RetryAfter = retryAfter
	}
	return err
}

// jittered spreads a wait up to twice as long and returns whole seconds, at least one.
func jittered(wait time.Duration) int {
	s := max(wait, retryAfter).Seconds()
	return int(math.Ceil(s + rand.Float64()*min(s, 30)))
}
