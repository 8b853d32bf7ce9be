package compaction

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/faultproxy"
)

// place is where a job is held until its process is killed.
type place struct {
	name    string
	at      func(w *world, r faultproxy.Request) bool
	applied bool // the store does what is asked, and the answer is held
}

// outputFile tells whether a request puts a file of a block that a compactor makes.
func outputFile(name string) func(w *world, r faultproxy.Request) bool {
	return func(w *world, r faultproxy.Request) bool {
		parts := strings.Split(r.Key, "/")
		if r.Operation != faultproxy.PutObject || len(parts) < 3 || parts[0] != tenantID {
			return false
		}
		id, err := ulid.ParseStrict(parts[1])
		return err == nil && !w.isInput(id) && strings.HasPrefix(strings.Join(parts[2:], "/"), name)
	}
}

func manifestVersion(_ *world, r faultproxy.Request) bool {
	return r.Operation == faultproxy.PutObject && strings.HasPrefix(r.Key, tenantID+"/duramen/manifest/")
}

var places = []place{
	{"chunks are written", outputFile("chunks/"), false},
	{"the index is written", outputFile("index"), true},
	{"meta.json is written", outputFile("meta.json"), false},
	{"meta.json was written", outputFile("meta.json"), true},
	{"the manifest is about to change", manifestVersion, false},
	{"the manifest has changed", manifestVersion, true},
}

// holdAt has the proxy hold the first request that is at the place, until the process is gone. held is closed then.
func (w *world) holdAt(p place) (held chan struct{}) {
	held = make(chan struct{})
	var once sync.Once
	hold := faultproxy.Func("hold", func(rw http.ResponseWriter, r *http.Request, forward http.Handler) {
		if p.applied {
			faultproxy.Recorded(r, forward)
		} else {
			_, _ = io.Copy(io.Discard, r.Body)
		}
		once.Do(func() { close(held) })
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	})
	w.proxy.SetPlan(func(r faultproxy.Request) faultproxy.Fault {
		if p.at(w, r) {
			return hold
		}
		return faultproxy.Pass()
	})
	return held
}

// TestKilledWhileItCompacts kills the process with SIGKILL at each place in turn. Another process answers all the while, and
// always the same; the last life brings everything to its end.
func TestKilledWhileItCompacts(t *testing.T) {
	w := newWorld(t)
	want, err := w.answer(t.Context())
	require.NoError(t, err)
	require.NotEmpty(t, want)
	stop := w.readOn(want)
	for _, p := range places {
		held := w.holdAt(p)
		node := w.compactor()
		select {
		case <-held:
		case <-time.After(patience):
			t.Fatalf("no job came to where %s:\n%s", p.name, node.LogTail(3000))
		}
		node.Kill()
		w.proxy.Heal()
	}
	node := w.compactor()
	output := w.compacted()
	n, err := stop()
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, len(places))
	after, err := w.answer(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, after)
	t.Logf("%d answers while %d processes were killed", n, len(places))
	w.checkTools(output)
	w.checkPeerFiles(output)
	require.NoError(t, node.Terminate(patience))
}

// TestChaos kills the process after a random number of requests, of which some fail, while more blocks of the same day arrive
// that change no answer.
func TestChaos(t *testing.T) {
	if *duration == 0 {
		t.Skip("runs for -e2e.duration")
	}
	w := newWorld(t)
	want, err := w.answer(t.Context())
	require.NoError(t, err)
	stop := w.readOn(want)
	kills := 0
	for begin := time.Now(); time.Since(begin) < *duration; kills++ {
		limit := w.rnd.IntN(150)
		w.proxy.Heal()
		if w.rnd.IntN(2) == 0 {
			w.proxy.SetPlan(faultproxy.Seeded(w.rnd.Uint64(), 0.05, 0.1))
		}
		node := w.compactor()
		deadline := time.Now().Add(3 * time.Second) // it may have nothing more to do
		require.Eventually(t, func() bool {
			return w.proxy.Total() >= limit || time.Now().After(deadline)
		}, patience, time.Millisecond)
		node.Kill()
		w.again()
	}
	w.proxy.Heal()
	w.compactor()
	output := w.compacted()
	n, err := stop()
	require.NoError(t, err)
	t.Logf("%d answers while %d processes were killed", n, kills)
	w.checkTools(output)
}
