package backfill

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb/tombstones"

	"github.com/duramendb/duramen/chunkstore/block"
	"github.com/duramendb/duramen/chunkstore/blockcheck"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/cli"
	"github.com/duramendb/duramen/internal/errkind"
)

// uploader is one run of the command.
type uploader struct {
	env       cli.Env
	s         settings
	bkt       bucket.Bucket
	manifests *manifest.Owner
	now       func() time.Time
	progress  *cli.Progress

	listed               []local // blocks that the manifest lists by their own ULID
	sent, there, covered int
	bytes                int64  // sent
	version              uint64 // that lists all of them
	wrong                []error
	done                 int64 // bytes, of progress
}

func newUploader(env cli.Env, s settings, bkt bucket.Bucket, now func() time.Time) *uploader {
	return &uploader{
		env: env, s: s, bkt: bkt, now: now,
		manifests: manifest.NewOwner(bkt, now, slog.New(slog.DiscardHandler), nil),
	}
}

// all sends one block after another, in the order of time. One that cannot be sent keeps no other from it.
func (u *uploader) all(ctx context.Context, blocks []local) error {
	m, err := u.manifests.Current(ctx, u.s.tenant)
	if err != nil {
		return err
	}
	u.version = m.Version
	total := int64(0)
	for _, l := range blocks {
		total += 2 * l.bytes // it is read, and it is sent
	}
	u.progress = cli.NewProgress(u.env, "upload", total, "bytes")
	for _, l := range blocks {
		before := u.done
		err := u.one(ctx, m, l)
		u.done = before + 2*l.bytes
		u.progress.Set(u.done)
		switch {
		case err == nil:
		case ctx.Err() != nil || errkind.Of(err) == errkind.Unavailable || errkind.Of(err) == errkind.Canceled:
			return errors.Join(append(u.wrong, fmt.Errorf("%w (run it again to go on)", err))...)
		default:
			u.wrong = append(u.wrong, err)
		}
	}
	u.progress.Done()
	return nil
}

// one sends a block, unless it is there or must not be sent.
func (u *uploader) one(ctx context.Context, m *manifest.Manifest, l local) error {
	if covered, err := u.known(m, l.id()); covered || err != nil {
		return err
	}
	_, there := m.Find(l.id())
	if !there {
		if err := u.check(ctx, l); err != nil {
			return err
		}
	}
	switch {
	case u.s.dryRun && there:
		u.there++
		return u.tell(l, "is there already")
	case u.s.dryRun:
		u.sent++
		u.bytes += l.bytes
		return u.tell(l, "would be sent")
	}
	u.progress.Set(u.done + l.bytes)
	o := block.Options{Writer: writer, Labels: u.s.labels, Went: u.progress.Add}
	b, err := block.UploadAs(ctx, u.bkt, u.s.tenant, l.dir, o)
	if errors.Is(err, block.ErrDiffers) {
		return fmt.Errorf("%w: another content under the same ULID is never replaced", err)
	}
	if err != nil {
		return err
	}
	if there {
		u.there++
		u.listed = append(u.listed, l)
		return u.tell(l, "is there already")
	}
	added, err := u.manifests.Add(ctx, u.s.tenant, b)
	if err != nil {
		return err
	}
	u.version = max(u.version, added.Version)
	if added.Covered { // by somebody else, in this moment
		u.covered++
		return u.tell(l, "is covered by another block")
	}
	u.sent++
	u.bytes += b.SizeBytes + b.SidecarBytes
	u.listed = append(u.listed, l)
	return u.tell(l, fmt.Sprintf("sent, listed by version %d", added.Version))
}

// known says what the manifest has in place of a block, or that it must not come back.
func (u *uploader) known(m *manifest.Manifest, id ulid.ULID) (covered bool, err error) {
	if _, listed := m.Find(id); listed || !m.Knows(id) {
		return false, nil
	}
	for i := range m.Removed { // what was compacted is remembered as removed, too: its samples are there
		if m.Removed[i].ULID == id && !merged(m, id) {
			return false, fmt.Errorf("block %s: it was removed from the tenant on %s, and does not come back under its ULID: "+
				"promtool can make another block of its samples", id, time.UnixMilli(m.Removed[i].RemovedAt).UTC().Format(time.DateTime))
		}
	}
	u.covered++
	u.progress.Clear()
	_, err = fmt.Fprintf(u.env.Stdout, "%s: its samples are there in a block that was made of it\n", id)
	return true, err
}

// merged says whether a listed block was made of the block.
func merged(m *manifest.Manifest, id ulid.ULID) bool {
	return slices.ContainsFunc(m.Blocks, func(b manifest.Block) bool {
		return b.Shard == "" && slices.Contains(b.Sources, id) // a shard holds a part of its sources only
	})
}

// check reads a block to its last byte.
func (u *uploader) check(ctx context.Context, l local) error {
	stones, _, err := tombstones.ReadTombstones(l.dir)
	if err != nil {
		return fmt.Errorf("block %s: read its tombstones: %w", l.id(), err)
	}
	if stones.Total() > 0 || l.meta.Stats.NumTombstones > 0 {
		return fmt.Errorf("block %s: %w", l.id(), errTombstones)
	}
	shown, count := 0, 0
	report := func(f blockcheck.Fault) {
		if count++; shown < u.s.show {
			shown++
			u.progress.Clear()
			fmt.Fprintf(u.env.Stdout, "%s/%s\n", l.id(), f)
		}
	}
	_, err = blockcheck.Check(ctx, blockcheck.InDirectory(l.dir), l.id(), blockcheck.Options{Read: u.progress.Add}, report)
	if err == nil && count > 0 {
		err = fmt.Errorf("block %s: it has %d faults and is not sent", l.id(), count)
	}
	return err
}

// tell writes the line of a block.
func (u *uploader) tell(l local, what string) error {
	u.progress.Clear()
	_, err := fmt.Fprintf(u.env.Stdout, "%s: %s to %s, %d series, %d samples, %s: %s\n", l.id(), date(l.meta.MinTime),
		date(l.meta.MaxTime), l.meta.Stats.NumSeries, l.meta.Stats.NumSamples, cli.Bytes(l.bytes), what)
	return err
}

// date writes a time in milliseconds.
func date(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.DateTime) }

// end says what is in the bucket now and what queries see of it.
func (u *uploader) end(ctx context.Context) error {
	did := "sent"
	if u.s.dryRun {
		did = "would be sent"
	}
	say := func(format string, args ...any) error {
		_, err := fmt.Fprintf(u.env.Stdout, format, args...)
		return err
	}
	err := say("tenant %s: %d blocks %s, %s; %d were there, %d are covered by others, %d not sent\n", u.s.tenant, u.sent, did,
		cli.Bytes(u.bytes), u.there, u.covered, len(u.wrong))
	if err != nil || u.s.dryRun || len(u.listed) == 0 {
		return errors.Join(err, cli.Wrong(errors.Join(u.wrong...)))
	}
	if u.s.url == "" {
		err := say("version %d of the manifest lists all %d: servers on this bucket see it within seconds\n", u.version, len(u.listed))
		return errors.Join(err, cli.Wrong(errors.Join(u.wrong...)))
	}
	asked, err := u.ask(ctx)
	if err != nil && !errors.Is(err, errUnseen) {
		return errors.Join(append(u.wrong, err)...)
	}
	if err != nil {
		u.wrong = append(u.wrong, err)
	} else if err := say("queryable now: %s answered for each of %d blocks%s\n", u.s.url, asked.seen, asked.young()); err != nil {
		return err
	}
	return cli.Wrong(errors.Join(u.wrong...))
}
