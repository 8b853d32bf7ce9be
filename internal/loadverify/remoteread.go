package loadverify

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/klauspost/compress/s2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/duramendb/duramen/internal/loadplan"
)

// maxFrame bounds one message of a streamed answer. Servers aim for 1 MiB.
const maxFrame = 64 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// remoteReader reads through remote read, streamed chunks if the server can. It belongs to one goroutine.
type remoteReader struct {
	server *Server
	buf    bytes.Buffer
	stream stream
}

// The media types of answers.
const (
	streamedType = "application/x-streamed-protobuf"
	sampledType  = "application/x-protobuf"
)

func (r *remoteReader) read(ctx context.Context, sel selection, each func(labels.Labels, []sample)) ([]string, error) {
	pods := make([]string, len(sel.pods))
	for i, p := range sel.pods {
		pods[i] = regexp.QuoteMeta(p)
	}
	question := prompb.ReadRequest{
		Queries: []*prompb.Query{{
			StartTimestampMs: sel.mint, EndTimestampMs: sel.maxt,
			Matchers: []*prompb.LabelMatcher{
				{Type: prompb.LabelMatcher_EQ, Name: loadplan.RunLabel, Value: sel.run},
				{Type: prompb.LabelMatcher_RE, Name: "pod", Value: strings.Join(pods, "|")},
			},
		}},
		AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{
			prompb.ReadRequest_STREAMED_XOR_CHUNKS, prompb.ReadRequest_SAMPLES,
		},
	}
	raw, err := question.Marshal()
	if err != nil {
		return nil, err
	}
	resp, err := r.server.post(ctx, sel.tenant, "/api/v1/read", http.Header{
		"Content-Type": {sampledType}, "Content-Encoding": {"snappy"}, "X-Prometheus-Remote-Read-Version": {"0.1.0"},
	}, s2.EncodeSnappy(nil, raw))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	r.stream.mint, r.stream.maxt = sel.mint, sel.maxt
	switch media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";"); media {
	case streamedType:
		err = r.stream.decode(resp.Body, each)
	case sampledType:
		if err = readAll(&r.buf, resp.Body); err == nil {
			err = r.stream.decodeSampled(r.buf.Bytes(), each)
		}
	default:
		return nil, fmt.Errorf("remote read answered with the type %q", media)
	}
	if err != nil {
		return nil, fmt.Errorf("remote read: %w", err)
	}
	return nil, nil
}

// stream decodes an answer. What each gets is valid during the call.
type stream struct {
	mint, maxt int64

	builder labels.ScratchBuilder
	frame   []byte
	samples []sample
}

var errFrame = errors.New("damaged frame")

// decode reads a streamed answer: frames of a length, a CRC and a message with chunks. A series may go on in the next
// frame.
func (s *stream) decode(body io.Reader, each func(labels.Labels, []sample)) error {
	in := bufio.NewReaderSize(body, 1<<16)
	series, open := labels.EmptyLabels(), false
	flush := func() {
		if open {
			each(series, s.samples)
		}
		s.samples, open = s.samples[:0], false
	}
	for {
		var message prompb.ChunkedReadResponse
		more, err := s.next(in, &message)
		if err != nil {
			return err
		}
		if !more {
			flush()
			return nil
		}
		for _, m := range message.ChunkedSeries {
			if m == nil {
				return fmt.Errorf("%w: a series without content", errFrame)
			}
			if lset := s.labels(m.Labels); !open || !labels.Equal(lset, series) {
				flush()
				series, open = lset, true
			}
			for i := range m.Chunks {
				if err := s.chunk(&m.Chunks[i]); err != nil {
					return err
				}
			}
		}
	}
}

// next reads one frame.
func (s *stream) next(in *bufio.Reader, message *prompb.ChunkedReadResponse) (more bool, err error) {
	size, err := binary.ReadUvarint(in)
	if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", errRetry, err)
	}
	if size > maxFrame {
		return false, fmt.Errorf("%w: it says that it has %d bytes", errFrame, size)
	}
	var sum [4]byte
	if _, err := io.ReadFull(in, sum[:]); err != nil {
		return false, fmt.Errorf("%w: %w", errRetry, err)
	}
	s.frame = slices.Grow(s.frame[:0], int(size))[:size]
	if _, err := io.ReadFull(in, s.frame); err != nil {
		return false, fmt.Errorf("%w: %w", errRetry, err)
	}
	if crc32.Checksum(s.frame, castagnoli) != binary.BigEndian.Uint32(sum[:]) {
		return false, fmt.Errorf("%w: the CRC differs", errFrame)
	}
	if err := message.Unmarshal(s.frame); err != nil {
		return false, fmt.Errorf("%w: %w", errFrame, err)
	}
	return true, nil
}

func (s *stream) labels(list []prompb.Label) labels.Labels {
	s.builder.Reset()
	for _, l := range list {
		s.builder.Add(l.Name, l.Value)
	}
	s.builder.Sort()
	return s.builder.Labels()
}

// minChunk is the size below which a chunk has no header: the number of its samples, and flags in some encodings.
const minChunk = 3

// chunk appends the samples of a chunk that lie in the times asked for; a chunk may begin earlier and end later.
func (s *stream) chunk(c *prompb.Chunk) error {
	if len(c.Data) < minChunk {
		return fmt.Errorf("%w: a chunk of %d bytes", errFrame, len(c.Data))
	}
	chunk, err := chunkenc.FromData(chunkenc.Encoding(c.Type), c.Data)
	if err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	it, n := chunk.Iterator(nil), 0
	for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
		n++
		t := it.AtT()
		if t < s.mint || t > s.maxt {
			continue
		}
		got := sample{t: t}
		switch kind {
		case chunkenc.ValHistogram:
			_, got.h = it.AtHistogram(nil)
		case chunkenc.ValFloatHistogram:
			_, got.fh = it.AtFloatHistogram(nil)
		default:
			_, got.v = it.At()
		}
		s.samples = append(s.samples, got)
	}
	if n != chunk.NumSamples() { // what is cut off is not always an error of the iterator
		return fmt.Errorf("%w: %d of the %d samples of a chunk: %w", errFrame, n, chunk.NumSamples(), it.Err())
	}
	return nil
}

// decodeSampled reads an answer of the older kind: one compressed message with samples.
func (s *stream) decodeSampled(body []byte, each func(labels.Labels, []sample)) error {
	if n, err := s2.DecodedLen(body); err != nil || n > maxBody {
		return fmt.Errorf("%w: it says that it has %d bytes uncompressed", errFrame, n)
	}
	raw, err := s2.Decode(nil, body)
	if err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	var message prompb.ReadResponse
	if err := message.Unmarshal(raw); err != nil {
		return fmt.Errorf("%w: %w", errFrame, err)
	}
	for _, result := range message.Results {
		if result == nil {
			continue
		}
		for _, m := range result.Timeseries {
			if m == nil {
				continue
			}
			s.samples = s.samples[:0]
			for _, p := range m.Samples {
				s.samples = append(s.samples, sample{t: p.Timestamp, v: p.Value})
			}
			for i := range m.Histograms {
				got := sample{t: m.Histograms[i].Timestamp}
				if m.Histograms[i].IsFloatHistogram() {
					got.fh = m.Histograms[i].ToFloatHistogram()
				} else {
					got.h = m.Histograms[i].ToIntHistogram()
				}
				s.samples = append(s.samples, got)
			}
			if len(m.Samples) > 0 && len(m.Histograms) > 0 {
				slices.SortStableFunc(s.samples, func(a, b sample) int { return int(a.t - b.t) })
			}
			each(s.labels(m.Labels), s.samples)
		}
	}
	s.samples = s.samples[:0]
	return nil
}
