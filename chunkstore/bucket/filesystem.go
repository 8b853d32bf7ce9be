package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"
)

const (
	fileMode = 0o644
	dirMode  = 0o755
)

// Filesystem is a Bucket in a directory of a local disk: the key is the path below it. An object is durable, its
// directories included, when the Put that wrote it returns. Network filesystems are not supported, for they do not keep
// the promises about link, rename and fsync on which this rests.
//
// A name is a file or a folder, never both: a Put of "a/b" fails while there is an object "a".
type Filesystem struct {
	dir  string
	root *os.Root // no path below it can lead out, not even through a symbolic link
	temp *tempFolder
	dirs *directories
}

// NewFilesystem opens the bucket in dir, which is created when missing, and removes what an earlier process left
// half-written. Several processes may have the same directory open.
func NewFilesystem(dir string) (*Filesystem, error) {
	root, err := openRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open bucket: %w", err)
	}
	temp, err := openTempFolder(root)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open bucket %s: %w", dir, err), root.Close())
	}
	return &Filesystem{dir: dir, root: root, temp: temp, dirs: newDirectories(root)}, nil
}

func openRoot(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, err
	}
	if parent, err := os.Open(filepath.Dir(filepath.Clean(dir))); err == nil {
		// Best effort: the parent may be a mount point of somebody else's that we may not even read.
		_ = parent.Sync()
		_ = parent.Close()
	}
	return os.OpenRoot(dir)
}

// Close releases the directory. Calls that are still running fail; what they wrote last has an unknown outcome.
func (b *Filesystem) Close() error { return errors.Join(b.temp.close(), b.root.Close()) }

// Name implements Bucket.
func (b *Filesystem) Name() string { return "filesystem " + b.dir }

// Check reports whether the directory is still at its path. Every operation asks it first: the directory is held open, and
// one that was deleted would read as empty and take blocks with it that are then deleted elsewhere.
func (b *Filesystem) Check() error {
	opened, err := b.root.Stat(".")
	if err != nil {
		return fmt.Errorf("bucket directory %s: %w", b.dir, err)
	}
	found, err := os.Stat(b.dir)
	if err != nil {
		// The cause is told and not wrapped: it must not pass for an object that does not exist.
		return fmt.Errorf("bucket directory %s is not there any more: %s", b.dir, err.Error())
	}
	if !os.SameFile(opened, found) {
		return fmt.Errorf("bucket directory %s was replaced by another while it was in use: put the former back or "+
			"restart", b.dir)
	}
	return nil
}

// Get implements Bucket.
func (b *Filesystem) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	f, err := b.open(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return newBody(ctx, f, f), nil
}

// GetRange implements Bucket.
func (b *Filesystem) GetRange(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	if err := checkRange(off, length); err != nil {
		return nil, fmt.Errorf("get range of %s: %w", key, err)
	}
	f, err := b.open(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("get range of %s: %w", key, err)
	}
	return newBody(ctx, io.NewSectionReader(f, off, length), f), nil
}

// Stat implements Bucket.
func (b *Filesystem) Stat(ctx context.Context, key string) (Object, error) {
	info, err := b.stat(ctx, key)
	if err != nil {
		return Object{}, fmt.Errorf("stat %s: %w", key, err)
	}
	return Object{Key: key, Size: info.Size(), LastModified: info.ModTime()}, nil
}

// Put implements Bucket: temporary file, fsync, rename, fsync of the directory.
func (b *Filesystem) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	err := b.create(ctx, key, func(f *os.File) error { return copyExactly(ctx, f, r, size) }, b.root.Rename)
	if err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	return nil
}

// PutIfAbsent implements Bucket: as Put, but link(2) in place of rename, which fails when the name is taken.
func (b *Filesystem) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	write := func(f *os.File) error {
		_, err := f.Write(data)
		return err
	}
	err := b.create(ctx, key, write, b.root.Link)
	if errors.Is(err, fs.ErrExist) {
		// Whoever lost builds on the winner's object: it has to be durable before that.
		err = errors.Join(ErrExists, b.dirs.sync(path.Dir(key)))
	}
	if err != nil {
		return fmt.Errorf("put %s if absent: %w", key, err)
	}
	return nil
}

// create writes a temporary file and gives it its name by publish, which is rename or link.
func (b *Filesystem) create(
	ctx context.Context, key string, write func(*os.File) error, publish func(temp, key string) error,
) error {
	if err := b.check(ctx, key); err != nil {
		return err
	}
	temp, err := b.temp.write(write)
	if err != nil {
		return err
	}
	defer b.temp.remove(temp)
	if err := ctx.Err(); err != nil {
		return err
	}
	dir := path.Dir(key)
	if err := b.dirs.within(dir, func() error { return publish(temp, key) }); err != nil {
		return err
	}
	if err := b.dirs.sync(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil // somebody has deleted the new object already, and its folder with it
}

// Delete implements Bucket. Folders that become empty go as well; all of it is durable on return.
func (b *Filesystem) Delete(ctx context.Context, keys ...string) error {
	touched := map[string]struct{}{}
	var err error
	for _, key := range keys {
		if err = b.remove(ctx, key); err != nil {
			err = fmt.Errorf("delete %s: %w", key, err)
			break
		}
		touched[path.Dir(key)] = struct{}{}
	}
	for dir := range touched {
		if prune := b.dirs.prune(dir); prune != nil {
			err = errors.Join(err, fmt.Errorf("delete from %s: %w", dir, prune))
		}
	}
	return err
}

func (b *Filesystem) remove(ctx context.Context, key string) error {
	if err := b.check(ctx, key); err != nil {
		return err
	}
	err := b.dirs.unlink(key, 0)
	if errors.Is(err, syscall.EISDIR) || errors.Is(err, syscall.EPERM) && b.isFolder(key) {
		return nil // POSIX has unlink(2) of a folder fail with EPERM, Linux with EISDIR
	}
	if err = notFound(err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

func (b *Filesystem) isFolder(key string) bool {
	info, err := b.root.Stat(key)
	return err == nil && info.IsDir()
}

// check says whether key may be touched.
func (b *Filesystem) check(ctx context.Context, key string) error {
	if err := ValidateKey(key); err != nil {
		return err
	}
	if inTempFolder(key) {
		return fmt.Errorf("%w %q: %s belongs to the bucket itself", ErrInvalidKey, key, tempFolderName)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return b.Check()
}

func (b *Filesystem) open(ctx context.Context, key string) (*os.File, error) {
	if err := b.check(ctx, key); err != nil {
		return nil, err
	}
	f, err := b.root.Open(key)
	if err != nil {
		return nil, notFound(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = ErrNotFound
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (b *Filesystem) stat(ctx context.Context, key string) (fs.FileInfo, error) {
	if err := b.check(ctx, key); err != nil {
		return nil, err
	}
	info, err := b.root.Stat(key)
	if err == nil && !info.Mode().IsRegular() {
		err = ErrNotFound
	}
	return info, notFound(err)
}

// notFound turns what the system says about a missing file, or about one in the place of a folder, into ErrNotFound.
func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
		return ErrNotFound
	}
	return err
}
