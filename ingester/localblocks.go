package ingester

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/duramendb/duramen/internal/errkind"
)

const (
	// stateFileName is where a tenant's folder keeps what must outlive the blocks that were deleted.
	stateFileName = "duramen.json"

	// listedBeforeDelete is how long the manifest must have listed a block before the local copy may go: queries that
	// pinned an older manifest, and queriers that learn of versions late, are over by then.
	listedBeforeDelete = time.Hour
)

// localBlocks knows which of a tenant's local blocks the manifest lists, decides which may be deleted, and remembers
// for ever what was: the floor that its answers to queriers carry. Safe for concurrent use.
type localBlocks struct {
	path      string
	now       func() time.Time
	retention time.Duration

	mu      sync.Mutex
	state   localState
	failure error // of the last attempt to write state; blocks stay until one succeeds
	listed  map[ulid.ULID]listing
}

// localState is the content of duramen.json.
type localState struct {
	// Floor is the highest end of a deleted block, in milliseconds.
	Floor int64 `json:"floor"`
	// DeletedVersion is the highest manifest version that was the first to list a deleted block.
	DeletedVersion uint64 `json:"deleted_version"`
}

// listing is what is known of a block in the manifest.
type listing struct {
	version uint64
	// at is the owner's clock, zero when unknown; seen is our clock when we first saw it in this process.
	at, seen time.Time
}

// openLocalBlocks reads <dir>/duramen.json. retention is how old a block's newest sample must be before it may go, 12
// h. A file that cannot be read is an error of kind Corrupt: without the floor a query could miss deleted samples.
func openLocalBlocks(dir string, now func() time.Time, retention time.Duration) (*localBlocks, error) {
	l := &localBlocks{
		path: filepath.Join(dir, stateFileName), now: now, retention: retention,
		state:  localState{Floor: math.MinInt64},
		listed: map[ulid.ULID]listing{},
	}
	data, err := os.ReadFile(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &l.state)
	}
	if err != nil {
		return nil, errkind.Wrap(errkind.Corrupt, fmt.Errorf("read %s: %w", l.path, err))
	}
	return l, nil
}

// begin raises the floor of a tenant whose folder has held no samples yet to the present, and creates the folder. Whoever
// lost its disk shipped blocks before, of which it knows nothing now: queries must look for them in the bucket. A folder
// holds no samples as long as there is nothing in it but notes about the tenant, as a crash may leave it.
func (l *localBlocks) begin() error {
	dir := filepath.Dir(l.path)
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if path := filepath.Join(dir, e.Name()); path != sinceFile(dir) && !strings.HasPrefix(e.Name(), ".") {
			return nil
		}
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	next := l.state
	next.Floor = l.now().UnixMilli()
	return l.write(next)
}

// deletable is a tsdb.BlocksToDeleteFunc: stock deletes the blocks it names. Their traces are on disk before it
// returns; a crash before stock deleted them leaves a floor that is too high, which costs queriers a detour to the
// bucket and nothing else. When the traces cannot be written it names no block, and err says why.
func (l *localBlocks) deletable(blocks []*tsdb.Block) map[ulid.ULID]struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, next := l.now(), l.state
	out := map[ulid.ULID]struct{}{}
	for _, b := range blocks {
		meta := b.Meta()
		listed, ok := l.listed[meta.ULID]
		if !ok || now.Sub(time.UnixMilli(meta.MaxTime)) < l.retention || !listed.longEnough(now) {
			continue
		}
		out[meta.ULID] = struct{}{}
		next.Floor = max(next.Floor, meta.MaxTime)
		next.DeletedVersion = max(next.DeletedVersion, listed.version)
	}
	if len(out) == 0 {
		return nil
	}
	if next != l.state || l.failure != nil {
		if l.failure = l.write(next); l.failure != nil {
			return nil
		}
	}
	return out
}

// longEnough asks both clocks. The owner's may be ahead or behind ours; ours began when we first saw the listing.
func (g listing) longEnough(now time.Time) bool {
	return now.Sub(g.seen) >= listedBeforeDelete && (g.at.IsZero() || now.Sub(g.at) >= listedBeforeDelete)
}

// write replaces the file and then the state. After an error the file may hold either, so the higher one counts.
func (l *localBlocks) write(next localState) error {
	l.state = next
	data, err := json.Marshal(next)
	if err != nil {
		return err
	}
	if err := writeDurable(l.path, data); err != nil {
		return fmt.Errorf("write %s: %w", l.path, err)
	}
	return nil
}

// err returns why the last attempt to delete blocks could not begin, nil when it could.
func (l *localBlocks) err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failure
}

// setListed notes that manifest version lists the block since at, the owner's clock; the zero time is unknown. A block
// known as listed keeps its lower version and its earlier time.
func (l *localBlocks) setListed(id ulid.ULID, version uint64, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if old, ok := l.listed[id]; ok && old.version <= version {
		return
	}
	l.listed[id] = listing{version: version, at: at, seen: l.now()}
}

// setUnlisted notes that the manifest neither lists nor covers the block any more.
func (l *localBlocks) setUnlisted(id ulid.ULID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.listed, id)
}

// keepOnly forgets the listings of blocks that are gone.
func (l *localBlocks) keepOnly(blocks []*tsdb.Block) {
	here := make(map[ulid.ULID]struct{}, len(blocks))
	for _, b := range blocks {
		here[b.Meta().ULID] = struct{}{}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for id := range l.listed {
		if _, ok := here[id]; !ok {
			delete(l.listed, id)
		}
	}
}

// listedVersion returns the first manifest version known to list the block or what covers it.
func (l *localBlocks) listedVersion(id ulid.ULID) (uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g, ok := l.listed[id]
	return g.version, ok
}

// floor returns a time in milliseconds: every sample accepted with t ≥ floor is still held here. math.MinInt64 when no
// block was ever deleted. Ask after the querier was opened: the floor is on disk before the first block goes.
func (l *localBlocks) floor() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.Floor
}

// deletedVersion returns the highest manifest version that was the first to list a block deleted here, 0 for none. Ask
// after the querier was opened, as with floor.
func (l *localBlocks) deletedVersion() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.DeletedVersion
}

// unshipped returns the blocks that the manifest is not known to list, in the order given.
func (l *localBlocks) unshipped(blocks []*tsdb.Block) []*tsdb.Block {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*tsdb.Block
	for _, b := range blocks {
		if _, ok := l.listed[b.Meta().ULID]; !ok {
			out = append(out, b)
		}
	}
	return out
}
