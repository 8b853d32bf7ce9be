package ingester

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/tsdb/wlog"
)

// idleMarker is a file that says: everything of this tenant is in blocks, a start need not open it.
func idleMarker(dir string) string { return filepath.Join(dir, "idle") }

// discardFolder is where logs lie for a moment before they are deleted.
func discardFolder(dir string) string { return filepath.Join(dir, "discarded") }

// discardLogs deletes the write logs and head chunks of a closed tenant that has everything in blocks. Left in place they
// would be replayed once the blocks are deleted, for stock knows from them alone what the logs repeat, and be cut and
// shipped again. They are moved away first, so that a crash leaves each of them whole or gone.
func discardLogs(dir string) error {
	to := discardFolder(dir)
	if err := os.Mkdir(to, 0o777); err != nil {
		return fmt.Errorf("discard logs: %w", err)
	}
	// The order matters: logs without their head chunks replay in full, head chunks without their logs are ignored.
	for _, name := range []string{"chunks_head", wlog.WblDirName, walDirName} {
		err := os.Rename(filepath.Join(dir, name), filepath.Join(to, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("discard logs: %w", err)
		}
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	return os.RemoveAll(to)
}

// markIdle notes that a start need not open the tenant.
func markIdle(dir string) error {
	if err := writeDurable(idleMarker(dir), nil); err != nil {
		return fmt.Errorf("mark %s idle: %w", dir, err)
	}
	return nil
}

// unmarkIdle undoes markIdle, durably, before anything is written, and finishes an interrupted discardLogs.
func unmarkIdle(dir string) error {
	if err := os.RemoveAll(discardFolder(dir)); err != nil {
		return fmt.Errorf("open idle tenant: %w", err)
	}
	err := os.Remove(idleMarker(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("unmark %s idle: %w", dir, err)
	}
	return nil
}

func isIdle(dir string) bool {
	_, err := os.Stat(idleMarker(dir))
	return err == nil
}
