package loadgen

import (
	"math/bits"
	"time"

	"github.com/duramendb/duramen/internal/loadledger"
	"github.com/duramendb/duramen/internal/procstat"
)

// Report is how a run went.
type Report struct {
	// Acknowledged, Refused and Unknown are samples by what became of their requests.
	Acknowledged, Refused, Unknown int64
	// Requests were settled; Retries is how many attempts they took beyond the first.
	Requests, Retries int64
	// Statuses counts attempts by the status that answered them, 0 for none.
	Statuses map[int]int64
	// Refusal is the answer to the first request that was refused.
	Refusal string
	// Took is the time from the first request to the last answer.
	Took time.Duration
	// Latency is that of acknowledged requests, their last attempts.
	Latency Latency
}

// Samples returns how many samples were settled.
func (r *Report) Samples() int64 { return r.Acknowledged + r.Refused + r.Unknown }

// PerSecond returns the acknowledged samples a second.
func (r *Report) PerSecond() float64 { return float64(r.Acknowledged) / max(r.Took.Seconds(), 1e-9) }

func (r *Report) settle(f loadledger.Fate, samples int, took time.Duration, err error) {
	switch f {
	case loadledger.Acknowledged:
		r.Acknowledged += int64(samples)
		r.Latency.add(took)
	case loadledger.Refused:
		r.Refused += int64(samples)
		if r.Refusal == "" {
			r.Refusal = err.Error()
		}
	default:
		r.Unknown += int64(samples)
	}
}

func (r *Report) add(o *Report) {
	r.Acknowledged += o.Acknowledged
	r.Refused += o.Refused
	r.Unknown += o.Unknown
	r.Requests += o.Requests
	r.Retries += o.Retries
	if r.Refusal == "" {
		r.Refusal = o.Refusal
	}
	for status, n := range o.Statuses {
		r.Statuses[status] += n
	}
	for i, n := range o.Latency.counts {
		r.Latency.counts[i] += n
	}
	r.Latency.max = max(r.Latency.max, o.Latency.max)
}

// Latency holds durations in buckets of at most 1.6 % width, so that its size does not depend on their number.
type Latency struct {
	counts [64 << subBits]int64
	max    time.Duration
}

// subBits is how many bits below the highest one tell buckets apart.
const subBits = 6

func (l *Latency) add(d time.Duration) {
	l.counts[bucketOf(d)]++
	l.max = max(l.max, d)
}

func bucketOf(d time.Duration) int {
	v := uint64(max(d, 0))
	if v < 1<<subBits {
		return int(v)
	}
	shift := bits.Len64(v) - 1 - subBits
	return (shift+1)<<subBits + int(v>>shift&(1<<subBits-1))
}

// upper returns the largest duration of a bucket.
func upper(bucket int) time.Duration {
	if bucket < 1<<subBits {
		return time.Duration(bucket)
	}
	shift := bucket>>subBits - 1
	return time.Duration((uint64(bucket&(1<<subBits-1)|1<<subBits)+1)<<shift - 1)
}

// Quantile returns the duration that a share q of all do not exceed, at most 1.6 % too high; q 1 is the exact maximum.
func (l *Latency) Quantile(q float64) time.Duration {
	var total, seen int64
	for _, n := range l.counts {
		total += n
	}
	for i, n := range l.counts {
		seen += n
		if n > 0 && float64(seen) > q*float64(total) {
			return min(upper(i), l.max)
		}
	}
	return l.max
}

// Usage is what a process took.
type Usage struct {
	// CPU is user and system time between Watch and Done.
	CPU time.Duration
	// RSS is the resident memory at the end and Peak the most there has ever been, in bytes.
	RSS, Peak int64
}

// Watch begins to measure a process by its number; done returns what it took. A process that ends meanwhile is an error.
func Watch(pid int) (done func() (Usage, error), err error) {
	before, err := procstat.CPU(pid)
	if err != nil {
		return nil, err
	}
	return func() (u Usage, err error) {
		after, err := procstat.CPU(pid)
		if err != nil {
			return u, err
		}
		u.CPU = after - before
		if u.RSS, err = procstat.RSS(pid); err != nil {
			return u, err
		}
		u.Peak, err = procstat.PeakRSS(pid)
		return u, err
	}, nil
}
