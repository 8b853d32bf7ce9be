package bucket

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// tempFolderName holds files while they are written. Listings skip it and no key may begin with it. It cannot be a
	// tenant's folder, because "~" is in no tenant ID.
	tempFolderName = ".temp~"

	tempLockName = tempFolderName + "/lock"

	// tempMaxAge is when an unfinished file is taken for litter although other processes have the bucket open. A file
	// that is being written has a young time of modification, however long it takes in all.
	tempMaxAge = 24 * time.Hour
)

// tempFolder is where objects are written before they get their name. Every process that has the bucket open holds a
// shared lock on it, so that the first one to come, and only that one, may sweep it.
type tempFolder struct {
	root *os.Root
	lock *os.File
}

func inTempFolder(key string) bool {
	return key == tempFolderName || strings.HasPrefix(key, tempFolderName+"/")
}

func openTempFolder(root *os.Root) (*tempFolder, error) {
	if err := root.Mkdir(tempFolderName, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	lock, err := root.OpenFile(tempLockName, os.O_CREATE|os.O_RDWR, fileMode)
	if err != nil {
		return nil, err
	}
	t := &tempFolder{root: root, lock: lock}
	if err := t.sweep(); err != nil {
		return nil, errors.Join(fmt.Errorf("sweep %s: %w", tempFolderName, err), lock.Close())
	}
	return t, nil
}

// sweep removes what processes that died have left behind and ends with a shared lock in hand.
func (t *tempFolder) sweep() error {
	age := tempMaxAge
	if err := t.flock(unix.LOCK_EX | unix.LOCK_NB); err == nil {
		age = 0 // nobody else is here
	} else if !errors.Is(err, unix.EWOULDBLOCK) {
		return err
	}
	folder, err := t.root.Open(tempFolderName)
	if err != nil {
		return err
	}
	entries, err := folder.ReadDir(-1)
	if err := errors.Join(err, folder.Close()); err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(tempFolderName, e.Name())
		info, err := e.Info()
		if name == tempLockName || err != nil || time.Since(info.ModTime()) < age {
			continue // an error means that the file went away meanwhile
		}
		if err := t.root.RemoveAll(name); err != nil {
			return err
		}
	}
	return t.flock(unix.LOCK_SH)
}

func (t *tempFolder) flock(how int) error {
	for {
		err := unix.Flock(int(t.lock.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// write creates a file, lets fn fill it and makes its content durable. It returns the file's path.
func (t *tempFolder) write(fn func(*os.File) error) (string, error) {
	name := fmt.Sprintf("%s/%016x%016x", tempFolderName, rand.Uint64(), rand.Uint64())
	f, err := t.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
	if err != nil {
		return "", err
	}
	err = fn(f)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		t.remove(name)
		return "", err
	}
	return name, nil
}

// remove drops a temporary name, which a rename has taken away already. What cannot be removed is swept at the next
// start.
func (t *tempFolder) remove(name string) { _ = t.root.Remove(name) }

func (t *tempFolder) close() error { return t.lock.Close() }
