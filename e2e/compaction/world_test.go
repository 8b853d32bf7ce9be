package compaction

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/s3"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
	"github.com/duramendb/duramen/internal/faultproxy"
	"github.com/duramendb/duramen/internal/objectstore"
)

const (
	tenantID = "team-a"
	day      = 12 * blockgen.SlotLength
)

// world is a bucket on an S3 server, with a proxy before it that only the process that compacts goes through.
type world struct {
	t       *testing.T
	rnd     *rand.Rand
	server  *objectstore.Server
	name    string // of the bucket
	proxy   *faultproxy.Proxy
	bkt     bucket.Bucket
	owner   *manifest.Owner
	blocks  blockgen.SlotOptions
	shipped *blockgen.Random
	dir     string // of the process that compacts
	reader  *client.Client

	mu     sync.Mutex         // the proxy asks while blocks are shipped
	inputs map[ulid.ULID]bool // what was shipped
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		t: t, rnd: rand.New(rand.NewPCG(*seedFlag, 1)), server: objectstore.Start(t, objectstore.Options{}),
		inputs: map[ulid.ULID]bool{}, dir: t.TempDir(),
	}
	w.name = w.server.NewBucket(t)
	w.proxy = faultproxy.Start(t, w.server.Address(), nil)
	var cfg s3.Config
	cfg.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	cfg.Endpoint, cfg.Insecure, cfg.Region, cfg.BucketName = w.server.Address(), true, objectstore.Region, w.name
	cfg.AccessKeyID, cfg.SecretAccessKey = objectstore.AccessKey, objectstore.SecretKey
	b, err := s3.New(cfg, slog.New(slog.DiscardHandler), nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	w.bkt = b
	begin := (time.Now().UnixMilli()/day - 3) * day
	shipped := func() time.Time { return time.UnixMilli(begin + day/2) } // long ago: nobody waits for more of them
	w.owner = manifest.NewOwner(b, shipped, slog.New(slog.DiscardHandler), nil)
	w.blocks = blockgen.SlotOptions{Start: begin, Count: 3, Replicas: 3, Series: 40, Universe: w.rnd.Uint64()}
	w.ship()

	reader := start(t, t.TempDir(), w.args(w.server.Address(), "-compactor.interval=0", "-manifest.reconcile-interval=0")...)
	w.reader = client.Duramen(reader.URL, tenantID)
	t.Cleanup(w.reader.CloseIdle)
	return w
}

func (w *world) args(address string, more ...string) []string {
	return append([]string{
		"-bucket.backend=s3", "-bucket.s3.endpoint=" + address, "-bucket.s3.bucket-name=" + w.name, "-bucket.s3.insecure",
		"-bucket.s3.region=" + objectstore.Region, "-bucket.s3.lookup=path",
		"-bucket.s3.access-key-id=" + objectstore.AccessKey, "-bucket.s3.secret-access-key=" + objectstore.SecretKey,
	}, more...)
}

// ship brings blocks of three slots, as ingesters would have two days ago.
func (w *world) ship() {
	w.t.Helper()
	s, err := blockgen.NewSlots(w.rnd, w.blocks)
	require.NoError(w.t, err)
	require.NotEmpty(w.t, s.Blocks)
	for _, b := range s.Blocks {
		w.announce(b)
	}
	w.shipped = s
}

// again ships a copy of one of the first blocks under a name of its own, as a replica does that comes late.
func (w *world) again() {
	w.t.Helper()
	i := w.rnd.IntN(len(w.shipped.Blocks))
	first := w.shipped.Blocks[i].Entry
	b, err := blockgen.Build(blockgen.Options{
		ULID: blockgen.ULID(time.Now().UnixMilli(), w.rnd.Uint64()), MinTime: first.MinTime, MaxTime: first.MaxTime, Sidecar: true,
	}, w.shipped.Series[i])
	require.NoError(w.t, err)
	w.announce(b)
}

func (w *world) announce(b *blockgen.Block) {
	w.t.Helper()
	require.NoError(w.t, b.Put(w.t.Context(), w.bkt, tenantID))
	_, err := w.owner.Add(w.t.Context(), tenantID, b.Entry)
	require.NoError(w.t, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inputs[b.Entry.ULID] = true
}

// isInput tells whether a block was shipped.
func (w *world) isInput(id ulid.ULID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.inputs[id]
}

// compactor starts the process that compacts. It goes on where the one before was killed.
func (w *world) compactor() *process.Process {
	w.t.Helper()
	return start(w.t, w.dir, w.args(w.proxy.Address(), "-compactor.interval=1s")...)
}

// answer is all that is stored, in an order of its own.
func (w *world) answer(ctx context.Context) ([]string, error) {
	var series []json.RawMessage
	if err := w.reader.Query(ctx, `{i=~".+"}[1d]`, w.blocks.Start+day-1, &series); err != nil {
		return nil, err
	}
	out := make([]string, 0, len(series))
	for _, s := range series {
		out = append(out, string(s))
	}
	slices.Sort(out)
	return out, nil
}

// readOn asks for everything again and again until the returned function is called, which returns how often that was and the
// first answer that was not as want.
func (w *world) readOn(want []string) (stop func() (int, error)) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var (
		reading sync.WaitGroup
		n       int
		first   error
	)
	reading.Go(func() {
		for ; ctx.Err() == nil && first == nil; n++ {
			got, err := w.answer(ctx)
			switch {
			case ctx.Err() != nil:
			case err != nil:
				first = err
			case !slices.Equal(want, got):
				first = fmt.Errorf("answer %d differs: %s", n, difference(want, got))
			}
		}
	})
	return func() (int, error) {
		cancel()
		reading.Wait()
		return n, first
	}
}

func difference(want, got []string) string {
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			return fmt.Sprintf("series %d\nwant %.2000s\ngot  %.2000s", i, want[i], got[i])
		}
	}
	return fmt.Sprintf("%d series instead of %d", len(got), len(want))
}

// compacted waits until the tenant has one block and returns that.
func (w *world) compacted() manifest.Block {
	w.t.Helper()
	var m *manifest.Manifest
	require.Eventually(w.t, func() bool {
		var err error
		m, err = w.owner.Refresh(w.t.Context(), tenantID)
		require.NoError(w.t, err)
		return len(m.Blocks) == 1
	}, patience, 50*time.Millisecond, "all is compacted without help")
	return m.Blocks[0]
}
