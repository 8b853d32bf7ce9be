package ingester

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
)

const (
	quarantineDirName = "quarantine"
	quarantineSuffix  = ".json"
	blockMetaName     = "meta.json"
	blockIndexName    = "index"
)

// blockDirs lists the folders of a tenant that are named like a block.
func blockDirs(dir string) (map[ulid.ULID]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	out := map[ulid.ULID]string{}
	for _, e := range entries {
		if id, err := ulid.ParseStrict(e.Name()); err == nil && e.IsDir() {
			out[id] = filepath.Join(dir, e.Name())
		}
	}
	return out, nil
}

// quarantineBadBlocks checks each block folder by itself and moves those that cannot be read to the quarantine folder.
// Stock would refuse to open the tenant for one of them, or skip a block without a sound meta.json in silence.
func quarantineBadBlocks(ctx context.Context, dir string, deep bool, log *slog.Logger) error {
	blocks, err := blockDirs(dir)
	if err != nil {
		return err
	}
	for id, blockDir := range blocks {
		if err := ctx.Err(); err != nil {
			return err
		}
		reason := checkBlock(ctx, blockDir, id, deep)
		if reason == nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := quarantine(dir, id, blockDir, reason); err != nil {
			return fmt.Errorf("quarantine block %s: %w", id, err)
		}
		log.Error("block quarantined", "block", id, "dir", dir, "err", reason)
	}
	return nil
}

// quarantine moves one block. The reason is on disk before the block moves, so that no crash leaves a block without
// one.
func quarantine(dir string, id ulid.ULID, blockDir string, reason error) error {
	q := quarantinedBlock{ULID: id, MinTime: math.MinInt64, MaxTime: math.MaxInt64, Reason: reason.Error()}
	if mint, maxt, ok := readBlockRange(blockDir); ok {
		q.MinTime, q.MaxTime, q.Known = mint, maxt, true
	}
	data, err := json.Marshal(q)
	if err != nil {
		return err
	}
	to := filepath.Join(dir, quarantineDirName)
	if err := os.MkdirAll(to, 0o777); err != nil {
		return err
	}
	if err := writeDurable(filepath.Join(to, id.String()+quarantineSuffix), data); err != nil {
		return err
	}
	if err := os.Rename(blockDir, filepath.Join(to, id.String())); err != nil {
		return err
	}
	return errors.Join(syncDir(to), syncDir(dir))
}

// quarantined lists all blocks in the quarantine folder, of this open and of earlier ones.
func quarantined(dir string) ([]quarantinedBlock, error) {
	dir = filepath.Join(dir, quarantineDirName)
	blocks, err := blockDirs(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make([]quarantinedBlock, 0, len(blocks))
	for id, blockDir := range blocks {
		q := quarantinedBlock{MinTime: math.MinInt64, MaxTime: math.MaxInt64, Reason: "reason unknown"}
		data, err := os.ReadFile(blockDir + quarantineSuffix)
		if err == nil {
			err = json.Unmarshal(data, &q)
		}
		if err != nil {
			q.Known, q.MinTime, q.MaxTime = false, math.MinInt64, math.MaxInt64
		}
		q.ULID, q.Dir = id, blockDir
		out = append(out, q)
	}
	return out, nil
}

// checkBlock opens a block as stock does; with deep it also reads every posting list, series and chunk, each of which
// carries a checksum, and compares their numbers with meta.json.
func checkBlock(ctx context.Context, blockDir string, id ulid.ULID, deep bool) (err error) {
	defer recoverBroken(&err)()
	b, err := tsdb.OpenBlock(slog.New(slog.DiscardHandler), blockDir, nil, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	meta := b.Meta()
	if meta.ULID != id {
		return fmt.Errorf("%s names block %s", blockMetaName, meta.ULID)
	}
	if meta.MinTime >= meta.MaxTime {
		return fmt.Errorf("%s says that the block ends at %d and begins at %d", blockMetaName, meta.MaxTime, meta.MinTime)
	}
	if !deep {
		return nil
	}
	return readWholeBlock(ctx, b, meta.Stats)
}

// recoverBroken turns a panic of stock's readers over broken bytes, or a fault in a mapped file that the disk refuses
// to read, into an error. It is called at the start of a function, and what it returns is deferred.
func recoverBroken(err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		if r := recover(); r != nil {
			*err = errors.Join(*err, fmt.Errorf("reader failed: %v", r))
		}
	}
}

func readWholeBlock(ctx context.Context, b *tsdb.Block, want tsdb.BlockStats) error {
	ir, err := b.Index()
	if err != nil {
		return err
	}
	cr, err := b.Chunks()
	if err != nil {
		return errors.Join(err, ir.Close())
	}
	got, err := readSeries(ctx, ir, cr)
	if err == nil {
		err = readPostings(ctx, ir)
	}
	if err = errors.Join(err, ir.Close(), cr.Close()); err != nil {
		return err
	}
	if got.NumSeries != want.NumSeries || got.NumChunks != want.NumChunks || got.NumSamples != want.NumSamples {
		return fmt.Errorf("block has %d series, %d chunks, %d samples; %s says %d, %d, %d", got.NumSeries, got.NumChunks,
			got.NumSamples, blockMetaName, want.NumSeries, want.NumChunks, want.NumSamples)
	}
	return nil
}

func readSeries(ctx context.Context, ir tsdb.IndexReader, cr tsdb.ChunkReader) (got tsdb.BlockStats, err error) {
	name, value := index.AllPostingsKey()
	p, err := ir.Postings(ctx, name, value)
	if err != nil {
		return got, err
	}
	var metas []chunks.Meta
	var lset labels.ScratchBuilder
	for p.Next() {
		if got.NumSeries++; got.NumSeries%1024 == 0 && ctx.Err() != nil {
			return got, ctx.Err()
		}
		if err := ir.Series(p.At(), &lset, &metas); err != nil {
			return got, fmt.Errorf("series %d: %w", p.At(), err)
		}
		for _, m := range metas {
			n, err := readChunk(cr, m)
			if err != nil {
				return got, fmt.Errorf("chunk %x of series %d: %w", uint64(m.Ref), p.At(), err)
			}
			got.NumChunks++
			got.NumSamples += uint64(n)
		}
	}
	return got, p.Err()
}

func readChunk(cr tsdb.ChunkReader, m chunks.Meta) (samples int, err error) {
	c, it, err := cr.ChunkOrIterable(m)
	if err != nil {
		return 0, err
	}
	if it != nil || c.Encoding() == chunkenc.EncNone {
		return 0, errors.New("no chunk")
	}
	return c.NumSamples(), nil
}

// readPostings opens each posting list; that verifies its checksum.
func readPostings(ctx context.Context, ir tsdb.IndexReader) error {
	names, err := ir.LabelNames(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		values, err := ir.LabelValues(ctx, name, &storage.LabelHints{})
		if err != nil {
			return fmt.Errorf("values of label %q: %w", name, err)
		}
		for i, value := range values {
			if i%1024 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			if _, err := ir.Postings(ctx, name, value); err != nil {
				return fmt.Errorf("postings of %q=%q: %w", name, strings.ToValidUTF8(value, "?"), err)
			}
		}
	}
	return nil
}

// readBlockRange returns the time range of a block that may be broken: from its meta.json, else from its index.
func readBlockRange(blockDir string) (mint, maxt int64, ok bool) {
	var meta tsdb.BlockMeta
	data, err := os.ReadFile(filepath.Join(blockDir, blockMetaName))
	if err == nil && json.Unmarshal(data, &meta) == nil && meta.MinTime < meta.MaxTime {
		return meta.MinTime, meta.MaxTime, true
	}
	mint, maxt, err = indexRange(filepath.Join(blockDir, blockIndexName))
	return mint, maxt, err == nil && mint < maxt
}

func indexRange(path string) (mint, maxt int64, err error) {
	defer recoverBroken(&err)()
	ir, err := index.NewFileReader(path, index.DecodePostingsRaw)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, ir.Close()) }()
	name, value := index.AllPostingsKey()
	p, err := ir.Postings(context.Background(), name, value)
	if err != nil {
		return 0, 0, err
	}
	mint, maxt = math.MaxInt64, math.MinInt64
	var metas []chunks.Meta
	var lset labels.ScratchBuilder
	for p.Next() {
		if err := ir.Series(p.At(), &lset, &metas); err != nil {
			return 0, 0, err
		}
		for _, m := range metas {
			mint, maxt = min(mint, m.MinTime), max(maxt, m.MaxTime+1)
		}
	}
	return mint, maxt, p.Err()
}

// missingBlocks names the block folders that an open TSDB does not serve.
func missingBlocks(dir string, db *tsdb.DB) ([]ulid.ULID, error) {
	dirs, err := blockDirs(dir)
	if err != nil {
		return nil, err
	}
	for _, b := range db.Blocks() {
		delete(dirs, b.Meta().ULID)
	}
	var out []ulid.ULID
	for id := range dirs {
		out = append(out, id)
	}
	return out, nil
}
