package merge

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunks"
	tsdbindex "github.com/prometheus/prometheus/tsdb/index"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/index"
	"github.com/duramendb/duramen/internal/diskspace"
)

// segmentHeader begins each file of chunks: magic, version, three bytes that fill up.
const segmentHeader = "\x85\xbd\x40\xdd\x01\x00\x00\x00"

// sent is an object that was put.
type sent struct {
	name string
	size int64
	sum  uint64
}

// output writes a block: chunks into the bucket as they come, index and sidecar into the scratch folder and from there
// into the bucket at the end.
type output struct {
	ctx      context.Context //nolint:containedctx // lives as long as the job
	cfg      Config
	bkt      bucket.Bucket
	prefix   string // of the block's keys
	dir      string // scratch, of this job alone
	progress *Progress
	patience

	index  *tsdbindex.Writer
	cancel context.CancelFunc // of the index, so that it can be given up
	file   *os.File           // of the sidecar
	buffer *bufio.Writer
	pages  *index.Builder

	most     int64 // bytes of chunks to come, at most, but for what is encoded anew
	segment  []byte
	spare    []byte
	segments []int64
	sending  chan error // nil: nothing is being sent
	sent     []sent

	metas  []chunks.Meta
	places []index.Chunk
	added  uint64

	peakDisk, written int64
	sidecar           block.Sidecar
}

func newOutput(ctx context.Context, cfg Config, bkt bucket.Bucket, prefix, dir string, mint, maxt int64) (*output, error) {
	o := &output{ctx: ctx, cfg: cfg, bkt: bkt, prefix: prefix, dir: dir}
	var err error
	if o.file, err = os.Create(filepath.Join(dir, block.SidecarName)); err != nil {
		return nil, disk(err)
	}
	o.buffer = bufio.NewWriterSize(o.file, 256<<10)
	if o.pages, err = index.NewStreamBuilder(o.buffer, mint, maxt); err != nil {
		return nil, disk(errors.Join(err, o.file.Close()))
	}
	var child context.Context
	child, o.cancel = context.WithCancel(ctx)
	if o.index, err = tsdbindex.NewWriter(child, filepath.Join(dir, block.IndexName)); err != nil {
		o.cancel()
		return nil, disk(errors.Join(err, o.file.Close()))
	}
	return o, nil
}

// symbol adds a symbol. Symbols come before all else, in order.
func (o *output) symbol(s string) error { return o.indexed(o.index.AddSymbol(s)) }

// indexed gives an error of the index its meaning.
func (o *output) indexed(err error) error {
	switch {
	case err == nil, o.ctx.Err() != nil:
		return errors.Join(o.ctx.Err())
	case errors.Is(err, tsdbindex.ErrIndexExceeds64GiB), errors.Is(err, tsdbindex.ErrSymbolTableTooLarge),
		errors.Is(err, tsdbindex.ErrPostingsOffsetTableTooLarge):
		return &TooLarge{What: "its index", Err: err}
	}
	var onDisk *fs.PathError
	if errors.As(err, &onDisk) {
		return disk(fmt.Errorf("write index: %w", err))
	}
	return &Lost{Reasons: []string{fmt.Sprintf("the index refuses what it is to hold: %v", err)}} // order, mostly
}

// chunk implements sink.
func (o *output) chunk(r record, mint, maxt int64) error {
	if len(o.segment) > len(segmentHeader) && int64(len(o.segment)+len(r.all)) > o.cfg.SegmentBytes {
		if err := o.flush(); err != nil {
			return err
		}
	}
	if len(o.segment) == 0 {
		if o.segment == nil {
			o.segment = make([]byte, 0, min(o.cfg.SegmentBytes, o.most)+int64(len(r.all)))
		}
		o.segment = append(o.segment, segmentHeader...)
	}
	n, off := len(o.segments), len(o.segment)
	o.segment = append(o.segment, r.all...)
	ref := chunks.NewBlockChunkRef(uint64(n), uint64(off)) //nolint:gosec // not negative
	o.metas = append(o.metas, chunks.Meta{Ref: chunks.ChunkRef(ref), MinTime: mint, MaxTime: maxt})
	o.places = append(o.places, index.Chunk{
		MinTime: mint, MaxTime: maxt,
		Segment: uint32(n), Offset: uint32(off), Length: uint32(len(r.all)), //nolint:gosec // see maxSegmentBytes
	})
	return nil
}

// lookEvery is after how many series the disk is looked at.
const lookEvery = 4096

// series implements sink.
func (o *output) series(lset labels.Labels) error {
	if err := o.indexed(o.index.AddSeries(storage.SeriesRef(o.added), lset, o.metas...)); err != nil {
		return err
	}
	if err := o.pages.Add(lset, o.places); err != nil {
		return disk(err)
	}
	o.metas, o.places = o.metas[:0], o.places[:0]
	if o.added++; o.added%lookEvery == 0 {
		return o.look()
	}
	return nil
}

// look makes sure that there is room for what is to come.
func (o *output) look() error {
	used := folderBytes(o.dir)
	o.peakDisk = max(o.peakDisk, used)
	size := fileBytes(filepath.Join(o.dir, block.IndexName))
	if most := o.cfg.MaxIndexBytes; most > 0 && size > most {
		return &TooLarge{What: "its index", Bytes: size, Max: most}
	}
	// The end of an index needs what its series need, and as much again for a moment.
	return diskspace.Require(o.dir, size, o.cfg.MinFreeBytes)
}

// flush hands the segment over to be sent, when the one before is there.
func (o *output) flush() error {
	if len(o.segment) == 0 {
		return nil
	}
	if err := o.wait(); err != nil {
		return err
	}
	name, body := block.SegmentName(len(o.segments)+1), o.segment
	o.segments = append(o.segments, int64(len(body)))
	o.segment, o.spare = o.spare[:0], body
	o.sent = append(o.sent, sent{name, int64(len(body)), xxhash.Sum64(body)})
	done := make(chan error, 1)
	o.sending = done
	again := func() io.Reader { return bytes.NewReader(body) }
	go func() { done <- o.put(name, again, int64(len(body))) }() // waited for by wait
	return nil
}

// wait returns when nothing is being sent.
func (o *output) wait() error {
	if o.sending == nil {
		return nil
	}
	err := <-o.sending
	o.sending = nil
	if err == nil {
		o.written += int64(len(o.spare))
		o.progress.sentBytes(int64(len(o.spare)))
	}
	return err
}

// put writes an object and makes sure that it is there. What was put before it stays, however often that takes. body gives
// its bytes from the beginning on, again and again.
func (o *output) put(name string, body func() io.Reader, size int64) error {
	err := o.keep(o.ctx, func() error { return o.putOnce(name, body, size) })
	if err != nil {
		return unavailable(o.ctx, fmt.Errorf("put %s: %w", o.prefix+name, err))
	}
	return nil
}

func (o *output) putOnce(name string, body func() io.Reader, size int64) error {
	if err := o.bkt.Put(o.ctx, o.prefix+name, body(), size); err != nil {
		return err
	}
	there, err := o.bkt.Stat(o.ctx, o.prefix+name)
	switch {
	case errors.Is(err, bucket.ErrNotFound):
		return errors.New("it is not there afterwards") // which is no answer, as that of a read is
	case err != nil:
		return err
	case there.Size != size:
		return fmt.Errorf("%d bytes are there instead of %d", there.Size, size)
	}
	return nil
}

// finish writes what is left, all but meta.json.
func (o *output) finish() error {
	if err := o.flush(); err != nil {
		return err
	}
	if err := o.wait(); err != nil {
		return err
	}
	o.segment, o.spare = nil, nil
	err := o.pages.Segments(o.segments)
	if err == nil {
		o.sidecar.Bytes, o.sidecar.DirectoryBytes, err = o.pages.Finish()
	}
	if err == nil {
		err = o.buffer.Flush()
	}
	if err = errors.Join(err, o.file.Close()); err != nil {
		o.file = nil
		return disk(err)
	}
	o.file = nil
	if err := o.look(); err != nil {
		return err
	}
	ix := o.index
	o.index = nil
	err = o.indexed(ix.Close())
	o.cancel()
	if err != nil {
		return err
	}
	o.peak()
	if size, most := fileBytes(filepath.Join(o.dir, block.IndexName)), o.cfg.MaxIndexBytes; most > 0 && size > most {
		return &TooLarge{What: "its index", Bytes: size, Max: most}
	}
	for _, name := range []string{block.IndexName, block.SidecarName} {
		if err := o.putFile(name); err != nil {
			return err
		}
	}
	return nil
}

// peak adds what the index needed while it was closed: its postings lay in files of their own before they were copied.
func (o *output) peak() {
	name := filepath.Join(o.dir, block.IndexName)
	size := fileBytes(name)
	postings := int64(0)
	if t, err := readContents(name, size); err == nil {
		postings = size - t.Postings
	}
	o.peakDisk = max(o.peakDisk, folderBytes(o.dir)+postings)
}

func (o *output) putFile(name string) error {
	f, err := os.Open(filepath.Join(o.dir, name))
	if err != nil {
		return disk(err)
	}
	size := fileBytes(f.Name())
	sum := xxhash.New()
	err = o.put(name, func() io.Reader {
		sum.Reset()
		return &counted{io.TeeReader(io.NewSectionReader(f, 0, size), sum), o.progress.sentBytes}
	}, size)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	o.sent = append(o.sent, sent{name, size, sum.Sum64()})
	o.written += size
	return nil
}

// abandon ends all that is open.
func (o *output) abandon() {
	o.cancel()
	_ = o.wait()
	if o.index != nil {
		_ = o.index.Close() // its context ended: it writes no more
		o.index = nil
	}
	if o.file != nil {
		_ = o.file.Close()
		o.file = nil
	}
}
