package faultproxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"time"
)

// Fault answers a request in place of the server. The zero value lets the request pass.
type Fault struct {
	// Name stands in records.
	Name string
	// Serve answers; forward has the server answer. It runs while the client waits and must end when r's context does.
	Serve func(w http.ResponseWriter, r *http.Request, forward http.Handler)
}

// Func is a fault of a test's own.
func Func(name string, serve func(w http.ResponseWriter, r *http.Request, forward http.Handler)) Fault {
	return Fault{name, serve}
}

// Pass is no fault.
func Pass() Fault { return Fault{} }

// Times repeats a fault.
func Times(n int, f Fault) []Fault {
	faults := make([]Fault, n)
	for i := range faults {
		faults[i] = f
	}
	return faults
}

// Answer has a status and body in place of the server's. The server does not see the request.
func Answer(status int, body string) Fault {
	return Fault{fmt.Sprint("answer ", status), func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}}
}

// S3Error is Answer with an error as S3 servers send it, such as 503 SlowDown.
func S3Error(status int, code string) Fault {
	f := Answer(status, `<?xml version="1.0" encoding="UTF-8"?>
		<Error><Code>`+code+`</Code><Message>Injected.</Message></Error>`)
	f.Name = fmt.Sprintf("answer %d %s", status, code)
	return f
}

// Reset reads the request and closes the connection with RST. The server does not see the request.
func Reset() Fault {
	return Fault{"reset", func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		_, _ = io.Copy(io.Discard, r.Body)
		hangUp(w, true)
	}}
}

// ResetUpload closes the connection with RST when half of the request's body is read. The server does not see the request.
func ResetUpload() Fault {
	return Fault{"reset in the request", func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		_, _ = io.CopyN(io.Discard, r.Body, r.ContentLength/2)
		hangUp(w, true)
	}}
}

// Close reads the request and closes the connection as a server does that ends. The server does not see the request.
func Close() Fault {
	return Fault{"close", func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		_, _ = io.Copy(io.Discard, r.Body)
		hangUp(w, false)
	}}
}

func hangUp(w http.ResponseWriter, reset bool) {
	c, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	_ = buffered.Flush()
	if layered, ok := c.(interface{ NetConn() net.Conn }); ok && reset { // TLS
		c = layered.NetConn()
	}
	if tcp, ok := c.(*net.TCPConn); ok && reset {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

// Stall answers nothing until the client goes away, or until released is closed; then the request passes. A nil channel
// is never closed.
func Stall(released <-chan struct{}) Fault {
	return Fault{"stall", func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		// A lost connection is noticed once the body is read. Where that fails, the context ends or has ended.
		body, _ := io.ReadAll(r.Body)
		select {
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		case <-released:
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		forward.ServeHTTP(w, r)
	}}
}

// Applied has the server do what is asked, and then fails as f does: the client is told something else, or nothing.
func Applied(f Fault) Fault {
	return Fault{"applied, then " + f.Name, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		Recorded(r, forward)
		f.Serve(w, r, forward)
	}}
}

// Late resets the connection, and the server gets the request all the same some time after: what was given up may still
// happen.
func Late(after time.Duration) Fault {
	return Fault{"late", func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		body, err := io.ReadAll(r.Body)
		hangUp(w, true)
		if err != nil {
			return // the client went away before all of it was here
		}
		time.Sleep(after) //nolint:forbidigo // a stimulus, which nobody waits for
		r = r.WithContext(context.WithoutCancel(r.Context()))
		r.Body = io.NopCloser(bytes.NewReader(body))
		Recorded(r, forward)
	}}
}

// Cut sends the share of the answer's body in [0, 1] under the length of the whole, and then fails as f does: a Reset, a
// Close or a Stall.
func Cut(share float64, f Fault) Fault {
	return cut(func(size int) int { return int(share * float64(size)) }, f)
}

// CutAfter is Cut after n bytes.
func CutAfter(n int, f Fault) Fault { return cut(func(size int) int { return min(n, size) }, f) }

func cut(sent func(size int) int, f Fault) Fault {
	return Fault{"cut body, then " + f.Name, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		rec := copyHeader(w, r, forward)
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:sent(rec.Body.Len())])
		_ = http.NewResponseController(w).Flush()
		f.Serve(w, r, forward)
	}}
}

// Short sends the share of the answer's body as if that were all of it, with a length that says so.
func Short(share float64) Fault {
	return short("short body", func(size int) int { return int(share * float64(size)) }, func(http.Header) {})
}

// Unsized sends the share of the answer's body without a length, and ends it properly.
func Unsized(share float64) Fault {
	return short("short body without a length", func(size int) int { return int(share * float64(size)) },
		func(h http.Header) { h.Del("Content-Length") })
}

// ShortAfter is Short after n bytes, with the header changed by f.
func ShortAfter(n int, f func(http.Header)) Fault {
	return short("short body", func(size int) int { return min(n, size) }, f)
}

func short(name string, sent func(size int) int, change func(http.Header)) Fault {
	return Fault{name, func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		rec := copyHeader(w, r, forward)
		n := sent(rec.Body.Len())
		w.Header().Set("Content-Length", strconv.Itoa(n))
		change(w.Header())
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes()[:n])
		_ = http.NewResponseController(w).Flush() // chunked, when there is no length
	}}
}

// Drip sends the answer's body in pieces of n bytes with a pause before each.
func Drip(n int, pause time.Duration) Fault {
	return Fault{"slow body", func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		rec := copyHeader(w, r, forward)
		w.WriteHeader(rec.Code)
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for rec.Body.Len() > 0 {
			select {
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			case <-tick.C:
			}
			if _, err := w.Write(rec.Body.Next(n)); err != nil {
				panic(http.ErrAbortHandler)
			}
			_ = http.NewResponseController(w).Flush()
		}
	}}
}

// Flip changes a bit in the middle of the answer's body, as memory or a disk does that nobody checks.
func Flip() Fault {
	return Fault{"flipped bit", func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		rec := copyHeader(w, r, forward)
		body := rec.Body.Bytes()
		if rec.Code/100 == 2 && len(body) > 0 {
			body[len(body)/2] ^= 0x10
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(body)
	}}
}

// WholeObject answers as a server does that knows no ranges.
func WholeObject() Fault {
	return Fault{"whole object", func(w http.ResponseWriter, r *http.Request, forward http.Handler) {
		rec := copyHeader(w, r, forward)
		w.Header().Del("Content-Range")
		w.Header().Del("Content-Length")
		_, _ = w.Write(rec.Body.Bytes())
	}}
}

// Unconditional answers a put as a server does that ignores conditions. Nothing is stored.
func Unconditional() Fault {
	return Fault{"unconditional", func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("ETag", `"0"`)
	}}
}

// Recorded has the server answer a request and returns the answer, for faults of a test's own.
func Recorded(r *http.Request, forward http.Handler) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	forward.ServeHTTP(rec, r)
	return rec
}

// copyHeader has the server answer and copies the answer's header. Its length is that of the body, which an answer to HEAD
// does not have.
func copyHeader(w http.ResponseWriter, r *http.Request, forward http.Handler) *httptest.ResponseRecorder {
	rec := Recorded(r, forward)
	maps.Copy(w.Header(), rec.Header())
	if r.Method != http.MethodHead {
		w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
	}
	return rec
}
