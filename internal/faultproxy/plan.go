package faultproxy

import (
	"math/rand/v2"
	"time"
)

// Always spoils every request for one of the operations, or all requests when none is named.
func Always(f Fault, ops ...Operation) Plan {
	of := map[Operation]bool{}
	for _, op := range ops {
		of[op] = true
	}
	return func(r Request) Fault {
		if len(of) > 0 && !of[r.Operation] {
			return Fault{}
		}
		return f
	}
}

// Seeded spoils a share of all requests, that of reads and that of writes, each by a fault of Any that fits it. What befalls
// the n-th request depends on the seed and its operation alone; with concurrent clients, which one comes n-th does not.
func Seeded(seed uint64, reads, writes float64) Plan {
	return func(r Request) Fault {
		p := writes
		if r.Operation.isRead() {
			p = reads
		}
		rnd := rand.New(rand.NewPCG(seed, uint64(r.N)))
		if rnd.Float64() >= p {
			return Fault{}
		}
		faults := Any(r.Operation, rnd)
		return faults[rnd.IntN(len(faults))]
	}
}

const (
	// dripPause is the time between two pieces of a slow body.
	dripPause = 2 * time.Millisecond
	// mostLate is at most how late a request arrives that the client has given up.
	mostLate = 200 * time.Millisecond
)

// Any returns every kind of fault that a client has to cope with in an operation. Where an answer is cut depends on rnd.
// Stalls last until the client gives up.
func Any(op Operation, rnd *rand.Rand) []Fault {
	failures := []Fault{
		Answer(500, ""), S3Error(500, "InternalError"), S3Error(503, "SlowDown"), Answer(503, ""), Answer(504, ""),
		Reset(), Close(), Stall(nil),
	}
	faults := append([]Fault{
		// A proxy's pages.
		Answer(200, "<html><body>Maintenance</body></html>"), Answer(404, "<html><body>Not found</body></html>"),
	}, failures...)
	switch op {
	case GetObject:
		faults = append(faults, Short(rnd.Float64()), Unsized(rnd.Float64()), Flip(), WholeObject())
		fallthrough
	case ListObjects:
		faults = append(faults, Drip(4<<10+rnd.IntN(64<<10), dripPause))
		for _, f := range []Fault{Reset(), Close(), Stall(nil)} {
			faults = append(faults, Cut(rnd.Float64(), f))
		}
	case HeadObject, BucketLocation:
	default:
		faults = append(faults, ResetUpload(), Late(time.Duration(rnd.Int64N(int64(mostLate)))))
		for _, f := range failures {
			faults = append(faults, Applied(f))
		}
	}
	return faults
}
