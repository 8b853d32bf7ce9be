package backfill

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/internal/cli"
)

// maxRange is the longest range of a block that is taken without a word.
const maxRange = 24 * time.Hour

// local is a block on the local disk.
type local struct {
	dir   string
	meta  *block.Meta
	bytes int64
}

func (l local) id() ulid.ULID { return l.meta.ULID }

// finding is what the directories hold.
type finding struct {
	blocks []local  // by time
	notes  []string // what the user should know
	wrong  []error  // blocks that cannot be sent
}

// find looks for blocks in directories, each of them a block itself or a folder of some.
func find(dirs []string) (finding, error) {
	var f finding
	seen := map[ulid.ULID]bool{}
	for _, dir := range dirs {
		folders, err := folders(dir)
		if err != nil {
			return f, err
		}
		if _, err := os.Stat(filepath.Join(dir, "wal")); err == nil {
			f.notes = append(f.notes, fmt.Sprintf("%s is the data of a Prometheus: its newest hours are in its log and in no block yet", dir))
		}
		for _, folder := range folders {
			f.add(folder, seen)
		}
	}
	f.withoutReplaced()
	slices.SortFunc(f.blocks, func(a, b local) int {
		return cmp.Or(cmp.Compare(a.meta.MinTime, b.meta.MinTime), bytes.Compare(a.meta.ULID[:], b.meta.ULID[:]))
	})
	for _, b := range f.blocks {
		if d := time.Duration(b.meta.MaxTime-b.meta.MinTime) * time.Millisecond; d > maxRange {
			f.notes = append(f.notes, fmt.Sprintf("block %s covers %s: it is taken as it is, and is never split", b.id(),
				d.Round(time.Hour)))
		}
	}
	return f, nil
}

// folders returns the folders of blocks that a directory names.
func folders(dir string) ([]string, error) {
	abs, err := filepath.Abs(dir) // for the base name of "."
	if err != nil {
		return nil, err
	}
	if _, err := ulid.ParseStrict(filepath.Base(abs)); err == nil {
		_, err := os.Stat(filepath.Join(abs, block.MetaName))
		return []string{abs}, err
	}
	entries, err := os.ReadDir(abs)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err == nil {
			found = append(found, filepath.Join(abs, e.Name()))
		}
	}
	if len(found) == 0 {
		return nil, cli.Usagef("%s is no block and has none: a block is a folder whose name is a ULID", dir)
	}
	return found, nil
}

func (f *finding) add(folder string, seen map[ulid.ULID]bool) {
	meta, err := block.ReadMeta(folder)
	if err != nil {
		f.wrong = append(f.wrong, err)
		return
	}
	if seen[meta.ULID] {
		return
	}
	seen[meta.ULID] = true
	l := local{dir: folder, meta: meta}
	err = filepath.WalkDir(folder, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			l.bytes += info.Size()
		}
		return err
	})
	if err != nil {
		f.wrong = append(f.wrong, fmt.Errorf("block %s: %w", meta.ULID, err))
		return
	}
	f.blocks = append(f.blocks, l)
}

// withoutReplaced leaves out the blocks of which another one was made that is here, too. A Prometheus deletes them soon.
func (f *finding) withoutReplaced() {
	replaced := map[ulid.ULID]bool{}
	for _, b := range f.blocks {
		for _, parent := range b.meta.Compaction.Parents {
			replaced[parent.ULID] = true
		}
	}
	f.blocks = slices.DeleteFunc(f.blocks, func(b local) bool {
		gone := replaced[b.id()] || b.meta.Compaction.Deletable
		if gone {
			f.notes = append(f.notes, fmt.Sprintf("block %s is left out: another block was made of it", b.id()))
		}
		return gone
	})
}

// errTombstones is what keeps a block with deleted samples from being sent.
var errTombstones = errors.New("it has deleted samples, which would come back: have its Prometheus remove them " +
	"(POST /api/v1/admin/tsdb/clean_tombstones, with --web.enable-admin-api), and upload the block that it makes")
