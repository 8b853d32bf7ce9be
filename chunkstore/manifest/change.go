package manifest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/internal/errkind"
)

// CompactorWriter begins the Writer of each block that a compactor of ours has made. Such a block enters a manifest by
// Swap alone: one that lies in the bucket and is in no manifest is the output of a swap that was lost.
const CompactorWriter = "compactor/"

// FromCompactor reports whether a compactor of ours has made the block.
func (b *Block) FromCompactor() bool { return strings.HasPrefix(b.Writer, CompactorWriter) }

// RememberRemoved is how long a removed block is remembered at least.
const RememberRemoved = 48 * time.Hour

// Change is what one version does to the one before, all of it or nothing.
type Change struct {
	// Add lists blocks that are completely in the bucket and that the manifest does not know.
	Add []Block
	// Replace takes out blocks whose samples are kept in others: each of their sources is one of a block in Add or of
	// one that stays.
	Replace []ulid.ULID
	// Drop takes out blocks and with them their samples: what is made of them, here or by a peer, does not come back.
	Drop []ulid.ULID
	// Unlist takes out blocks that a peer is about to delete: where their samples are now is the peer's to know.
	Unlist []ulid.ULID
	// Forget ends the memory of removed blocks whose objects are gone. RememberRemoved has to have passed.
	Forget []ulid.ULID
	// Applied are the IDs of the deletions that were worked into the blocks of Add, each in what it concerned: what they
	// meant is gone for good. Deleted of those blocks is set by the caller. With blocks in Drop instead of one in Add it
	// says that nothing was left of them.
	Applied []uint64
	// Keep is until when the objects of blocks that it takes out stay in the bucket, in milliseconds since the Unix epoch.
	Keep map[ulid.ULID]int64
}

// Swap writes the change into one version and returns a version that has it. The blocks that it takes out are
// remembered as removed, and so are the sources of what it drops, so that neither an announcement nor a listing
// brings samples back.
//
// ErrConflict says that the change does not fit the newest version: a block to take out is not listed, one to add is
// known, a source would be lost, an output of a compactor holds more than its inputs, a deletion that it has worked in
// was cancelled, or what is hidden from queries would change by it. The caller looks at the newest version and thinks
// again; outputs of a lost swap are left to the sweep. A change that has happened already is a
// success, and so it may be repeated after any other error, when it may or may not have happened. Errors are as for Add.
func (o *Owner) Swap(ctx context.Context, tenantID string, change Change) (version uint64, _ error) {
	e, err := newExchange(change)
	var answer Added
	if err == nil {
		answer, err = o.submit(ctx, tenantID, e)
	}
	if err != nil {
		return 0, fmt.Errorf("swap %d blocks for %d in manifest of tenant %s: %w",
			len(change.Replace)+len(change.Drop)+len(change.Unlist), len(change.Add), tenantID, err)
	}
	return answer.Version, nil
}

// exchange is a Change as an edit.
type exchange struct {
	Change
	out    map[ulid.ULID]departure // all to take out
	forget map[ulid.ULID]struct{}
}

// departure is how a block leaves.
type departure uint8

const (
	replaced departure = iota + 1
	dropped
	unlisted
)

func newExchange(c Change) (*exchange, error) {
	e := &exchange{Change: c, out: map[ulid.ULID]departure{}, forget: map[ulid.ULID]struct{}{}}
	for _, id := range c.Forget {
		e.forget[id] = struct{}{}
	}
	e.Add = make([]Block, len(c.Add))
	seen := map[ulid.ULID]struct{}{}
	once := func(id ulid.ULID) error {
		if _, twice := seen[id]; twice {
			return errkind.New(errkind.Invalid, "block %s is named twice", id)
		}
		seen[id] = struct{}{}
		return nil
	}
	for i, b := range c.Add {
		var err error
		if e.Add[i], err = b.prepared(); err != nil {
			return nil, err
		}
		if err := once(b.ULID); err != nil {
			return nil, err
		}
	}
	for id := range c.Keep {
		if !slices.Contains(c.Replace, id) && !slices.Contains(c.Drop, id) && !slices.Contains(c.Unlist, id) {
			return nil, errkind.New(errkind.Invalid, "block %s is to be kept and is not taken out", id)
		}
	}
	for how, ids := range map[departure][]ulid.ULID{replaced: c.Replace, dropped: c.Drop, unlisted: c.Unlist} {
		for _, id := range ids {
			if err := once(id); err != nil {
				return nil, err
			}
			e.out[id] = how
		}
	}
	return e, nil
}

func (e *exchange) apply(d *draft) (Added, error) {
	k := d.next.known()
	if e.done(k) {
		return Added{Version: d.version()}, nil
	}
	out, err := e.listed(d.next, k)
	if err != nil {
		return Added{}, err
	}
	if err := e.check(d, out); err != nil {
		return Added{}, err
	}
	e.write(d, out)
	return Added{Version: d.next.Version}, nil
}

// done reports whether the change is in the version already, or in one before it.
func (e *exchange) done(k *knowledge) bool {
	for i := range e.Add {
		if !k.knows(e.Add[i].ULID) {
			return false
		}
	}
	for id := range e.out {
		if _, listed := k.places[id]; listed || !k.knows(id) {
			return false
		}
	}
	for _, id := range e.Forget {
		if _, remembered := k.removed[id]; remembered {
			return false
		}
	}
	return true
}

// listed returns the blocks to take out.
func (e *exchange) listed(m *Manifest, k *knowledge) ([]Block, error) {
	var blocks []Block
	for _, id := range slices.Concat(e.Replace, e.Drop, e.Unlist) {
		i, ok := k.places[id]
		if !ok {
			return nil, conflict("block %s, which it takes out, is not listed", id)
		}
		blocks = append(blocks, m.Blocks[i])
	}
	for i := range e.Add {
		if id := e.Add[i].ULID; k.knows(id) {
			return nil, conflict("block %s, which it adds, is known already", id)
		}
	}
	return blocks, nil
}

// check makes sure that nothing is lost and nothing invented.
func (e *exchange) check(d *draft, out []Block) error {
	m, after := d.next, newHoldings()
	for _, r := range m.Removed {
		if _, forgets := e.forget[r.ULID]; forgets && d.at-r.RemovedAt < RememberRemoved.Milliseconds() {
			return conflict("block %s, which it forgets, was removed less than %v ago", r.ULID, RememberRemoved)
		}
		if _, forgets := e.forget[r.ULID]; forgets && d.at < r.KeepUntil {
			return conflict("block %s, which it forgets, is kept until %d", r.ULID, r.KeepUntil)
		}
	}
	for i := range m.Blocks {
		if _, leaves := e.out[m.Blocks[i].ULID]; !leaves {
			after.add(&m.Blocks[i])
		}
	}
	for i := range e.Add {
		after.add(&e.Add[i])
	}
	for i := range out {
		b := &out[i]
		if e.out[b.ULID] != replaced {
			continue
		}
		for _, source := range b.Sources {
			if !after.hasPart(source, b.Shard) {
				return conflict("source %s of block %s, which it replaces, would be in no block", source, b.ULID)
			}
		}
	}
	for i := range e.Add {
		if b := &e.Add[i]; b.FromCompactor() {
			if err := checkOutput(b, out); err != nil {
				return err
			}
		}
	}
	return e.checkDeletions(m, out)
}

// checkOutput makes sure that a compactor's output is made of what is taken out, and of nothing else.
func checkOutput(b *Block, inputs []Block) error {
	sources := map[ulid.ULID]struct{}{}
	var mint, maxt int64
	for i := range inputs {
		input := &inputs[i]
		if i == 0 {
			mint, maxt = input.MinTime, input.MaxTime
		}
		mint, maxt = min(mint, input.MinTime), max(maxt, input.MaxTime)
		for _, source := range input.Sources {
			sources[source] = struct{}{}
		}
	}
	for _, source := range b.Sources {
		if _, ok := sources[source]; !ok {
			return conflict("source %s of output %s is in no block that it takes out", source, b.ULID)
		}
	}
	if b.MinTime < mint || b.MaxTime > maxt {
		return conflict("output %s reaches from %d to %d, its inputs from %d to %d", b.ULID, b.MinTime, b.MaxTime, mint, maxt)
	}
	return nil
}

// write does what has been checked; gone is taken out.
func (e *exchange) write(d *draft, gone []Block) {
	d.next.Blocks = slices.DeleteFunc(d.next.Blocks, func(b Block) bool {
		_, leaves := e.out[b.ULID]
		return leaves
	})
	for _, b := range e.Add {
		b.Deleted = d.next.deletedThrough(&b, gone)
		d.list(b)
	}
	d.next.Removed = slices.DeleteFunc(slices.Clone(d.next.Removed), func(r RemovedBlock) bool {
		_, forgets := e.forget[r.ULID]
		return forgets
	})
	e.remember(d, gone)
	d.changed = true
}

// remember notes what left. d.next.Removed is the draft's own.
func (e *exchange) remember(d *draft, gone []Block) {
	k, removed := d.next.known(), &d.next.Removed
	note := func(id ulid.ULID, dropped bool) {
		r := RemovedBlock{ULID: id, RemovedAt: d.at, Dropped: dropped, KeepUntil: e.Keep[id]}
		before, remembered := k.removed[id]
		switch {
		case !remembered:
			*removed = append(*removed, r)
		case dropped && !before:
			place := &(*removed)[slices.IndexFunc(*removed, func(r RemovedBlock) bool { return r.ULID == id })]
			r.KeepUntil = max(r.KeepUntil, place.KeepUntil)
			*place = r
		}
		k.removed[id] = dropped || before
	}
	for i := range gone {
		b := &gone[i]
		how := e.out[b.ULID]
		note(b.ULID, how == dropped)
		if how == replaced {
			d.replaced++
			continue
		}
		d.dropped++
		for _, source := range b.Sources {
			if _, listed := k.places[source]; how == dropped && !listed && !k.holdings.hasPart(source, "") {
				note(source, true)
			}
		}
	}
}
