package lifecycle

import (
	"context"
	"flag"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/bucket/s3"
	"github.com/duramendb/duramen/e2e/bucketcheck"
	"github.com/duramendb/duramen/internal/faultproxy"
	"github.com/duramendb/duramen/internal/objectstore"
)

// storeState is how the bucket does.
type storeState int

const (
	healthy storeState = iota
	// down: nothing can be had of it.
	down
	// faulty: a part of all operations fails, in every way that there is.
	faulty
)

// The shares of operations that fail while a bucket is faulty.
const (
	readFaults  = 0.2
	writeFaults = 0.5 // there are fewer
)

// String returns the state's name.
func (s storeState) String() string { return [...]string{"healthy", "down", "faulty"}[s] }

// store is a world's bucket.
type store struct {
	bucket bucket.Bucket
	set    func(storeState)
}

// inMemory is a bucket without a network, which is fast.
func inMemory(seed uint64) store {
	b := faultbucket.New(bucket.NewInMemory(), nil)
	return store{b, func(s storeState) {
		switch s {
		case healthy:
			b.SetPlan(nil)
		case down:
			b.SetPlan(func(faultbucket.Op) faultbucket.Fault { return faultbucket.Before })
		case faulty:
			b.SetPlan(faultbucket.Seeded(seed, readFaults, faultbucket.Before, faultbucket.After, faultbucket.Truncate))
		}
	}}
}

// stallTimeout is how long the tests' client of an S3 server waits for a byte.
const stallTimeout = 200 * time.Millisecond

// onS3 is a bucket of a real S3 server, which is killed when it is to be down, behind a proxy that spoils requests.
func onS3(t testing.TB, seed uint64) (store, *faultproxy.Proxy) {
	t.Helper()
	server := objectstore.Start(t, objectstore.Options{})
	proxy := faultproxy.Start(t, server.Address(), nil)
	var cfg s3.Config
	cfg.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	cfg.Endpoint, cfg.Insecure, cfg.Region = proxy.Address(), true, objectstore.Region
	cfg.BucketName, cfg.AccessKeyID, cfg.SecretAccessKey = server.NewBucket(t), objectstore.AccessKey, objectstore.SecretKey
	cfg.StallTimeout, cfg.FirstPause = stallTimeout, time.Millisecond
	b, err := s3.New(cfg, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	return store{b, func(s storeState) {
		switch s {
		case down:
			server.Kill()
			return
		case healthy:
			proxy.SetPlan(nil)
		case faulty:
			proxy.SetPlan(faultproxy.Seeded(seed, readFaults, writeFaults))
		}
		if !server.Running() {
			require.NoError(t, server.Restart())
		}
	}}, proxy
}

// checkStore checks what is in the bucket after everything was shipped.
func (w *world) checkStore() {
	r, err := bucketcheck.Check(context.Background(), w.store.bucket, tenantID)
	require.NoError(w.t, err)
	require.LessOrEqual(w.t, len(r.Unlisted), w.lives, "blocks that no manifest lists; each crash may leave one: %v", r.Unlisted)
}
