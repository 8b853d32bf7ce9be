package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// List implements Bucket. One folder at a time is held in memory.
func (b *Filesystem) List(ctx context.Context, prefix string, recursive bool, fn func(Object) error) error {
	if err := validatePrefix(prefix); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	dir, name := splitPrefix(prefix)
	if inTempFolder(dir) {
		return nil
	}
	if dir == "" {
		dir = "."
	}
	if err := b.Check(); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	w := walk{b: b, ctx: ctx, recursive: recursive, fn: fn}
	if err := w.folder(dir, name); err != nil {
		return w.explain(prefix, err)
	}
	return nil
}

// walk is one listing.
type walk struct {
	b         *Filesystem
	ctx       context.Context //nolint:containedctx // it lives as long as one call of List
	recursive bool
	fn        func(Object) error
	stopped   error // what fn returned
}

// explain tells the error of the callback, which is passed through, from one of the listing itself.
func (w *walk) explain(prefix string, err error) error {
	if w.stopped != nil {
		return w.stopped
	}
	return fmt.Errorf("list %s: %w", cmp.Or(prefix, "everything"), err)
}

// folder reports what dir holds under names that begin with prefix.
func (w *walk) folder(dir, prefix string) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	entries, err := w.b.readDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		if err := w.entry(path.Join(dir, e.Name()), e); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) entry(key string, e fs.DirEntry) error {
	switch {
	case e.IsDir() && w.recursive:
		return w.folder(key, "")
	case e.IsDir():
		// An empty folder, as a crash may leave one, is no prefix of anything.
		if held, err := w.b.holdsObject(w.ctx, key); err != nil || !held {
			return err
		}
		return w.report(Object{Key: key + "/"})
	case !e.Type().IsRegular():
		return nil
	}
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	return w.report(Object{Key: key, Size: info.Size(), LastModified: info.ModTime()})
}

func (w *walk) report(o Object) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	w.stopped = w.fn(o)
	return w.stopped
}

// readDir returns the entries of a folder in the order of the keys below them, none when it does not exist.
func (b *Filesystem) readDir(dir string) ([]fs.DirEntry, error) {
	f, err := b.root.Open(dir)
	if err != nil {
		return nil, absentIsEmpty(err)
	}
	entries, err := f.ReadDir(-1)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, absentIsEmpty(err)
	}
	if dir == "." {
		entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return e.Name() == tempFolderName })
	}
	// "a-b" sorts before "a/b" and therefore before the folder "a", though "a" is before "a-b".
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(sortName(a), sortName(b)) })
	return entries, nil
}

func absentIsEmpty(err error) error {
	if err = notFound(err); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

func sortName(e fs.DirEntry) string {
	if e.IsDir() {
		return e.Name() + "/"
	}
	return e.Name()
}

// holdsObject reports whether there is an object anywhere below dir.
func (b *Filesystem) holdsObject(ctx context.Context, dir string) (bool, error) {
	w := walk{b: b, ctx: ctx, recursive: true, fn: func(Object) error { return io.EOF }}
	err := w.folder(dir, "")
	if w.stopped != nil {
		return true, nil
	}
	return false, err
}
