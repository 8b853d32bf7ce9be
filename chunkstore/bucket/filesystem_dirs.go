package bucket

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxDurableDirs bounds the memory of directories; forgetting costs an fsync that was not needed.
const maxDurableDirs = 1 << 14

// directories creates folders durably and removes empty ones, so that neither a crash nor a concurrent removal can take
// a folder away from under an object that was reported as written.
type directories struct {
	root *os.Root

	// mu is held shared while a name is given to a file and exclusively while folders are created or removed. Other
	// processes do not know it; against them within tries again.
	mu      sync.RWMutex
	durable map[string]struct{} // folders whose entry in the parent this process has seen on disk
}

func newDirectories(root *os.Root) *directories {
	return &directories{root: root, durable: map[string]struct{}{}}
}

// within runs fn, which creates a name in dir, with dir there and durable. When another process removes dir meanwhile,
// fn runs again.
func (d *directories) within(dir string, fn func() error) error {
	for {
		if err := d.ensure(dir); err != nil {
			return err
		}
		again, err := d.tryWithin(dir, fn)
		if !again {
			return err
		}
	}
}

func (d *directories) tryWithin(dir string, fn func() error) (again bool, _ error) {
	d.mu.RLock()
	if _, ok := d.durable[dir]; !ok && dir != "." {
		d.mu.RUnlock()
		return true, nil
	}
	err := fn()
	d.mu.RUnlock()
	if !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if _, stat := d.root.Stat(dir); !errors.Is(stat, fs.ErrNotExist) {
		return false, err // it is not the folder that is missing
	}
	d.mu.Lock()
	d.forget(dir)
	d.mu.Unlock()
	return true, nil
}

// ensure creates dir and its parents and makes their names durable.
func (d *directories) ensure(dir string) error {
	d.mu.RLock()
	_, ok := d.durable[dir]
	d.mu.RUnlock()
	if ok || dir == "." {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.durable) > maxDurableDirs {
		clear(d.durable)
	}
	return d.ensureLocked(dir)
}

func (d *directories) ensureLocked(dir string) error {
	for {
		if _, ok := d.durable[dir]; ok || dir == "." {
			return nil
		}
		if err := d.ensureLocked(path.Dir(dir)); err != nil {
			return err
		}
		parent := path.Dir(dir)
		err := d.root.Mkdir(dir, dirMode)
		if err == nil || errors.Is(err, fs.ErrExist) {
			err = d.sync(parent)
		}
		switch {
		case err == nil:
			d.durable[dir] = struct{}{}
		case errors.Is(err, fs.ErrNotExist) && parent != ".":
			d.forget(parent) // another process has removed it
		default:
			return err
		}
	}
}

// forget drops dir and its parents from what is known to be durable.
func (d *directories) forget(dir string) {
	for ; dir != "."; dir = path.Dir(dir) {
		delete(d.durable, dir)
	}
}

// prune removes dir and its parents as far as they are empty and makes the removals durable.
func (d *directories) prune(dir string) error {
	d.mu.Lock()
	for dir != "." && d.unlink(dir, unix.AT_REMOVEDIR) == nil { // the system refuses a folder that is not empty
		delete(d.durable, dir)
		dir = path.Dir(dir)
	}
	d.mu.Unlock()
	err := d.sync(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return nil // somebody else has pruned it, or it never was a folder
	}
	return err
}

// unlink removes a name: with AT_REMOVEDIR an empty folder and nothing else, without it anything but a folder.
// (os.Root.Remove takes whatever is there.)
func (d *directories) unlink(name string, flags int) error {
	parent, err := d.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(unix.Unlinkat(int(parent.Fd()), path.Base(name), flags), parent.Close())
}

// sync makes the names in dir durable.
func (d *directories) sync(dir string) error {
	f, err := d.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
