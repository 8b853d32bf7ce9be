package ingestrpc

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/rpcframe"
)

// The first byte of a server's frame. docs/read-protocol.md of the ingester describes each.
const (
	frameOpened    = 1
	frameSeries    = 2
	frameError     = 3
	frameValues    = 4
	frameDone      = 5
	frameAlive     = 6
	frameExemplars = 7
	frameMetadata  = 8
	frameHead      = 9
	frameCounts    = 10
	frameUser      = 11
)

// Items of a frame of series.
const (
	itemSeries = 1
	itemChunk  = 2
	itemEnd    = 3 // of the series, with the number of its chunks
)

// Items of a frame of exemplars.
const (
	itemExemplarSeries = 1
	itemExemplar       = 2
)

// How a label is written, given the one at its place in the series before it in the frame.
const (
	labelSame     = 0
	labelNewValue = 1
	labelNew      = 2
)

// frameBytes is about the size of a frame: large enough to cost little, small enough to keep a reader busy while the next
// one is made.
const frameBytes = 128 << 10

// chunkHeader is what each encoding begins with and reads without a look at the length: the number of samples in two
// bytes, and flags or the first bits of the first sample.
const chunkHeader = 3

// seriesEncoder fills frames of series. Each frame can be read by itself, but for a series that goes on in the next.
type seriesEncoder struct {
	frame []byte
	prev  []labels.Label // of the last series in this frame
}

// begin starts a frame that will take about size bytes.
func (e *seriesEncoder) begin(size int) {
	e.frame = append(make([]byte, 0, size), frameSeries)
	e.prev = e.prev[:0]
}

func (e *seriesEncoder) series(lset labels.Labels) {
	f := binary.AppendUvarint(append(e.frame, itemSeries), uint64(lset.Len()))
	i := 0
	lset.Range(func(l labels.Label) {
		switch {
		case i == len(e.prev):
			e.prev = append(e.prev, labels.Label{})
			fallthrough
		case l.Name != e.prev[i].Name:
			f = rpcframe.AppendText(rpcframe.AppendText(append(f, labelNew), l.Name), l.Value)
		case l.Value != e.prev[i].Value:
			f = rpcframe.AppendText(append(f, labelNewValue), l.Value)
		default:
			f = append(f, labelSame)
		}
		e.prev[i] = l
		i++
	})
	e.prev = e.prev[:i]
	e.frame = f
}

func (e *seriesEncoder) chunk(m chunks.Meta) int {
	data := m.Chunk.Bytes()
	f := binary.AppendVarint(append(e.frame, itemChunk), m.MinTime)
	f = binary.AppendUvarint(f, uint64(m.MaxTime)-uint64(m.MinTime))
	f = binary.AppendUvarint(append(f, byte(m.Chunk.Encoding())), uint64(len(data)))
	e.frame = append(f, data...)
	return len(data)
}

func (e *seriesEncoder) end(count int) {
	e.frame = binary.AppendUvarint(append(e.frame, itemEnd), uint64(count))
}

// labelsDecoder reads the labels that a seriesEncoder wrote.
type labelsDecoder struct {
	prev    []labels.Label // views of the frame
	builder labels.ScratchBuilder
}

func newLabelsDecoder() labelsDecoder {
	d := labelsDecoder{builder: labels.NewScratchBuilder(16)}
	d.builder.SetUnsafeAdd(true)
	return d
}

func (l *labelsDecoder) begin() { l.prev = l.prev[:0] }

func (l *labelsDecoder) decode(d *rpcframe.Decoder) labels.Labels {
	l.builder.Reset()
	n := d.Number(len(d.Rest()))
	for i := range n {
		code := d.Byte()
		if i == len(l.prev) {
			if code != labelNew {
				d.Fail()
			}
			l.prev = append(l.prev, labels.Label{})
		}
		at := &l.prev[i]
		switch code {
		case labelSame:
		case labelNewValue:
			at.Value = d.View()
		case labelNew:
			at.Name = d.View()
			at.Value = d.View()
		default:
			d.Fail()
		}
		if d.Err() != nil {
			return labels.EmptyLabels()
		}
		l.builder.Add(at.Name, at.Value)
	}
	l.prev = l.prev[:n]
	return l.builder.Labels()
}

// decodeChunk reads a chunk behind its item byte. Its data alias the frame.
func decodeChunk(d *rpcframe.Decoder) (chunks.Meta, error) {
	m := chunks.Meta{MinTime: d.Varint()}
	m.MaxTime = int64(uint64(m.MinTime) + d.Uvarint())
	encoding := chunkenc.Encoding(d.Byte())
	data := d.Bytes(d.Number(len(d.Rest())))
	if d.Err() == nil && (m.MaxTime < m.MinTime || len(data) < chunkHeader) {
		d.Fail()
	}
	if d.Err() != nil {
		return m, d.Err()
	}
	var err error
	m.Chunk, err = chunkenc.FromData(encoding, data)
	return m, err
}

func openedFrame(held duramenpb.Held) []byte {
	frame := binary.AppendUvarint([]byte{frameOpened}, readVersion)
	return binary.AppendUvarint(binary.AppendVarint(frame, held.Floor), held.DeletedVersion)
}

// decodeOpened reads a frame without its first byte, as all that follow do. Bytes behind the fields are a newer version's.
func decodeOpened(frame []byte) (held duramenpb.Held, err error) {
	d := rpcframe.NewDecoder(frame)
	if v := d.Uvarint(); d.Err() == nil && v != readVersion {
		return held, fmt.Errorf("protocol version %d is not known, only %d", v, readVersion)
	}
	held = duramenpb.Held{Floor: d.Varint(), DeletedVersion: d.Uvarint()}
	return held, d.Err()
}

// answered counts what an answer consists of. Series of a Select are items, as values, exemplars and so on are.
type answered struct {
	items, chunks int
	warnings      []string
}

func (a answered) frame() []byte {
	frame := binary.AppendUvarint([]byte{frameDone}, uint64(a.items))
	frame = binary.AppendUvarint(frame, uint64(a.chunks))
	frame = binary.AppendUvarint(frame, uint64(len(a.warnings)))
	for _, w := range a.warnings {
		frame = rpcframe.AppendText(frame, w)
	}
	return frame
}

func decodeDone(frame []byte) (a answered, err error) {
	d := rpcframe.NewDecoder(frame)
	a.items, a.chunks = d.Number(math.MaxInt), d.Number(math.MaxInt)
	for n := d.Number(len(d.Rest())); n > 0 && d.Err() == nil; n-- {
		a.warnings = append(a.warnings, d.Text())
	}
	return a, d.Err()
}

func errorFrame(err error) []byte {
	frame := rpcframe.AppendText([]byte{frameError}, errkind.Of(err).String())
	frame = binary.AppendUvarint(frame, uint64(max(0, errkind.RetryAfter(err).Milliseconds())))
	return rpcframe.AppendText(frame, err.Error())
}

// toldError is what a frame of an error says.
type toldError struct {
	kind       errkind.Kind
	retryAfter time.Duration
	text       string
}

func decodeError(frame []byte) (e toldError, err error) {
	d := rpcframe.NewDecoder(frame)
	e.kind = errkind.Named(d.Text())
	e.retryAfter = time.Duration(d.Number(math.MaxInt32)) * time.Millisecond
	e.text = d.Text()
	return e, d.Err()
}

func decodeValues(dst []string, frame []byte) ([]string, error) {
	d := rpcframe.NewDecoder(frame)
	for d.More() {
		dst = append(dst, d.Text())
	}
	return dst, d.Err()
}

// exemplarItem is an exemplar with its series, of which only the first one writes the labels.
type exemplarItem struct {
	series labels.Labels
	first  bool
	exemplar.Exemplar
}

func appendLabels(dst []byte, lset labels.Labels) []byte {
	dst = binary.AppendUvarint(dst, uint64(lset.Len()))
	lset.Range(func(l labels.Label) { dst = rpcframe.AppendText(rpcframe.AppendText(dst, l.Name), l.Value) })
	return dst
}

func decodeLabels(d *rpcframe.Decoder) labels.Labels {
	b := labels.NewScratchBuilder(8)
	for n := d.Number(len(d.Rest())); n > 0 && d.Err() == nil; n-- {
		name := d.Text()
		b.Add(name, d.Text())
	}
	if d.Err() != nil {
		return labels.EmptyLabels()
	}
	return b.Labels()
}

func appendExemplar(dst []byte, e exemplarItem) []byte {
	if e.first {
		dst = appendLabels(append(dst, itemExemplarSeries), e.series)
	}
	dst = rpcframe.AppendFloat(appendLabels(append(dst, itemExemplar), e.Labels), e.Value)
	hasTs := byte(0)
	if e.HasTs {
		hasTs = 1
	}
	return append(binary.AppendVarint(dst, e.Ts), hasTs)
}

func decodeExemplars(dst []exemplar.QueryResult, frame []byte) (_ []exemplar.QueryResult, items int, err error) {
	d := rpcframe.NewDecoder(frame)
	for d.More() {
		switch d.Byte() {
		case itemExemplarSeries:
			dst = append(dst, exemplar.QueryResult{SeriesLabels: decodeLabels(&d)})
		case itemExemplar:
			if len(dst) == 0 {
				d.Fail()
				break
			}
			of := &dst[len(dst)-1]
			of.Exemplars = append(of.Exemplars, exemplar.Exemplar{
				Labels: decodeLabels(&d), Value: d.Float(), Ts: d.Varint(), HasTs: d.Byte() == 1,
			})
			items++
		default:
			d.Fail()
		}
	}
	return dst, items, d.Err()
}

func appendMetadata(dst []byte, m duramenpb.Metadata) []byte {
	dst = rpcframe.AppendText(rpcframe.AppendText(dst, m.Family), m.Type)
	return rpcframe.AppendText(rpcframe.AppendText(dst, m.Help), m.Unit)
}

func decodeMetadata(dst []duramenpb.Metadata, frame []byte) ([]duramenpb.Metadata, error) {
	d := rpcframe.NewDecoder(frame)
	for d.More() {
		dst = append(dst, duramenpb.Metadata{Family: d.Text(), Type: d.Text(), Help: d.Text(), Unit: d.Text()})
	}
	return dst, d.Err()
}

func headFrame(s *duramenpb.HeadStats) []byte {
	frame := binary.AppendUvarint([]byte{frameHead}, s.Series)
	frame = binary.AppendUvarint(frame, uint64(s.LabelPairs))
	frame = binary.AppendVarint(frame, s.Chunks)
	return binary.AppendVarint(binary.AppendVarint(frame, s.MinTime), s.MaxTime)
}

func decodeHead(s *duramenpb.HeadStats, frame []byte) error {
	d := rpcframe.NewDecoder(frame)
	s.Series, s.LabelPairs, s.Chunks = d.Uvarint(), d.Number(math.MaxInt), d.Varint()
	s.MinTime, s.MaxTime = d.Varint(), d.Varint()
	return d.Err()
}

// headLists are the lists of s in the order of their numbers in frames.
func headLists(s *duramenpb.HeadStats) [4]*[]duramenpb.Count {
	return [...]*[]duramenpb.Count{&s.SeriesByMetric, &s.SeriesByPair, &s.ValuesByLabel, &s.BytesByLabel}
}

// countItem is a count with the number of its list.
type countItem struct {
	list byte
	duramenpb.Count
}

func appendCount(dst []byte, c countItem) []byte {
	return binary.AppendUvarint(rpcframe.AppendText(append(dst, c.list), c.Name), c.Value)
}

func decodeCounts(s *duramenpb.HeadStats, frame []byte) (n int, err error) {
	lists := headLists(s)
	d := rpcframe.NewDecoder(frame)
	for d.More() {
		list := int(d.Byte())
		c := duramenpb.Count{Name: d.Text(), Value: d.Uvarint()}
		if list < len(lists) { // else a newer version's
			*lists[list] = append(*lists[list], c)
		}
		n++
	}
	return n, d.Err()
}

func userFrame(s duramenpb.UserStats) []byte {
	return rpcframe.AppendFloat(binary.AppendUvarint([]byte{frameUser}, s.Series), s.SamplesPerSecond)
}

func decodeUser(frame []byte) (s duramenpb.UserStats, err error) {
	d := rpcframe.NewDecoder(frame)
	s.Series, s.SamplesPerSecond = d.Uvarint(), d.Float()
	return s, d.Err()
}
