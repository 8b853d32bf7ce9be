package gateway

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"

	"github.com/duramendb/duramen/internal/rpcframe"
)

// The first byte of a frame. docs/protocol.md describes each.
const (
	// From the server.
	frameOpened = 1
	frameSeries = 2
	frameChunks = 3
	frameError  = 4
	frameValues = 5
	frameDone   = 6
	// From the client.
	frameOpen   = 16
	frameMore   = 17
	frameRead   = 18
	frameCredit = 19
)

// What follows in a frame of series.
const (
	itemFound = 1 // labels and the blocks whose next series this is
	itemEnd   = 2 // a block that has no more series
	itemTurn  = 3 // the blocks whose next series is next in the order of reading
)

// What follows in a frame of chunks.
const (
	itemRun      = 1 // an entry, of which chunks follow
	itemChunk    = 2
	itemEntryEnd = 3 // the entry has no more chunks
)

// runCharge is what an entry costs of the credit beside the bytes of its chunks, so that empty ones cost something.
const runCharge = 16

// blocksList encodes the numbers of blocks: their count, then each; a count of zero stands for the list before.
type blocksList struct{ last []int }

func (l *blocksList) append(dst []byte, list []int) []byte {
	if len(list) > 0 && slices.Equal(list, l.last) {
		return append(dst, 0)
	}
	l.last = append(l.last[:0], list...)
	dst = binary.AppendUvarint(dst, uint64(len(list)))
	for _, b := range list {
		dst = binary.AppendUvarint(dst, uint64(b))
	}
	return dst
}

// decode returns a list that is valid until the next call; its numbers are below blocks.
func (l *blocksList) decode(d *rpcframe.Decoder, blocks int) []int {
	n := d.Number(blocks)
	if n == 0 {
		if len(l.last) == 0 {
			d.Fail()
		}
		return l.last
	}
	l.last = l.last[:0]
	for range n {
		l.last = append(l.last, d.Number(blocks-1))
	}
	return l.last
}

func appendLabels(dst []byte, lset labels.Labels) []byte {
	dst = binary.AppendUvarint(dst, uint64(lset.Len()))
	lset.Range(func(l labels.Label) { dst = rpcframe.AppendText(rpcframe.AppendText(dst, l.Name), l.Value) })
	return dst
}

func decodeLabels(d *rpcframe.Decoder, b *labels.ScratchBuilder) labels.Labels {
	b.Reset()
	for range d.Number(len(d.Rest())) {
		name := d.Text()
		b.Add(name, d.Text())
	}
	if d.Err() != nil {
		return labels.EmptyLabels()
	}
	return b.Labels()
}

// seriesSink takes what a frame of series says, in its order.
type seriesSink interface {
	found(lset labels.Labels, blocks []int) error
	ended(block int, series uint64) error
	turn(blocks []int) error
}

// decodeSeries gives the items of a frame of series, without its first byte, to sink.
func decodeSeries(frame []byte, blocks int, b *labels.ScratchBuilder, sink seriesSink) error {
	d := rpcframe.NewDecoder(frame)
	var list blocksList
	for d.More() {
		var err error
		switch d.Byte() {
		case itemFound:
			lset := decodeLabels(&d, b)
			if of := list.decode(&d, blocks); d.Err() == nil {
				err = sink.found(lset, of)
			}
		case itemEnd:
			block := d.Number(blocks - 1)
			if series := d.Uvarint(); d.Err() == nil {
				err = sink.ended(block, series)
			}
		case itemTurn:
			if of := list.decode(&d, blocks); d.Err() == nil {
				err = sink.turn(of)
			}
		default:
			d.Fail()
		}
		if err != nil {
			return err
		}
	}
	return d.Err()
}

func appendChunk(dst []byte, m chunks.Meta, data []byte) []byte {
	dst = append(dst, itemChunk)
	dst = binary.AppendVarint(dst, m.MinTime)
	dst = binary.AppendUvarint(dst, uint64(m.MaxTime)-uint64(m.MinTime))
	dst = append(dst, byte(m.Chunk.Encoding()))
	dst = binary.AppendUvarint(dst, uint64(len(data)))
	return append(dst, data...)
}

// chunkSink takes what a frame of chunks says, in its order.
type chunkSink interface {
	// run: chunks of the entry at position follow, of which first is the number of the first.
	run(position, first int) error
	chunk(m chunks.Meta, size int) error
	// entryEnd: the entry has count chunks in all; sum is the bytes of those sent from where the reading began.
	entryEnd(count, sum uint64) error
}

// chunkFrameGeneration returns the generation of a frame of chunks without its first byte, and the items.
func chunkFrameGeneration(frame []byte) (generation uint64, items []byte, err error) {
	d := rpcframe.NewDecoder(frame)
	generation = d.Uvarint()
	return generation, d.Rest(), d.Err()
}

// decodeChunks gives items to sink. The data of chunks alias them.
func decodeChunks(items []byte, sink chunkSink) error {
	d := rpcframe.NewDecoder(items)
	for d.More() {
		var err error
		switch d.Byte() {
		case itemRun:
			position := d.Number(math.MaxInt32)
			if first := d.Number(math.MaxInt32); d.Err() == nil {
				err = sink.run(position, first)
			}
		case itemChunk:
			m := chunks.Meta{MinTime: d.Varint()}
			m.MaxTime = int64(uint64(m.MinTime) + d.Uvarint())
			encoding := chunkenc.Encoding(d.Byte())
			data := d.Bytes(d.Number(len(d.Rest())))
			if d.Err() != nil {
				break
			}
			if m.MaxTime < m.MinTime {
				return rpcframe.ErrCut
			}
			if m.Chunk, err = chunkenc.FromData(encoding, data); err == nil {
				err = sink.chunk(m, len(data))
			}
		case itemEntryEnd:
			count := d.Uvarint()
			if sum := d.Uvarint(); d.Err() == nil {
				err = sink.entryEnd(count, sum)
			}
		default:
			d.Fail()
		}
		if err != nil {
			return err
		}
	}
	return d.Err()
}

func openedFrame(blocks []ulid.ULID) []byte {
	frame := binary.AppendUvarint([]byte{frameOpened}, protocolVersion)
	for _, id := range blocks {
		frame = append(frame, id[:]...)
	}
	return frame
}

// decodeOpened returns the blocks of which the server will give the series, from a frame without its first byte.
func decodeOpened(frame []byte) ([]ulid.ULID, error) {
	d := rpcframe.NewDecoder(frame)
	if v := d.Uvarint(); d.Err() == nil && v != protocolVersion {
		return nil, fmt.Errorf("protocol version %d is not known, only %d", v, protocolVersion)
	}
	if len(d.Rest())%len(ulid.ULID{}) != 0 {
		d.Fail()
	}
	ids := make([]ulid.ULID, 0, len(d.Rest())/len(ulid.ULID{}))
	for d.More() {
		ids = append(ids, ulid.ULID(d.Bytes(len(ulid.ULID{}))))
	}
	return ids, d.Err()
}

// command is what a client says while a Select goes on.
type command struct {
	more       int // series that the server may send beyond those before
	read       bool
	generation uint64
	position   int
	skip       int
	credit     int64 // bytes
}

func (c command) frame() []byte {
	switch {
	case c.read:
		frame := binary.AppendUvarint([]byte{frameRead}, c.generation)
		frame = binary.AppendUvarint(frame, uint64(c.position))
		frame = binary.AppendUvarint(frame, uint64(c.skip))
		return binary.AppendUvarint(frame, uint64(c.credit))
	case c.credit > 0:
		return binary.AppendUvarint(binary.AppendUvarint([]byte{frameCredit}, c.generation), uint64(c.credit))
	default:
		return binary.AppendUvarint([]byte{frameMore}, uint64(c.more))
	}
}

func decodeCommand(frame []byte) (c command, err error) {
	d := rpcframe.NewDecoder(frame)
	switch d.Byte() {
	case frameMore:
		c.more = d.Number(math.MaxInt32)
	case frameRead:
		c.read, c.generation = true, d.Uvarint()
		c.position, c.skip = d.Number(math.MaxInt32), d.Number(math.MaxInt32)
		c.credit = int64(d.Number(math.MaxInt32))
	case frameCredit:
		c.generation, c.credit = d.Uvarint(), int64(d.Number(math.MaxInt32))
	default:
		d.Fail()
	}
	if len(d.Rest()) > 0 {
		d.Fail()
	}
	return c, d.Err()
}

// valuesFrame takes as many of values as fit a frame and returns the rest.
func valuesFrame(values []string) (frame []byte, rest []string) {
	frame = []byte{frameValues}
	for len(values) > 0 && len(frame) < frameBytes {
		frame = rpcframe.AppendText(frame, values[0])
		values = values[1:]
	}
	return frame, values
}

func decodeValues(dst []string, frame []byte) ([]string, error) {
	d := rpcframe.NewDecoder(frame)
	for d.More() {
		dst = append(dst, d.Text())
	}
	return dst, d.Err()
}

// jsonFrame is for requests: there is one a stream, and new fields must not confuse older servers.
func jsonFrame(request any) ([]byte, error) {
	data, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("encode the request to a store-gateway: %w", err)
	}
	return append([]byte{frameOpen}, data...), nil
}

func milliseconds(d time.Duration) uint64 { return uint64(max(0, d.Milliseconds())) }
