package merge

import (
	"context"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/duramendb/duramen/chunkstore/rawblock"
)

// merger merges the series of the inputs. It is for one goroutine.
type merger struct {
	inputs     []*input
	mint, maxt int64 // of the output, half-open
	symbols    []string
	deletions  deletions
	out        sink
	encode     func(storage.Series, chunkenc.Encoding) ([]chunks.Meta, error)
	progress   *Progress
	rest       func()

	result Result
	due    account // what the output has to hold
	floats uint64  // of its samples

	lset    labels.Labels // of the series
	hash    uint64
	builder labels.ScratchBuilder
	meant   []int       // deletions of the series
	hidden  []intervals // of the series, by input
	pieces  []piece
	group   uint64 // numbers the groups of all series
	stamps  []uint64
	bytes   []byte // of records that have to stay
	samples []stamp
	spare   []stamp
	runs    []int // where each run of samples ends
	scan    chunkenc.Iterator
}

// sink takes the output in order: the chunks of a series, then the series.
type sink interface {
	chunk(r record, mint, maxt int64) error
	series(lset labels.Labels) error
}

// piece is a chunk of the series that is merged.
type piece struct {
	rawblock.Chunk

	in     *input
	order  int // among the chunks of its input
	record record
}

// each merges all series.
func (m *merger) each(ctx context.Context) error {
	m.stamps = make([]uint64, len(m.inputs))
	m.hidden = make([]intervals, len(m.inputs))
	return m.walk(ctx, m.series)
}

// walk calls fn for each series, in order, with the inputs that have it.
func (m *merger) walk(ctx context.Context, fn func(same []*input) error) error {
	for _, in := range m.inputs {
		if err := in.advance(); err != nil {
			return err
		}
	}
	var same []*input
	for n := 0; ; n++ {
		if n%1024 == 0 {
			if m.rest(); ctx.Err() != nil {
				return ctx.Err()
			}
		}
		if same = least(m.inputs, same[:0]); len(same) == 0 {
			return nil
		}
		if err := fn(same); err != nil {
			return err
		}
		for _, in := range same {
			if err := in.advance(); err != nil {
				return err
			}
		}
	}
}

// least appends those inputs that stand at the first series of all.
func least(inputs, same []*input) []*input {
	for _, in := range inputs {
		if in.done {
			continue
		}
		if len(same) > 0 {
			switch by := slices.Compare(in.refs, same[0].refs); {
			case by > 0:
				continue
			case by < 0:
				same = same[:0]
			}
		}
		same = append(same, in)
	}
	return same
}

// series merges one series, which the inputs have in common.
func (m *merger) series(same []*input) error {
	m.lset = m.labels(same[0].refs) // the index keeps the last one, so its bytes are not used again
	m.hash = labels.StableHash(m.lset)
	m.meant = m.deletions.set.Meaning(m.lset, m.meant[:0])
	m.pieces = m.pieces[:0]
	for _, in := range same {
		in.seriesUsed++
		in.chunksUsed += uint64(len(in.list))
		m.hidden[in.number] = in.hidden(&m.deletions, m.meant, m.hidden[in.number])
		first := len(m.pieces)
		for _, c := range in.list {
			m.pieces = append(m.pieces, piece{Chunk: c, in: in})
		}
		own := m.pieces[first:]
		sortPieces(own)
		for i := range own {
			own[i].order = i
		}
	}
	sortPieces(m.pieces)
	before := m.due.chunks
	for p := m.pieces; len(p) > 0; {
		n, maxt := 1, p[0].MaxTime
		for n < len(p) && p[n].MinTime <= maxt {
			maxt = max(maxt, p[n].MaxTime)
			n++
		}
		m.group++
		if err := m.overlap(p[:n]); err != nil {
			return err
		}
		p = p[n:]
	}
	if m.due.chunks == before {
		return nil // all of it was deleted
	}
	m.due.series++
	m.progress.wrote(m.due.series, m.due.samples)
	return m.out.series(m.lset)
}

// labels returns the labels of a series by the numbers of its symbols.
func (m *merger) labels(refs []uint32) labels.Labels {
	m.builder.Reset()
	for i := 0; i < len(refs); i += 2 {
		m.builder.Add(m.symbols[refs[i]], m.symbols[refs[i+1]])
	}
	return m.builder.Labels()
}

// sortPieces sorts by time. Pieces mostly are in order, or in a few runs that are.
func sortPieces(p []piece) {
	for i := 1; i < len(p); i++ {
		if p[i].MinTime < p[i-1].MinTime {
			slices.SortStableFunc(p, func(a, b piece) int {
				switch {
				case a.MinTime < b.MinTime:
					return -1
				case a.MinTime > b.MinTime:
					return 1
				default:
					return 0
				}
			})
			return
		}
	}
}

// overlap merges chunks that overlap one another, directly or through others: mostly equal ones of replicas.
func (m *merger) overlap(p []piece) error {
	single := true
	for i := range p {
		single = single && m.stamps[p[i].in.number] != m.group
		m.stamps[p[i].in.number] = m.group
	}
	if single {
		copied, err := m.copied(p)
		if copied || err != nil {
			return err
		}
	}
	return m.decoded(p)
}

// copied writes one of the chunks when all are the same and nothing of them is to be left out. Each is of another
// input.
func (m *merger) copied(p []piece) (bool, error) {
	first := &p[0]
	for i := range p {
		if !m.whole(&p[i]) {
			return false, nil
		}
		var err error
		if p[i].record, err = p[i].in.record(p[i].Chunk); err != nil {
			return false, err
		}
		if p[i].MinTime != first.MinTime || p[i].MaxTime != first.MaxTime || string(p[i].record.all) != string(first.record.all) {
			return false, nil
		}
	}
	if !first.record.intact() {
		return false, first.in.broken(first.Chunk, errSum)
	}
	n, err := first.record.samples()
	if err != nil {
		return false, first.in.broken(first.Chunk, err)
	}
	if n == 0 {
		return true, nil
	}
	for i := range p {
		p[i].in.samplesUsed += uint64(n) //nolint:gosec // not negative
	}
	m.result.InputSamples += uint64(n * len(p))     //nolint:gosec // as above
	m.result.Duplicates += uint64(n * (len(p) - 1)) //nolint:gosec // as above
	m.result.ChunksDropped += uint64(len(p) - 1)    //nolint:gosec // as above
	m.result.ChunksCopied++
	m.kind(first.record.encoding(), n)
	r := m.hinted(first.record, m.follows(p))
	m.due.chunk(m.hash, first.MinTime, first.MaxTime, uint64(n), r.sum()) //nolint:gosec // as above
	return true, m.out.chunk(r, first.MinTime, first.MaxTime)
}

// kind counts samples of the output by what they are.
func (m *merger) kind(e chunkenc.Encoding, n int) {
	if e == chunkenc.EncXOR || e == chunkenc.EncXOR2 {
		m.floats += uint64(n) //nolint:gosec // not negative
	}
}

// whole reports whether all samples of a chunk are to be kept.
func (m *merger) whole(p *piece) bool {
	return p.MinTime >= m.mint && p.MaxTime < m.maxt && !m.hidden[p.in.number].overlaps(p.MinTime, p.MaxTime)
}
