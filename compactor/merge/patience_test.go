package merge

import (
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/internal/errkind"
)

// outage is a bucket of which each operation takes a second, and that is away for some time from a put on.
type outage struct {
	*faultbucket.Bucket

	mu           sync.Mutex
	begins, ends time.Time
}

// away is an outage from the put of the given number on; they are counted from 1.
func away(inner bucket.Bucket, put int, d time.Duration) *outage {
	o := &outage{Bucket: faultbucket.New(inner, nil)}
	puts := 0
	o.SetPlan(func(op faultbucket.Op) faultbucket.Fault {
		time.Sleep(time.Second)
		o.mu.Lock()
		defer o.mu.Unlock()
		if op.Method == "Put" {
			if puts++; puts == put {
				o.begins, o.ends = time.Now(), time.Now().Add(d)
			}
		}
		if time.Now().Before(o.ends) {
			return faultbucket.Before
		}
		return faultbucket.None
	})
	return o
}

// reads counts the operations that read of what begins with a prefix.
func (o *outage) reads(prefix string) map[string]int {
	n := map[string]int{}
	for _, op := range o.Ops() {
		if op.Method == "GetRange" && strings.HasPrefix(op.Key, prefix) {
			n[op.Key]++
		}
	}
	return n
}

// TestABucketThatIsAwayCostsNoWork: whichever put finds it away, nothing that was read before is read again, and nothing
// that was put is put again.
func TestABucketThatIsAwayCostsNoWork(t *testing.T) {
	for put := range 6 { // the 0th is none
		synctest.Test(t, func(t *testing.T) {
			w := replicas(t)
			want, _ := w.naive(t)
			j, cfg := w.job(1), Config{Scratch: t.TempDir(), SegmentBytes: 700}
			inner := w.put(t)
			bkt := away(inner, put, 3*time.Second)
			r, err := Run(t.Context(), cfg, bkt, tenantID, j, nil)
			require.NoError(t, err)
			require.Equal(t, want, dump(t, inner, j, r))
			puts := map[string]int{}
			for _, op := range bkt.Ops() {
				if op.Method == "Put" {
					puts[op.Key]++
				}
			}
			again := 0
			for _, n := range puts {
				if n > 1 {
					again++
				}
			}
			require.Equal(t, min(put, 1), again, "put %d: %v", put, puts)
			for key, n := range bkt.reads(tenantID + "/" + w.blocks[0].Entry.ULID.String()) {
				require.LessOrEqual(t, n, 2, key)
			}
		})
	}
}

// TestPatienceEnds: a job waits for the bucket as long as it has worked, and a quarter of an hour at most.
func TestPatienceEnds(t *testing.T) {
	for worked, most := range map[time.Duration]time.Duration{
		0: 0, time.Minute: time.Minute, 5 * time.Hour: mostPatience,
	} {
		synctest.Test(t, func(t *testing.T) {
			p := patience{time.Now()}
			time.Sleep(worked)
			began, tries := time.Now(), 0
			err := p.keep(t.Context(), func() error { tries++; return errkind.Wrap(errkind.Unavailable, io.ErrUnexpectedEOF) })
			require.ErrorIs(t, err, io.ErrUnexpectedEOF)
			took := time.Since(began)
			require.LessOrEqual(t, took, most)
			require.GreaterOrEqual(t, 2*took, most)
			require.LessOrEqual(t, tries, 1+10+int(most/mostPause))
			require.NoError(t, t.Context().Err())
			tries = 0
			require.ErrorIs(t, p.keep(t.Context(), func() error { tries++; return bucket.ErrNotFound }), bucket.ErrNotFound)
			require.Equal(t, 1, tries, "an answer")
		})
	}
}
