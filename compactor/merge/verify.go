package merge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/cespare/xxhash/v2"
	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockcheck"
	"github.com/duramendb/duramen/internal/errkind"
)

// maxReasons bounds what a Lost says.
const maxReasons = 5

// unfinished is a block in the bucket whose meta.json is not there yet.
type unfinished struct {
	blockcheck.Source
	patience

	meta []byte
}

// List implements blockcheck.Source.
func (u unfinished) List(ctx context.Context) (map[string]int64, error) {
	var files map[string]int64
	err := u.keep(ctx, func() (err error) {
		files, err = u.Source.List(ctx)
		return err
	})
	if err == nil {
		files[block.MetaName] = int64(len(u.meta))
	}
	return files, err
}

// ReadAt implements blockcheck.Source.
func (u unfinished) ReadAt(ctx context.Context, name string, p []byte, off int64) error {
	if name != block.MetaName {
		return u.keep(ctx, func() error { return u.Source.ReadAt(ctx, name, p, off) })
	}
	if off > int64(len(u.meta)) || copy(p, u.meta[off:]) < len(p) {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// verify reads the output back from the bucket and compares it with what is due.
func (j *run) verify(meta []byte, due account) error {
	reasons, err := j.check(meta, due)
	if err != nil || len(reasons) == 0 {
		return err
	}
	// Was it the way? What is found twice is there.
	again, err := j.check(meta, due)
	if err != nil || len(again) == 0 {
		return err
	}
	if err := j.compareSent(); err != nil {
		return err
	}
	return cmp.Or[error](j.suspects(), &Lost{Reasons: reasons})
}

// check is one reading of the whole output.
func (j *run) check(meta []byte, due account) (reasons []string, err error) {
	id := j.job.ULID
	src := unfinished{blockcheck.InBucket(j.bkt, j.tenant, id), j.patience, meta}
	t := &tally{}
	o := blockcheck.Options{Chunk: t.chunk, Read: func(n int64) {
		j.verified += n
		j.progress.verifiedBytes(n)
		j.rest()
	}}
	sum, err := blockcheck.Check(j.ctx, src, id, o, func(f blockcheck.Fault) {
		if len(reasons) < maxReasons {
			reasons = append(reasons, f.String())
		}
	})
	if err != nil {
		return nil, unavailable(j.ctx, err)
	}
	reasons = append(reasons, due.differences(t.account)...)
	if len(reasons) == 0 && (sum.Series != due.series || sum.Chunks != due.chunks || sum.Samples() != due.samples) {
		reasons = append(reasons, fmt.Sprintf("the output has %d series, %d chunks and %d samples instead of %d, %d and %d",
			sum.Series, sum.Chunks, sum.Samples(), due.series, due.chunks, due.samples))
	}
	if len(reasons) == 0 && sum.DirectoryBytes != j.out.sidecar.DirectoryBytes {
		reasons = append(reasons, "the sidecar of the output is missing, or cannot be read")
	}
	return reasons, nil
}

// compareSent makes sure that the bucket has the bytes that it was sent.
func (j *run) compareSent() error {
	for _, s := range j.out.sent {
		key := block.Key(j.tenant, j.job.ULID, s.name)
		body, err := j.bkt.Get(j.ctx, key)
		if err != nil {
			return unavailable(j.ctx, fmt.Errorf("read %s: %w", key, err))
		}
		sum := xxhash.New()
		n, err := io.Copy(sum, &counted{body, j.progress.verifiedBytes})
		if err := errors.Join(err, body.Close()); err != nil {
			return unavailable(j.ctx, fmt.Errorf("read %s: %w", key, err))
		}
		if n != s.size || sum.Sum64() != s.sum {
			return errkind.New(errkind.Unavailable, "%s in the bucket has not the bytes that it was sent", key)
		}
	}
	return nil
}

// suspects looks for what is wrong with the inputs, which could be read and did not give a sound output.
func (j *run) suspects() error {
	for _, in := range j.inputs {
		if err := j.inspect(in.Block.ULID); err != nil {
			return err
		}
	}
	return nil
}

// inspect returns a Damaged when a block in the bucket has faults. It reads all of the block, which counts as progress.
func (j *run) inspect(id ulid.ULID) error {
	var first *Damaged
	o := blockcheck.Options{Read: j.progress.verifiedBytes}
	_, err := blockcheck.Check(j.ctx, blockcheck.InBucket(j.bkt, j.tenant, id), id, o, func(f blockcheck.Fault) {
		if first == nil {
			first = &Damaged{ULID: id, File: f.File, Offset: f.Offset, Err: errors.New(f.String())}
		}
	})
	if err != nil {
		return unavailable(j.ctx, err)
	}
	if first == nil {
		return nil
	}
	return first
}

// counted tells of what is read.
type counted struct {
	io.Reader

	read func(n int64)
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.read(int64(n))
	return n, err
}
