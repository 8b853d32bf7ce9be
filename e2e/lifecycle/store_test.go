package lifecycle

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/bucket/s3"
	"github.com/duramendb/duramen/chunkstore/manifest"
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

// checkStore checks what is in the bucket after everything was shipped: an unbroken history of manifests, each block that
// is listed, and nothing else but what a life that crashed has left half way.
func (w *world) checkStore() {
	ctx := context.Background()
	var versions []*manifest.Manifest
	blocks := map[ulid.ULID]bool{} // whether meta.json is there
	err := w.store.bucket.List(ctx, tenantID+"/", true, func(o bucket.Object) error {
		rest := strings.TrimPrefix(o.Key, tenantID+"/")
		folder, name, _ := strings.Cut(rest, "/")
		id, err := ulid.ParseStrict(folder)
		switch {
		case err == nil:
			blocks[id] = blocks[id] || name == block.MetaName
		case strings.HasPrefix(o.Key, manifest.Prefix(tenantID)):
			m, err := w.readManifest(ctx, o.Key)
			if err != nil {
				return err
			}
			versions = append(versions, m)
		default:
			return fmt.Errorf("the bucket holds %s", o.Key)
		}
		return nil
	})
	require.NoError(w.t, err)
	if len(versions) == 0 {
		require.Empty(w.t, blocks)
		return
	}
	for i, m := range versions[1:] {
		before := versions[i]
		require.Equal(w.t, before.Version+1, m.Version, "no version is missing")
		require.Greater(w.t, len(m.Blocks), len(before.Blocks), "each version adds something")
		for _, b := range before.Blocks {
			there, ok := m.Find(b.ULID)
			require.True(w.t, ok, "version %d lost block %s", m.Version, b.ULID)
			require.Equal(w.t, b, *there)
		}
	}
	newest := versions[len(versions)-1]
	for _, b := range newest.Blocks {
		require.NoError(w.t, block.Verify(ctx, w.store.bucket, tenantID, b.ULID))
		delete(blocks, b.ULID)
	}
	require.LessOrEqual(w.t, len(blocks), w.lives, "blocks that no manifest lists; each crash may leave one: %v", blocks)
}

func (w *world) readManifest(ctx context.Context, key string) (*manifest.Manifest, error) {
	data, err := readAll(ctx, w.store.bucket, key)
	if err != nil {
		return nil, err
	}
	m, err := manifest.Decode(data)
	if err == nil && manifest.Key(tenantID, m.Version) != key {
		err = fmt.Errorf("%s holds version %d", key, m.Version)
	}
	return m, err
}

func readAll(ctx context.Context, b bucket.Bucket, key string) ([]byte, error) {
	body, err := b.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}
