package querier

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/tombstone"
)

// remembered keeps on disk what manifests say of samples that ingesters hold: what was deleted of them, and lost. With it a
// process that starts while the bucket is away goes on to hide what was deleted. There is a small file for each tenant that
// was queried. One that cannot be written or read is as none: it costs what it is for, and no query. Safe for concurrent use.
type remembered struct {
	dir string // "" keeps nothing
	log *slog.Logger

	mu sync.Mutex
	// onDisk is what the files say, as far as they were looked at.
	onDisk map[string]noted
}

// touchEvery is how often a file whose note is still right gets the time of it.
const touchEvery = time.Minute

// noted is a file: its note, nil where there is none, and the version of the manifest that it is of, 0 for one of an earlier
// life. That one is not compared with: it may be of another bucket.
type noted struct {
	note    *note
	version uint64
	at      time.Time // when the manifest last said so, to touchEvery; by the file's time
}

// note is what a file holds.
type note struct {
	Deletions []manifest.Deletion  `json:"deletions,omitempty"`
	Lost      []manifest.LostRange `json:"lost,omitempty"`
}

func newRemembered(dir string, log *slog.Logger) *remembered {
	return &remembered{dir: dir, log: log, onDisk: map[string]noted{}}
}

func (r *remembered) file(tenantID string) string { return filepath.Join(r.dir, tenantID+".json") }

// keep notes what a manifest says, when that is not noted yet. One older than what was kept in this life is that of a look
// which ended late, and says nothing new.
func (r *remembered) keep(tenantID string, m *manifest.Manifest) {
	if r.dir == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	file := r.look(tenantID)
	if m.Version < file.version {
		return
	}
	before, now := file.note, &note{Deletions: m.Deletions, Lost: m.Lost}
	if m.Version == 0 || m.Deleting() { // of names that are made up, and of tenants that go, nothing is kept
		now = nil
	}
	at := time.Now()
	switch {
	case !reflect.DeepEqual(before, now):
		if err := r.write(tenantID, now); err != nil {
			r.log.Warn("what was deleted of a tenant's recent samples cannot be kept", "tenant", tenantID, "err", err)
			return
		}
	case now == nil:
	case file.version > 0 && at.Sub(file.at) < touchEvery:
		at = file.at
	default:
		if err := os.Chtimes(r.file(tenantID), at, at); err != nil {
			at = file.at // no harm: it is called older than it is
		}
	}
	r.onDisk[tenantID] = noted{now, m.Version, at}
}

// recall returns a manifest of what is noted of a tenant, and when that was so; nil when nothing is.
func (r *remembered) recall(tenantID string) (m *manifest.Manifest, at time.Time) {
	if r.dir == "" {
		return nil, time.Time{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	file := r.look(tenantID)
	if file.note == nil {
		return nil, time.Time{}
	}
	return &manifest.Manifest{Tenant: tenantID, Deletions: file.note.Deletions, Lost: file.note.Lost}, file.at
}

// look returns what a tenant's file holds. The caller holds mu.
func (r *remembered) look(tenantID string) noted {
	if n, ok := r.onDisk[tenantID]; ok {
		return n
	}
	n, at, err := r.read(tenantID)
	if err != nil {
		r.log.Warn("what was deleted of a tenant's recent samples cannot be read", "tenant", tenantID, "err", err)
	}
	if len(r.onDisk) >= mostKnown {
		clear(r.onDisk) // rare, and read again
	}
	r.onDisk[tenantID] = noted{note: n, at: at}
	return r.onDisk[tenantID]
}

func (r *remembered) read(tenantID string) (_ *note, at time.Time, _ error) {
	data, err := os.ReadFile(r.file(tenantID))
	if errors.Is(err, os.ErrNotExist) {
		return nil, at, nil
	}
	if err != nil {
		return nil, at, err
	}
	var n note
	if err := json.Unmarshal(data, &n); err != nil {
		return nil, at, fmt.Errorf("%s: %w", r.file(tenantID), err)
	}
	if _, err := tombstone.New(n.Deletions); err != nil {
		return nil, at, fmt.Errorf("%s: %w", r.file(tenantID), err)
	}
	info, err := os.Stat(r.file(tenantID))
	if err != nil {
		return nil, at, err
	}
	return &n, info.ModTime(), nil
}

// write replaces a tenant's file, or removes it. After a power cut there is the old one, the new one, or, when it says that
// nothing was deleted, one that cannot be read.
func (r *remembered) write(tenantID string, n *note) error {
	name := r.file(tenantID)
	if n == nil {
		if err := os.Remove(name); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	}
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		return err
	}
	f, err := os.Create(name + ".tmp")
	if err != nil {
		return err
	}
	_, err = f.Write(append(data, '\n'))
	if err == nil && len(n.Deletions)+len(n.Lost) > 0 {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(name+".tmp", name)
}
