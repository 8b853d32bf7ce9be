package membership

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/ring"
)

// noteName is the file that says that a shutdown is prepared, so that a restart in between changes nothing.
const noteName = "prepare-shutdown.json"

// note is the content of the file.
type note struct {
	SinceMs int64 `json:"since_ms"`
}

// Status is how far a prepared shutdown is.
type Status struct {
	Prepared bool `json:"prepared"`
	// SinceMs is when it was asked for, in milliseconds since the Unix epoch.
	SinceMs int64      `json:"since_ms,omitempty"`
	State   ring.State `json:"state"`
	// Emptied says that the bucket has everything and nothing more can come: the process can be stopped, and leaves at once.
	Emptied bool `json:"emptied"`
	// UnshippedTenants are those of which the bucket is not known to have everything.
	UnshippedTenants []string `json:"unshipped_tenants"`
	PushesUnderWay   int      `json:"pushes_under_way"`
	ShippedUpToMs    int64    `json:"shipped_up_to_ms"`
	// Error is what last kept samples from the bucket.
	Error string `json:"error,omitempty"`
}

// Restore reads whether a shutdown was prepared before this start, and then refuses writes from the beginning. Call it
// once, before the ingester can be reached.
func (m *Membership) Restore() error {
	data, err := os.ReadFile(m.note)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var n note
	if err == nil {
		err = json.Unmarshal(data, &n)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w; remove it to begin as an ACTIVE member", m.note, err)
	}
	m.mtx.Lock()
	defer m.mtx.Unlock()
	m.prepared = max(1, n.SinceMs)
	m.ingester.SetReadOnly(true)
	m.log.Info("a shutdown is prepared: no writes are taken", "since", n.SinceMs)
	return nil
}

// Prepare makes the ingester read-only, and everything that it holds goes to the bucket. It may be repeated.
func (m *Membership) Prepare() error {
	m.mtx.Lock()
	defer m.mtx.Unlock()
	if err := m.settled(); err != nil || m.prepared != 0 {
		return err
	}
	n := note{SinceMs: m.now().UnixMilli()}
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := writeDurably(m.note, append(data, '\n')); err != nil {
		return fmt.Errorf("prepare shutdown: %w", err)
	}
	m.prepared = n.SinceMs
	m.member.Update(func(self *ring.Member) { self.State = ring.ReadOnly })
	m.ingester.SetReadOnly(true)
	m.log.Info("shutdown prepared: no writes are taken, everything goes to the bucket")
	select {
	case m.poke <- struct{}{}:
	default:
	}
	return nil
}

// Cancel takes Prepare back. It may be repeated, and is an error once the process is stopping.
func (m *Membership) Cancel() error {
	m.mtx.Lock()
	defer m.mtx.Unlock()
	if err := m.settled(); err != nil || m.prepared == 0 {
		return err
	}
	if err := m.removeNote(); err != nil {
		return fmt.Errorf("cancel shutdown: %w", err)
	}
	m.prepared, m.lastErr = 0, ""
	m.ingester.SetReadOnly(false)
	m.member.Update(func(self *ring.Member) { self.State = ring.Active })
	m.log.Info("prepared shutdown cancelled")
	return nil
}

// settled returns an error unless the member takes part. The caller holds the mutex.
func (m *Membership) settled() error {
	if state := m.member.Self().State; m.leaving || state != ring.Active && state != ring.ReadOnly {
		return errkind.New(errkind.Unavailable, "the member is %s", state)
	}
	return nil
}

func (m *Membership) removeNote() error {
	err := os.Remove(m.note)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(m.note))
}

// Status returns how far a prepared shutdown is.
func (m *Membership) Status() Status {
	tenants, pushes := m.ingester.Unshipped()
	shipped := m.ingester.ShippedUpTo()
	m.mtx.Lock()
	defer m.mtx.Unlock()
	if tenants == nil {
		tenants = []string{}
	}
	return Status{
		Prepared: m.prepared != 0, SinceMs: m.prepared, State: m.member.Self().State,
		Emptied:          m.prepared != 0 && len(tenants) == 0 && pushes == 0,
		UnshippedTenants: tenants, PushesUnderWay: pushes, ShippedUpToMs: shipped, Error: m.lastErr,
	}
}

// ServeHTTP answers /ingester/prepare-shutdown: POST prepares, DELETE takes that back, and all of them, GET included,
// answer with the Status.
func (m *Membership) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var err error
	switch r.Method {
	case http.MethodPost:
		err = m.Prepare()
	case http.MethodDelete:
		err = m.Cancel()
	}
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(errkind.Of(err).HTTPStatus())
		_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()}) // the client is gone when this fails
		return
	}
	_ = json.NewEncoder(w).Encode(m.Status()) // the client is gone when this fails
}

// writeDurably creates or replaces the file so that after a power cut it is there whole, or as it was.
func writeDurably(name string, data []byte) error {
	temp := name + ".tmp"
	f, err := os.Create(temp)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temp, name); err != nil {
		return err
	}
	return syncDir(filepath.Dir(name))
}

func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
