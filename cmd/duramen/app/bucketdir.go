package app

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/duramendb/duramen/chunkstore/bucket/backend"
)

// warnOfEmptyBucket logs that a node which has been used before finds nothing at all in its bucket on the filesystem,
// not even what each start leaves there: a volume that is not mounted looks so. The bucket would be made anew, and every
// query of older data be answered with nothing.
func (a *App) warnOfEmptyBucket() {
	if a.cfg.Bucket.Backend != backend.Filesystem || !a.dataDir.used {
		return
	}
	dir := a.cfg.Bucket.Filesystem.Directory
	if dir == "" {
		dir = a.cfg.bucketDir()
	}
	if nothingIn(dir) {
		a.logger("bucket").Error("the bucket is empty although this node has been used before: older samples are not found; "+
			"is its volume mounted?", "directory", dir)
	}
}

// nothingIn reports whether the directory is missing, or has neither tenants nor what a probe leaves.
func nothingIn(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && e.Name() != "lost+found" {
			return false
		}
	}
	return true
}
