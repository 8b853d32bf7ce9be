package ingester

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/tenantmark"
)

const (
	// marksInterval is how often the marks of tenants that are to be deleted are looked at: one listing each.
	marksInterval = 15 * time.Second

	// discardedPrefix begins the names of tenants' folders that are being deleted. No tenant can have such a name.
	discardedPrefix = "~deleted~"
)

// doomedMarker is a file that says that the tenant is to be deleted, for a start while the bucket is away.
func doomedMarker(dir string) string { return filepath.Join(dir, "doomed") }

// sinceFile holds when the folder of a tenant was made, in milliseconds since the Unix epoch.
func sinceFile(dir string) string { return filepath.Join(dir, "since") }

// dooms are the tenants that are to be deleted, as far as their marks are known. Safe for concurrent use.
type dooms struct {
	watch *tenantmark.Watch // nil: there is no bucket

	// pending are refused; finished is when nothing was left, in milliseconds since the Unix epoch. The maps are never
	// changed, others take their places.
	pending  atomic.Pointer[map[string]tenantmark.Mark]
	finished atomic.Pointer[map[string]int64]
	looked   atomic.Bool

	mu      sync.Mutex      // held through a look
	flushed map[string]bool // pending ones of which the bucket has everything; used by markLoop
}

func newDooms(bkt bucket.Bucket) *dooms {
	d := &dooms{flushed: map[string]bool{}}
	if bkt != nil {
		d.watch = tenantmark.NewWatch(bkt)
	}
	d.pending.Store(&map[string]tenantmark.Mark{})
	d.finished.Store(&map[string]int64{})
	return d
}

// refuse returns an error of kind Gone for a tenant that is to be deleted.
func (d *dooms) refuse(tenantID string) error {
	if m, ok := (*d.pending.Load())[tenantID]; ok {
		return tenantmark.Gone(tenantID, time.Unix(m.DeletionTime, 0))
	}
	return nil
}

// finishedAt returns when nothing was left of an earlier tenant of the name, 0 when there was none.
func (d *dooms) finishedAt(tenantID string) int64 { return (*d.finished.Load())[tenantID] }

// bygone reports whether the folder of a tenant was made before its name was deleted.
func (d *dooms) bygone(t *tenantDB) bool {
	at := d.finishedAt(t.id)
	return at != 0 && madeSince(t.dir) <= at
}

// LookAtMarks looks soon for tenants that are to be deleted, beside the looks every few seconds.
func (i *Ingester) LookAtMarks() { i.poke(i.markPoke) }

// recallDooms refuses those that are marked on disk, until the marks in the bucket say otherwise.
func (i *Ingester) recallDooms() {
	pending := map[string]tenantmark.Mark{}
	for _, t := range i.tenants.all() {
		if _, err := os.Stat(doomedMarker(t.dir)); err == nil {
			pending[t.id] = tenantmark.Mark{DeletionTime: i.now().Unix()}
		}
	}
	i.dooms.pending.Store(&pending)
}

// markLoop follows the marks. A bucket that is away changes nothing: what was refused stays so, and all else goes on.
func (i *Ingester) markLoop(ctx context.Context) error {
	if i.dooms.watch == nil {
		return nil
	}
	tick := time.NewTicker(marksInterval)
	defer tick.Stop()
	failing := false
	for {
		err := i.readMarks(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !failing {
			i.log.Error("marks of tenants that are to be deleted cannot be read, all tenants go on as before", "err", err)
		}
		failing = err != nil
		i.discardDeleted()
		i.flushDoomed(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		case <-i.markPoke:
		}
	}
}

// mayShip returns an error when a block of the tenant must not go into the bucket: as long as the marks were never read, and
// when the tenant that it is of was deleted.
func (i *Ingester) mayShip(ctx context.Context, t *tenantDB) error {
	if i.dooms.watch == nil {
		return nil
	}
	if !i.dooms.looked.Load() {
		if err := i.readMarks(ctx); err != nil {
			return err
		}
	}
	if i.dooms.bygone(t) {
		return tenantmark.Gone(t.id, time.UnixMilli(i.dooms.finishedAt(t.id)))
	}
	return nil
}

// readMarks looks once and refuses who is to be deleted from then on.
func (i *Ingester) readMarks(ctx context.Context) error {
	d := i.dooms
	d.mu.Lock()
	defer d.mu.Unlock()
	marks, err := d.watch.Look(ctx)
	if err != nil {
		return err
	}
	before := *d.pending.Load()
	pending, finished := map[string]tenantmark.Mark{}, map[string]int64{}
	for id, m := range marks {
		if m.Finished() {
			finished[id] = m.FinishedAt()
		} else {
			pending[id] = m
		}
	}
	d.finished.Store(&finished)
	for _, t := range i.tenants.all() {
		if m, marked := marks[t.id]; marked && d.bygone(t) {
			pending[t.id] = m // until its folder is gone
		}
	}
	for id, m := range before {
		if _, still := pending[id]; !still && !i.spare(id) {
			pending[id] = m // tried again at the next look
		}
	}
	for id, m := range pending {
		if _, known := before[id]; !known {
			i.log.Warn("tenant is to be deleted: its samples and queries are refused", "tenant", id,
				"requested_at", time.Unix(m.DeletionTime, 0).UTC())
		}
	}
	d.pending.Store(&pending)
	d.looked.Store(true)
	return nil
}

// spare reports whether a tenant whose deletion was taken back, or whose folder is gone, is accepted again after a restart,
// too.
func (i *Ingester) spare(tenantID string) bool {
	if t, _ := i.tenants.get(tenantID, false); t != nil {
		if err := os.Remove(doomedMarker(t.dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			i.log.Error("mark of a tenant on disk is not removed", "tenant", tenantID, "err", err)
			return false
		}
	}
	i.log.Info("tenant is accepted again", "tenant", tenantID)
	return true
}

// flushDoomed puts what is held of doomed tenants into the bucket, so that a withdrawal finds it there wherever this
// ingester is then, and marks them on disk.
func (i *Ingester) flushDoomed(ctx context.Context) {
	d := i.dooms
	pending := *d.pending.Load()
	maps.DeleteFunc(d.flushed, func(id string, _ bool) bool { _, still := pending[id]; return !still })
	for id := range pending {
		t, _ := i.tenants.get(id, false)
		if t == nil || d.flushed[id] || d.bygone(t) || ctx.Err() != nil || i.now().Before(i.shipper.nextAttempt(id)) {
			continue
		}
		i.markOnDisk(t)
		if t.currentState() == tenantClosed && isIdle(t.dir) {
			d.flushed[id] = true
			continue
		}
		if _, err := i.Flush(ctx, id, true); err != nil {
			if ctx.Err() == nil {
				i.log.Warn("tenant that is to be deleted is not in the bucket yet", "tenant", id, "err", err)
			}
			continue
		}
		d.flushed[id] = true
		i.log.Info("tenant that is to be deleted is in the bucket", "tenant", id)
	}
}

// markOnDisk marks the folder of a tenant, unless its deletion was taken back since the caller looked: a look that shipping
// asked for may have ended in between, and it has removed the mark already.
func (i *Ingester) markOnDisk(t *tenantDB) {
	i.dooms.mu.Lock()
	defer i.dooms.mu.Unlock()
	if i.dooms.refuse(t.id) == nil {
		return
	}
	if _, err := os.Stat(t.dir); err != nil {
		return
	}
	if err := writeDurable(doomedMarker(t.dir), nil); err != nil {
		i.log.Error("tenant that is to be deleted is not marked on disk", "tenant", t.id, "err", err)
	}
}

// discardDeleted deletes the folders of tenants that were deleted, unless they were made later.
func (i *Ingester) discardDeleted() {
	for _, t := range i.tenants.all() {
		if !i.dooms.bygone(t) {
			continue
		}
		if err := i.tenants.discard(t); err != nil {
			i.log.Error("folder of a deleted tenant is not deleted", "tenant", t.id, "err", err)
			continue
		}
		i.shipper.forget(t.id)
		i.log.Info("folder of deleted tenant deleted", "tenant", t.id)
		i.dooms.mu.Lock()
		pending := maps.Clone(*i.dooms.pending.Load())
		delete(pending, t.id)
		i.dooms.pending.Store(&pending)
		i.dooms.mu.Unlock()
	}
}

// discard closes a tenant and deletes its folder, durably. It waits for who uses it.
func (s *tenants) discard(t *tenantDB) error {
	t.mu.Lock()
	if t.life != nil {
		t.life.end() // a ship that waits for the bucket must not keep it
	}
	t.mu.Unlock()
	if err := t.stop(); err != nil {
		s.log.Warn("deleted tenant closed with errors", "tenant", t.id, "err", err)
	}
	to := filepath.Join(s.cfg.Dir, discardedPrefix+t.id)
	err := os.RemoveAll(to)
	if err == nil {
		err = os.Rename(t.dir, to)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := syncDir(s.cfg.Dir); err != nil {
		return err
	}
	s.mu.Lock()
	delete(s.byID, t.id)
	s.mu.Unlock()
	return os.RemoveAll(to)
}

// finishDiscards deletes what a crash has left of folders that were being deleted.
func finishDiscards(dir string, entries []fs.DirEntry) error {
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), discardedPrefix) {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("delete folder of a deleted tenant: %w", err)
			}
		}
	}
	return nil
}

// noteMade makes the folder of a tenant, unless it is there, and notes when. One that was made before this was noted counts
// as older than any deletion.
func (t *tenantDB) noteMade() error {
	if _, err := os.Stat(t.dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(t.dir, 0o777); err != nil {
		return err
	}
	at := t.set.now().UnixMilli()
	if t.set.finishedAt != nil {
		at = max(at, t.set.finishedAt(t.id)+1) // whatever the clocks say
	}
	return writeDurable(sinceFile(t.dir), []byte(strconv.FormatInt(at, 10)))
}

// madeSince returns when a tenant's folder was made, 0 when nobody has noted it.
func madeSince(dir string) int64 {
	data, err := os.ReadFile(sinceFile(dir))
	if err != nil {
		return 0
	}
	at, err := strconv.ParseInt(string(data), 10, 64)
	if err != nil {
		return 0
	}
	return at
}
