package merge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/duramendb/duramen/chunkstore/rawblock"
	"github.com/duramendb/duramen/internal/errkind"
)

// scratchPrefix begins the name of each folder that a job has in the scratch folder.
const scratchPrefix = "merge-"

// Sweep deletes what killed processes left in the scratch folder. No job may be running in it.
func Sweep(cfg Config) error {
	entries, err := os.ReadDir(cfg.Scratch)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return disk(fmt.Errorf("sweep scratch folder: %w", err))
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), scratchPrefix) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(cfg.Scratch, e.Name())))
		}
	}
	if err != nil {
		return disk(fmt.Errorf("sweep scratch folder: %w", err))
	}
	return nil
}

// scratch makes an empty folder for a job.
func scratch(cfg Config, job *Job) (string, error) {
	dir := filepath.Join(cfg.Scratch, scratchPrefix+job.ULID.String())
	if err := os.RemoveAll(dir); err != nil {
		return "", disk(err)
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", disk(err)
	}
	return dir, nil
}

// folderBytes returns the size of all files in a folder.
func folderBytes(dir string) (bytes int64) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		bytes += fileBytes(filepath.Join(dir, e.Name()))
	}
	return bytes
}

// fileBytes returns the size of a file, 0 when there is none.
func fileBytes(name string) int64 {
	info, err := os.Stat(name)
	if err != nil {
		return 0
	}
	return info.Size()
}

// readContents reads the table of contents of an index on the disk.
func readContents(name string, size int64) (t rawblock.Contents, err error) {
	f, err := os.Open(name)
	if err != nil {
		return t, err
	}
	tail := make([]byte, rawblock.ContentsBytes)
	_, err = f.ReadAt(tail, size-rawblock.ContentsBytes)
	if err := errors.Join(err, f.Close()); err != nil {
		return t, err
	}
	return rawblock.ParseContents(tail, size)
}

// disk gives an error of the local disk its kind: there may be room later.
func disk(err error) error {
	var kinded *errkind.Error
	if err == nil || errors.As(err, &kinded) {
		return err
	}
	return errkind.Wrap(errkind.Unavailable, err)
}

// unavailable gives an error of the bucket its kind, unless ctx has ended.
func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var kinded *errkind.Error
	if err == nil || errors.As(err, &kinded) {
		return err
	}
	return errkind.Wrap(errkind.Unavailable, err)
}
