package querier

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"

	"github.com/duramendb/duramen/internal/errkind"
)

// readAnswer is the body of an answer of remote read. It makes sure that a client sees when the answer broke off: the
// frames of a stream say nothing of how many follow.
type readAnswer struct {
	w        http.ResponseWriter
	sent     int64 // bytes of the body
	complete bool  // nothing is missing, or the answer is an error by its status
}

// Write sends a part of the body.
func (a *readAnswer) Write(p []byte) (int, error) {
	n, err := a.w.Write(p)
	a.sent += int64(n)
	return n, unsent(err)
}

// sendWhole sends a body that is complete. A client can count whether all of it has arrived.
func (a *readAnswer) sendWhole(contentType, encoding string, body []byte) error {
	header := a.w.Header()
	header.Set("Content-Type", contentType)
	header.Set("Content-Encoding", encoding)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	_, err := a.Write(body)
	return err
}

// Flush implements http.Flusher for Prometheus' writer of frames, which has no use for an error here.
func (a *readAnswer) Flush() { _ = a.flush() }

// flush sends what the server still holds back. An empty answer is sent by it, too.
func (a *readAnswer) flush() error {
	err := http.NewResponseController(a.w).Flush()
	if errors.Is(err, http.ErrNotSupported) {
		return nil // the server sends it when the handler returns
	}
	return unsent(err)
}

// cutFrame is the beginning of a frame of two bytes: their number, their checksum, and one of them.
const cutFrame = "\x02\x00\x00\x00\x00\x00"

// breakOff marks an answer that is not complete, so that no client takes it for whole. The caller breaks the connection
// as well; but a client or a proxy of HTTP/1.0 takes that for the end, so that the last they get is half a frame.
func (a *readAnswer) breakOff() {
	if !a.complete && a.sent > 0 && a.w.Header().Get("Content-Length") == "" {
		_, _ = a.w.Write([]byte(cutFrame)) // the client may be gone
		_ = a.flush()
	}
}

// unsent gives a failure to send its kind: the client is away, or too slow for the time that a query has.
func unsent(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errkind.Wrap(errkind.Unavailable, fmt.Errorf("the client reads too slowly: %w", err))
	default:
		return errkind.Wrap(errkind.Canceled, fmt.Errorf("the client is away: %w", err))
	}
}
