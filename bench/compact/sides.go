package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/compactor/merge"
	"github.com/duramendb/duramen/internal/procstat"
)

const (
	ours   = "duramen"
	theirs = "prometheus"

	// sideVariable makes the process do the work of one side; dirVariable says where.
	sideVariable = "DURAMEN_BENCH_COMPACT"
	dirVariable  = "DURAMEN_BENCH_COMPACT_DIR"

	bucketFolder  = "bucket"
	scratchFolder = "scratch"
	theirFolder   = "prometheus"
)

// figures are what one run has cost.
type figures struct {
	Block           string
	Copied, Encoded uint64
	Index           int64
	// Memory is the most that was resident, in bytes. The process says so itself: what the system says of a child counts what
	// its parent held when it began.
	Memory int64

	cpu, wall time.Duration
	disk      int64
}

// outputFolder is where a side writes its blocks.
func outputFolder(dir, side string) string {
	if side == ours {
		return filepath.Join(dir, bucketFolder, tenantID)
	}
	return filepath.Join(dir, theirFolder)
}

// remove deletes what a side has written before.
func remove(dir, side string, runs []figures) error {
	if len(runs) == 0 {
		return nil
	}
	return os.RemoveAll(filepath.Join(outputFolder(dir, side), last(runs).Block))
}

// measure runs one side in a process of its own.
func measure(ctx context.Context, side, dir string) (f figures, err error) {
	self, err := os.Executable()
	if err != nil {
		return f, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), sideVariable+"="+side, dirVariable+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return f, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return f, err
	}
	peak, stopped := make(chan int64, 1), make(chan struct{})
	folder := filepath.Join(dir, map[string]string{ours: scratchFolder, theirs: theirFolder}[side])
	go func() { peak <- watch(folder, stopped) }()
	decoded := json.NewDecoder(bufio.NewReader(out)).Decode(&f)
	err = errors.Join(decoded, cmd.Wait())
	f.wall = time.Since(began)
	close(stopped)
	f.disk = <-peak
	if err != nil {
		return f, err
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return f, errors.New("the system does not say what a process has used")
	}
	f.cpu = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	return f, nil
}

// watch returns the most that lay in a folder.
func watch(folder string, stopped <-chan struct{}) (peak int64) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stopped:
			return peak
		case <-tick.C:
			peak = max(peak, bytesIn(folder))
		}
	}
}

func bytesIn(folder string) (bytes int64) {
	_ = filepath.WalkDir(folder, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil //nolint:nilerr // it is gone by now
		}
		if info, err := e.Info(); err == nil {
			bytes += info.Size()
		}
		return nil
	})
	return bytes
}

// work is what the process of one side does.
func work(ctx context.Context, side string) error {
	dir := os.Getenv(dirVariable)
	var f figures
	var err error
	if side == ours {
		f, err = workOurs(ctx, dir)
	} else {
		f, err = workTheirs(ctx, dir)
	}
	if err != nil {
		return err
	}
	if f.Memory, err = procstat.PeakRSS(os.Getpid()); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(f)
}

// inputs are the blocks of level 1.
func inputs(dir string) (metas []*block.Meta, folders []string, err error) {
	all, err := filepath.Glob(filepath.Join(dir, bucketFolder, tenantID, "*", block.MetaName))
	if err != nil {
		return nil, nil, err
	}
	slices.Sort(all)
	for _, name := range all {
		m, err := block.ReadMeta(filepath.Dir(name))
		if err != nil {
			return nil, nil, err
		}
		if m.Compaction.Level == 1 {
			metas, folders = append(metas, m), append(folders, filepath.Dir(name))
		}
	}
	return metas, folders, nil
}

func workOurs(ctx context.Context, dir string) (f figures, err error) {
	metas, _, err := inputs(dir)
	if err != nil {
		return f, err
	}
	bkt, err := bucket.NewFilesystem(filepath.Join(dir, bucketFolder))
	if err != nil {
		return f, err
	}
	job := merge.Job{ULID: blockgen.ULID(start, uint64(time.Now().UnixNano())), Writer: "compactor/bench", Level: 3}
	for _, m := range metas {
		job.Inputs = append(job.Inputs, merge.Input{Block: m.ManifestBlock(0)})
	}
	r, err := merge.Run(ctx, merge.Config{Scratch: filepath.Join(dir, scratchFolder)}, bkt, tenantID, job, nil)
	if err != nil {
		return f, err
	}
	return figures{Block: r.Block.ULID.String(), Copied: r.ChunksCopied, Encoded: r.ChunksEncoded, Index: r.Block.IndexBytes}, nil
}

func workTheirs(ctx context.Context, dir string) (f figures, err error) {
	_, folders, err := inputs(dir)
	if err != nil {
		return f, err
	}
	out := filepath.Join(dir, theirFolder)
	if err := os.MkdirAll(out, 0o750); err != nil {
		return f, err
	}
	log := slog.New(slog.DiscardHandler)
	c, err := tsdb.NewLeveledCompactor(ctx, nil, log, []int64{slotMS, 12 * slotMS}, nil, nil)
	if err != nil {
		return f, err
	}
	ids, err := c.Compact(out, folders, nil)
	if err != nil || len(ids) != 1 {
		return f, errors.Join(err, fmt.Errorf("%d blocks were written", len(ids)))
	}
	info, err := os.Stat(filepath.Join(out, ids[0].String(), block.IndexName))
	if err != nil {
		return f, err
	}
	return figures{Block: ids[0].String(), Index: info.Size()}, nil
}

// compare reads both outputs with Prometheus' own reader, and returns how many samples both have.
func compare(dir, our, their string) (samples uint64, err error) {
	for _, id := range []string{our, their} {
		if _, err := ulid.ParseStrict(id); err != nil {
			return 0, err
		}
	}
	return equal(filepath.Join(outputFolder(dir, ours), our), filepath.Join(outputFolder(dir, theirs), their))
}
