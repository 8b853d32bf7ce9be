package s3

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/internal/faultproxy"
)

// TestPutIfAbsentIsSentOnce checks correctness rule 21: whatever happens, there is one request, an unknown outcome is
// not ErrExists, and only the object itself says who won.
func TestPutIfAbsentIsSentOnce(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s)
	for _, c := range []struct {
		name    string
		fault   faultproxy.Fault
		applied bool
		exists  bool // the error is ErrExists
		is      error
	}{
		{name: "503", fault: faultproxy.Answer(503, "")},
		{name: "SlowDown", fault: faultproxy.S3Error(503, "SlowDown")},
		{name: "500", fault: faultproxy.S3Error(500, "InternalError")},
		{name: "408", fault: faultproxy.S3Error(408, "RequestTimeout")},
		{name: "429", fault: faultproxy.Answer(429, "")},
		{name: "reset", fault: faultproxy.Reset()},
		{name: "a page", fault: faultproxy.Answer(200, "<html></html>"), is: ErrNotS3},
		{name: "denied", fault: faultproxy.S3Error(403, "AccessDenied"), is: ErrDenied},
		{name: "not supported", fault: faultproxy.S3Error(501, "NotImplemented"), is: bucket.ErrUnconditional},
		{name: "another conflict", fault: faultproxy.S3Error(409, "InvalidBucketState")},
		{name: "beside a delete", fault: faultproxy.S3Error(409, "ExistingObjectIsDirectory")},
		{name: "a rival at the same time", fault: faultproxy.S3Error(409, "ConditionalRequestConflict"), exists: true},
		{name: "taken", fault: faultproxy.S3Error(412, "PreconditionFailed"), exists: true},
		{name: "applied but 500", fault: faultproxy.Applied(faultproxy.Answer(500, "")), applied: true},
		{name: "applied but reset", fault: faultproxy.Applied(faultproxy.Reset()), applied: true},
		{name: "applied but a page", fault: faultproxy.Applied(faultproxy.Answer(200, "")), applied: true, is: ErrNotS3},
		{name: "applied but 404", fault: faultproxy.Applied(faultproxy.Answer(404, "")), applied: true, is: ErrNotS3},
	} {
		for _, data := range []string{"mine", ""} { // net/http repeats by itself what has no body, if it may
			t.Run(fmt.Sprintf("%s/%d bytes", c.name, len(data)), func(t *testing.T) {
				key := "t/" + t.Name()
				buckettest.Keys(t, b, "t/", true) // there is a connection to be reused
				p.Heal()
				p.Spoil(faultproxy.PutObject, c.fault)
				err := b.PutIfAbsent(t.Context(), key, []byte(data))
				require.Error(t, err)
				require.Equal(t, 1, p.Total())
				require.Equal(t, "*", p.Header(faultproxy.PutObject).Get("If-None-Match"))
				require.Equal(t, c.exists, errors.Is(err, bucket.ErrExists))
				require.NotErrorIs(t, err, bucket.ErrNotFound)
				if c.is != nil {
					require.ErrorIs(t, err, c.is)
				}
				if !c.applied {
					requireMissing(t, b, key)
					return
				}
				require.Equal(t, data, buckettest.Get(t, b, key))
				require.ErrorIs(t, b.PutIfAbsent(t.Context(), key, []byte("other")), bucket.ErrExists)
				require.Equal(t, data, buckettest.Get(t, b, key))
			})
		}
	}
}

func TestPutIfAbsentRace(t *testing.T) {
	t.Parallel()
	const rivals, rounds = 16, 10
	s := startServer(t)
	clients := make([]*Bucket, rivals)
	clients[0] = s.open(t)
	for i := range clients[1:] { // as many processes
		clients[i+1] = s.open(t, func(c *Config) { c.BucketName = clients[0].cfg.BucketName })
	}
	for round := range rounds {
		key := fmt.Sprintf("t/%d", round)
		errs := make([]error, rivals)
		start, done := make(chan struct{}), sync.WaitGroup{}
		for i, b := range clients {
			done.Go(func() {
				<-start
				errs[i] = b.PutIfAbsent(t.Context(), key, fmt.Appendf(nil, "rival %d", i))
			})
		}
		close(start)
		done.Wait()
		winner := -1
		for i, err := range errs {
			if err == nil {
				require.Equal(t, -1, winner, "two winners")
				winner = i
				continue
			}
			require.ErrorIs(t, err, bucket.ErrExists)
		}
		require.NotEqual(t, -1, winner, "no winner")
		require.Equal(t, fmt.Sprintf("rival %d", winner), buckettest.Get(t, clients[(winner+1)%rivals], key))
	}
}

func TestProbeOfAServerThatIgnoresConditions(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	p := startProxy(t, s)
	b := p.open(t, s)
	p.Spoil(faultproxy.PutObject, faultproxy.Times(2, faultproxy.Unconditional())...)
	require.ErrorIs(t, bucket.Probe(t.Context(), b), bucket.ErrUnconditional)
}
