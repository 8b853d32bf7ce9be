package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sys/unix"
)

const (
	lockName     = "lock"
	instanceName = "instance.json"
)

// dataDir is the directory of everything on local disk, locked for this process.
type dataDir struct {
	path     string
	lock     *os.File
	instance instance
	used     bool // it was there before this start
}

// instance is who keeps its data here. It is made up once, when the directory is new, so that a disk that was replaced
// can be told from one that came back.
type instance struct {
	StorageID string `json:"storage_id"`
	// Place is where in a cluster an ingester with this directory takes part; nil before it did, and after it left.
	Place *place `json:"place,omitempty"`
}

// openDataDir creates the directory when it is missing and locks it. A second process gets an error that says who holds
// the lock. The lock ends with the process, however it ends.
func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	lock, err := lockDir(path)
	if err != nil {
		return nil, err
	}
	d := &dataDir{path: path, lock: lock}
	name := filepath.Join(path, instanceName)
	if _, err := os.Stat(name); err == nil {
		d.used = true
	}
	if d.instance, err = openInstance(name); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func lockDir(path string) (*os.File, error) {
	name := filepath.Join(path, lockName)
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 64)) // for the message only
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("data directory %s is in use by another process (%s, lock file %s): stop it, or set "+
				"another -data-dir", path, strings.TrimSpace(string(holder)), name)
		}
		return nil, fmt.Errorf("lock data directory %s: %w", path, err)
	}
	// What stands in the file is for people; the lock is the kernel's.
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(fmt.Appendf(nil, "pid %d\n", os.Getpid()), 0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock data directory: %w", err), f.Close())
	}
	return f, nil
}

func (d *dataDir) close() error { return d.lock.Close() }

// openInstance reads the file, or creates it durably.
func openInstance(name string) (instance, error) {
	var i instance
	data, err := os.ReadFile(name)
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &i); err != nil {
			return i, fmt.Errorf("read %s: %w", name, err)
		}
		if i.StorageID == "" {
			return i, fmt.Errorf("read %s: storage_id is missing; restore the file, or delete it for a new identity", name)
		}
		return i, nil
	case !errors.Is(err, os.ErrNotExist):
		return i, fmt.Errorf("read instance: %w", err)
	}
	i.StorageID = ulid.Make().String()
	if data, err = json.Marshal(i); err != nil {
		return i, err
	}
	return i, writeDurably(name, append(data, '\n'))
}

// writeDurably creates the file so that after a power cut it is there whole, or not at all.
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
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
