package faultproxy

import (
	"net/http"
	"slices"
	"time"
)

// Request is a request as it arrives, before anything is done about it.
type Request struct {
	// N counts the requests of a proxy from 0.
	N         int
	Operation Operation
	Method    string
	// Key is the object's key, where the bucket is named in the path. It is empty for lists and batches.
	Key string
	// Query is the raw query, such as list-type=2&prefix=tenant%2F.
	Query string
	// Range is the header of that name, such as bytes=0-99.
	Range string
	// Header must not be changed.
	Header http.Header
}

// Record is a request and what became of it.
type Record struct {
	Request
	// Fault is the name of the fault, empty for none.
	Fault string
	// Status is what the client was answered, 0 for nothing so far or at all.
	Status int
	// Bytes were sent of the answer's body.
	Bytes int64
	Begin time.Time
	// End is the zero time while the request is in progress.
	End time.Time
}

// Records returns all requests so far in the order of their arrival.
func (p *Proxy) Records() []Record {
	p.mu.Lock()
	defer p.mu.Unlock()
	records := make([]Record, len(p.records))
	for i, r := range p.records {
		records[i] = *r
	}
	return records
}

// Matching returns the requests for which all conditions hold.
func (p *Proxy) Matching(conditions ...func(Record) bool) []Record {
	return slices.DeleteFunc(p.Records(), func(r Record) bool {
		return slices.ContainsFunc(conditions, func(c func(Record) bool) bool { return !c(r) })
	})
}

// Count is the number of requests for an operation that arrived.
func (p *Proxy) Count(op Operation) int {
	return len(p.Matching(func(r Record) bool { return r.Operation == op }))
}

// Total is the number of all requests that arrived.
func (p *Proxy) Total() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.records)
}

// Faults counts the requests that were spoiled, by the name of the fault.
func (p *Proxy) Faults() map[string]int {
	counts := map[string]int{}
	for _, r := range p.Records() {
		if r.Fault != "" {
			counts[r.Fault]++
		}
	}
	return counts
}

// Header returns the header of the last request for an operation, nil when there was none.
func (p *Proxy) Header(op Operation) http.Header {
	requests := p.Matching(func(r Record) bool { return r.Operation == op })
	if len(requests) == 0 {
		return nil
	}
	return requests[len(requests)-1].Header
}

// MostAtOnce is how many requests for an operation were in progress at the same time.
func (p *Proxy) MostAtOnce(op Operation) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.most[op]
}

// Active is how many requests are in progress.
func (p *Proxy) Active() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, a := range p.active {
		n += a
	}
	return n
}

// enter notes a request and decides on its fault.
func (p *Proxy) enter(r *http.Request) (*Record, Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	op := operationOf(r)
	rec := &Record{Begin: time.Now(), Request: Request{
		N: p.next, Operation: op, Method: r.Method, Key: keyOf(r), Query: r.URL.RawQuery, Range: r.Header.Get("Range"),
		Header: r.Header.Clone(),
	}}
	p.next++
	p.records = append(p.records, rec)
	p.active[op]++
	p.most[op] = max(p.most[op], p.active[op])
	var fault Fault
	if script := p.script[op]; len(script) > 0 {
		fault, p.script[op] = script[0], script[1:]
	} else if p.plan != nil {
		fault = p.plan(rec.Request)
	}
	rec.Fault = fault.Name
	return rec, fault
}

func (p *Proxy) leave(rec *Record, w *watchedWriter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.active[rec.Operation]--
	rec.Status, rec.Bytes, rec.End = w.status, w.bytes, time.Now()
}

// watchedWriter remembers what was sent.
type watchedWriter struct {
	http.ResponseWriter

	status int
	bytes  int64
}

// Unwrap is for http.ResponseController.
func (w *watchedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (w *watchedWriter) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *watchedWriter) Write(data []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(data)
	w.bytes += int64(n)
	return n, err
}
