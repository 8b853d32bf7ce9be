package tlsfiles

import (
	"crypto/tls"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

// lookAgain is how long files of TLS are taken for unchanged, so that a handshake as a rule does not ask the disk.
const lookAgain = time.Second

// Files holds a TLS configuration made of files, and makes it anew when they have changed. When that fails the one before
// stays: half a renewal must not cut a process off. Safe for concurrent use.
type Files struct {
	paths []string
	build func() (*tls.Config, error)
	now   func() time.Time
	log   *slog.Logger

	mu     sync.Mutex
	config *tls.Config
	seen   []fileState
	looked time.Time
}

// fileState tells one content of a file from another.
type fileState struct{ size, changed int64 }

// open reads the files for the first time; an error says what is wrong with them.
func open(paths []string, log *slog.Logger, build func() (*tls.Config, error)) (*Files, error) {
	f := &Files{build: build, now: time.Now, log: log}
	for _, p := range paths {
		if p != "" {
			f.paths = append(f.paths, p)
		}
	}
	f.seen, f.looked = f.states(), f.now()
	var err error
	if f.config, err = build(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *Files) states() []fileState {
	states := make([]fileState, len(f.paths))
	for i, p := range f.paths {
		if info, err := os.Stat(p); err == nil {
			states[i] = fileState{info.Size(), info.ModTime().UnixNano()}
		}
	}
	return states
}

// Current returns the configuration by the files of now. It must not be changed; clone it to add to it.
func (f *Files) Current() *tls.Config {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if now.Sub(f.looked) < lookAgain {
		return f.config
	}
	f.looked = now
	states := f.states()
	if slices.Equal(states, f.seen) {
		return f.config
	}
	config, err := f.build()
	if err != nil {
		f.log.Warn("changed files of TLS cannot be used, those from before stay", "err", err)
		return f.config
	}
	f.log.Info("files of TLS read again", "files", f.paths)
	f.config, f.seen = config, states
	return config
}
