package index

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	tsdbindex "github.com/prometheus/prometheus/tsdb/index"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a block as Prometheus writes it, with the sidecar built from it.
type fixture struct {
	block     *tsdb.Block
	ix        *tsdbindex.Reader
	segments  []int64
	files     [][]byte // the chunk files
	dir       string
	dec       *Decoder
	sidecar   []byte
	directory *Directory
}

// lsetOf returns labels of which some sort before the metric's name, some series lack, and some are nearly unique.
func lsetOf(r *rand.Rand, i int, style string) labels.Labels {
	var b labels.ScratchBuilder
	if style != "nameless" || i%3 > 0 {
		b.Add(labels.MetricName, fmt.Sprintf("m%d", r.IntN(7)))
	}
	if style == "upper" {
		b.Add("Zone", fmt.Sprint(r.IntN(3)))
	}
	b.Add("i", fmt.Sprint(i))
	if r.IntN(3) > 0 {
		b.Add("pod", fmt.Sprintf("pod-%d", r.IntN(40)))
	}
	if r.IntN(50) == 0 {
		b.Add(fmt.Sprintf("rare%d", r.IntN(4)), "x")
	}
	b.Add("const", "1")
	b.Sort()
	return b.Labels()
}

func newFixture(t testing.TB, r *rand.Rand, style string, series, samples int) *fixture {
	t.Helper()
	dir := t.TempDir()
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), dir, 1<<40)
	require.NoError(t, err)
	defer func() { require.NoError(t, w.Close()) }()
	for i := range series {
		lset, app := lsetOf(r, i, style), w.AppenderV2(t.Context())
		for n := range 1 + r.IntN(samples) {
			at := int64(n)*1000 + int64(r.IntN(500))
			if _, err := app.Append(0, lset, 0, at, r.Float64(), nil, nil, storage.AOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		require.NoError(t, app.Commit())
	}
	id, err := w.Flush(t.Context())
	require.NoError(t, err)
	return openFixture(t, filepath.Join(dir, id.String()))
}

func openFixture(t testing.TB, dir string) *fixture {
	t.Helper()
	f := &fixture{dir: dir}
	var err error
	f.block, err = tsdb.OpenBlock(slog.New(slog.DiscardHandler), dir, nil, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.block.Close()) })
	f.ix, err = tsdbindex.NewFileReader(filepath.Join(dir, "index"), tsdbindex.DecodePostingsRaw)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.ix.Close()) })
	files, err := os.ReadDir(filepath.Join(dir, "chunks"))
	require.NoError(t, err)
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(dir, "chunks", file.Name()))
		require.NoError(t, err)
		f.files, f.segments = append(f.files, data), append(f.segments, int64(len(data)))
	}
	f.dec, err = NewDecoder()
	require.NoError(t, err)
	t.Cleanup(f.dec.Close)
	var out bytes.Buffer
	meta := f.block.Meta()
	size, directory, err := Build(t.Context(), &out, f.ix, meta.MinTime, meta.MaxTime, f.segments)
	require.NoError(t, err)
	require.Equal(t, int64(out.Len()), size)
	f.sidecar = out.Bytes()
	n, err := DirectorySize(f.sidecar)
	require.NoError(t, err)
	require.Equal(t, directory, n)
	f.directory, err = ParseDirectory(f.dec, f.sidecar[size-n:])
	require.NoError(t, err)
	return f
}

func (f *fixture) page(t testing.TB, number int) *Page {
	t.Helper()
	e := f.directory.Page(number)
	p, err := f.directory.DecodePage(f.dec, number, f.sidecar[e.Offset:e.Offset+e.Length])
	require.NoError(t, err)
	return p
}

// found is what the sidecar says of the series that satisfy the matchers, in label order.
func (f *fixture) found(t testing.TB, matchers ...*labels.Matcher) []string {
	t.Helper()
	meta := f.block.Meta()
	pages, err := f.directory.Candidates(f.dec, meta.MinTime, meta.MaxTime, matchers...)
	require.NoError(t, err)
	type line struct {
		lset labels.Labels
		text string
	}
	var lines []line
	var b labels.ScratchBuilder
	for _, number := range pages {
		p := f.page(t, number)
		at := p.Select(nil, matchers)
		for _, i := range at {
			lset := p.Labels(i, &b)
			if labels.StableHash(lset) != p.Hash(i) {
				t.Fatalf("hash of %s is %d", lset, p.Hash(i))
			}
			text := lset.String()
			for _, c := range p.Chunks(i) {
				text += fmt.Sprintf(" %d-%d@%d/%d+%d", c.MinTime, c.MaxTime, c.Segment, c.Offset, c.Length)
				f.checkInside(t, number, c)
			}
			lines = append(lines, line{lset, text})
		}
	}
	if !f.directory.Ordered {
		slices.SortFunc(lines, func(a, b line) int { return labels.Compare(a.lset, b.lset) })
	}
	var out []string
	for _, l := range lines {
		out = append(out, l.text)
	}
	return out
}

// checkInside checks that the directory's spans and times hold the chunk. It is called for each chunk of each answer, so
// it asserts nothing unless something is wrong.
func (f *fixture) checkInside(t testing.TB, page int, c Chunk) {
	e := f.directory.Page(page)
	for _, s := range e.Spans {
		if s.Segment == c.Segment && c.MinTime >= e.MinTime && c.MaxTime <= e.MaxTime &&
			c.Offset >= s.Start && c.Offset+c.Length <= s.End {
			return
		}
	}
	t.Fatalf("chunk %+v is outside of its page's entry %+v", c, e)
}

// want is the same from the block's own index, with the true lengths of the chunks.
func (f *fixture) want(t testing.TB, matchers ...*labels.Matcher) []string {
	t.Helper()
	ir, err := f.block.Index()
	require.NoError(t, err)
	defer ir.Close()
	p, err := tsdb.PostingsForMatchers(t.Context(), ir, matchers...)
	require.NoError(t, err)
	var out []string
	var b labels.ScratchBuilder
	var metas []chunks.Meta
	for p = ir.SortedPostings(p); p.Next(); {
		if err := ir.Series(p.At(), &b, &metas); err != nil {
			t.Fatal(err)
		}
		text := b.Labels().String()
		for _, m := range metas {
			segment, offset := chunks.BlockChunkRef(m.Ref).Unpack()
			text += fmt.Sprintf(" %d-%d@%d/%d+%d", m.MinTime, m.MaxTime, segment, offset, f.recordLength(t, segment, offset))
		}
		out = append(out, text)
	}
	require.NoError(t, p.Err())
	return out
}

func (f *fixture) recordLength(t testing.TB, segment, offset int) int {
	s := scanner{b: f.files[segment][offset:]}
	n := s.uvarint()
	if s.err != nil {
		t.Fatal(s.err)
	}
	return len(f.files[segment]) - offset - len(s.b) + 1 + int(n) + 4
}

func randomMatchers(r *rand.Rand) []*labels.Matcher {
	all := []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, fmt.Sprintf("m%d", r.IntN(8))),
		labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, "m[0-2]|m6"),
		labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, "m1|m3|nothing"),
		labels.MustNewMatcher(labels.MatchNotEqual, labels.MetricName, "m1"),
		labels.MustNewMatcher(labels.MatchEqual, labels.MetricName, ""),
		labels.MustNewMatcher(labels.MatchEqual, "pod", fmt.Sprintf("pod-%d", r.IntN(42))),
		labels.MustNewMatcher(labels.MatchEqual, "pod", ""),
		labels.MustNewMatcher(labels.MatchNotEqual, "pod", ""),
		labels.MustNewMatcher(labels.MatchRegexp, "pod", "pod-1.*"),
		labels.MustNewMatcher(labels.MatchRegexp, "pod", "pod-1|"),
		labels.MustNewMatcher(labels.MatchNotRegexp, "pod", "pod-[0-3].*"),
		labels.MustNewMatcher(labels.MatchRegexp, "rare1", "x|y"),
		labels.MustNewMatcher(labels.MatchNotRegexp, "rare2", ".+"),
		labels.MustNewMatcher(labels.MatchRegexp, "absent", ".*"),
		labels.MustNewMatcher(labels.MatchEqual, "absent", "x"),
		labels.MustNewMatcher(labels.MatchRegexp, "i", ".*7"),
		labels.MustNewMatcher(labels.MatchEqual, "Zone", "1"),
		labels.MustNewMatcher(labels.MatchNotEqual, "const", "2"),
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+r.IntN(3)]
}

func TestSidecarSaysWhatTheIndexSays(t *testing.T) {
	for _, style := range []string{"plain", "upper", "nameless"} {
		t.Run(style, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, uint64(len(style))))
			series, asks := 3000, 60
			if raceDetector { // nothing here runs beside anything else
				series, asks = 1800, 20
			}
			f := newFixture(t, r, style, series, 150)
			require.GreaterOrEqual(t, f.directory.Pages(), 7)
			require.Equal(t, style == "plain", f.directory.Ordered)
			for range asks {
				ms := randomMatchers(r)
				require.Equal(t, f.want(t, ms...), f.found(t, ms...), "%v", ms)
			}
			f.compareLabels(t)
		})
	}
}

func (f *fixture) compareLabels(t *testing.T) {
	t.Helper()
	want, err := f.ix.LabelNames(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, f.directory.LabelNames())
	for _, name := range append(want, "absent") {
		want, err := f.ix.SortedLabelValues(t.Context(), name, nil)
		require.NoError(t, err)
		got, err := f.directory.LabelValues(f.dec, name)
		require.NoError(t, err)
		require.Equal(t, slices.Clip(append([]string{}, want...)), slices.Clip(append([]string{}, got...)), name)
	}
}

func TestSidecarOfAnEmptyBlock(t *testing.T) {
	var out bytes.Buffer
	b, err := NewBuilder(&out, 1, 2, nil)
	require.NoError(t, err)
	_, _, err = b.Finish()
	require.NoError(t, err)
	dec, err := NewDecoder()
	require.NoError(t, err)
	defer dec.Close()
	d, err := ParseDirectory(dec, out.Bytes())
	require.NoError(t, err)
	pages, err := d.Candidates(dec, 0, 10, labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ".*"))
	require.NoError(t, err)
	require.Empty(t, pages)
}

func TestBuilderRefusesWhatCannotBe(t *testing.T) {
	a, b := labels.FromStrings("a", "1"), labels.FromStrings("a", "2")
	chunk := Chunk{MinTime: 1, MaxTime: 2, Offset: 8, Length: 10}
	for name, add := range map[string]func(*Builder) error{
		"series out of order": func(x *Builder) error { return firstError(x.Add(b, nil), x.Add(a, nil)) },
		"series twice":        func(x *Builder) error { return firstError(x.Add(a, nil), x.Add(a, nil)) },
		"unknown segment":     func(x *Builder) error { return x.Add(a, []Chunk{{Segment: 1, Offset: 8, Length: 1}}) },
		"behind the segment":  func(x *Builder) error { return x.Add(a, []Chunk{{Offset: 95, Length: 6}}) },
		"without length":      func(x *Builder) error { return x.Add(a, []Chunk{{Offset: 8}}) },
		"ends first":          func(x *Builder) error { return x.Add(a, []Chunk{{MinTime: 2, MaxTime: 1, Offset: 8, Length: 1}}) },
	} {
		t.Run(name, func(t *testing.T) {
			x, err := NewBuilder(&bytes.Buffer{}, 0, 10, []int64{100})
			require.NoError(t, err)
			require.Error(t, add(x))
			_, _, err = x.Finish()
			require.Error(t, err, "a builder that failed writes no directory")
		})
	}
	x, err := NewBuilder(&bytes.Buffer{}, 0, 10, []int64{100})
	require.NoError(t, err)
	require.NoError(t, x.Add(a, []Chunk{chunk}))
	require.NoError(t, x.Add(b, []Chunk{chunk}))
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestPagesAreBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	f := newFixture(t, r, "plain", 6000, 3)
	for i := range f.directory.Pages() {
		require.LessOrEqual(t, int(f.directory.Page(i).Series), maxPageSeries)
		require.Less(t, f.directory.Page(i).Length, int64(64<<10))
	}
	// Series that hardly share names must not make pages of as many cells as names times series.
	var out bytes.Buffer
	b, err := NewBuilder(&out, 0, 10, []int64{100})
	require.NoError(t, err)
	for i := range 2000 {
		require.NoError(t, b.Add(labels.FromStrings(labels.MetricName, "m", fmt.Sprintf("l%06d", i), "x"), nil))
	}
	_, _, err = b.Finish()
	require.NoError(t, err)
	d, err := ParseDirectory(f.dec, out.Bytes())
	require.NoError(t, err)
	require.Equal(t, uint64(2000), d.Series)
	require.GreaterOrEqual(t, d.Pages(), 2000/257)
}

// TestEveryByteIsChecked flips each byte of a sidecar: whatever is decoded after that is refused.
func TestEveryByteIsChecked(t *testing.T) {
	f := newFixture(t, rand.New(rand.NewPCG(3, 3)), "plain", 40, 5)
	read := func(sidecar []byte) error {
		n, err := DirectorySize(sidecar)
		if err != nil {
			return err
		}
		if n > int64(len(sidecar)) {
			return ErrDamaged
		}
		d, err := ParseDirectory(f.dec, sidecar[int64(len(sidecar))-n:])
		if err != nil {
			return err
		}
		for _, name := range d.LabelNames() {
			if _, err := d.LabelValues(f.dec, name); err != nil {
				return err
			}
		}
		for i := range d.Pages() {
			e := d.Page(i)
			if _, err := d.DecodePage(f.dec, i, sidecar[e.Offset:e.Offset+e.Length]); err != nil {
				return err
			}
		}
		return nil
	}
	require.NoError(t, read(f.sidecar))
	var unnoticed []int
	for i := range f.sidecar {
		damaged := slices.Clone(f.sidecar)
		damaged[i] ^= 0x41
		if err := read(damaged); err == nil {
			unnoticed = append(unnoticed, i)
		} else {
			require.ErrorIs(t, err, ErrDamaged, "byte %d", i)
		}
	}
	require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7}, unnoticed, "the magic at the beginning is for people")
	for n := range f.sidecar {
		require.ErrorIs(t, read(f.sidecar[:n]), ErrDamaged, "cut to %d", n)
	}
}

func FuzzParseDirectory(f *testing.F) {
	fix := newFixture(f, rand.New(rand.NewPCG(3, 3)), "upper", 40, 5)
	n, err := DirectorySize(fix.sidecar)
	require.NoError(f, err)
	dir := fix.sidecar[int64(len(fix.sidecar))-n:]
	ft, err := parseFooter(dir)
	require.NoError(f, err)
	core, err := fix.dec.unpack("core", dir[:ft.packed], uint64(ft.raw), ft.sum)
	require.NoError(f, err)
	f.Add(core, dir[ft.packed:len(dir)-footerSize])
	z, err := newEncoder()
	require.NoError(f, err)
	matcher := labels.MustNewMatcher(labels.MatchRegexp, "pod", "p.*")
	f.Fuzz(func(t *testing.T, core, sections []byte) {
		packed := z.EncodeAll(core, nil)
		dir := append(slices.Clone(packed), sections...)
		dir = appendFooter(dir, uint32(len(packed)), uint32(len(core)), crc32.Checksum(packed, castagnoli), uint32(len(dir)+footerSize))
		d, err := ParseDirectory(fix.dec, dir)
		if err != nil {
			require.ErrorIs(t, err, ErrDamaged)
			return
		}
		_, _ = d.Candidates(fix.dec, 0, 1<<40, matcher)
		for _, name := range d.LabelNames() {
			_, _ = d.LabelValues(fix.dec, name)
		}
	})
}

func FuzzDecodePage(f *testing.F) {
	fix := newFixture(f, rand.New(rand.NewPCG(3, 3)), "upper", 40, 5)
	for i := range fix.directory.Pages() {
		e := fix.directory.pages[i]
		raw, err := fix.dec.unpack("page", fix.sidecar[e.Offset:e.Offset+e.Length], e.raw, e.sum)
		require.NoError(f, err)
		f.Add(raw, int(e.Series))
	}
	matchers := []*labels.Matcher{labels.MustNewMatcher(labels.MatchNotEqual, "pod", "pod-1")}
	f.Fuzz(func(t *testing.T, raw []byte, series int) {
		p, err := decodePage(raw, 0, series, fix.segments)
		if err != nil {
			require.ErrorIs(t, err, ErrDamaged)
			return
		}
		var b labels.ScratchBuilder
		for _, i := range p.Select(nil, matchers) {
			p.Labels(i, &b)
			for _, c := range p.Chunks(i) {
				require.LessOrEqual(t, int64(c.Offset)+int64(c.Length), fix.segments[c.Segment])
			}
		}
	})
}

// BenchmarkPage decodes a page and selects one series of it, per series of the page.
func BenchmarkPage(b *testing.B) {
	f := newFixture(b, rand.New(rand.NewPCG(1, 1)), "plain", 10000, 300)
	e := f.directory.Page(3)
	packed := f.sidecar[e.Offset : e.Offset+e.Length]
	m := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "pod", "pod-1")}
	var at []int
	b.ReportAllocs()
	for b.Loop() {
		p, err := f.directory.DecodePage(f.dec, 3, packed)
		if err != nil {
			b.Fatal(err)
		}
		at = p.Select(at[:0], m)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(e.Series), "ns/series")
	var size int64
	require.NoError(b, filepath.WalkDir(f.dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.HasSuffix(path, "duramen.idx") {
			info, _ := d.Info()
			size += info.Size()
		}
		return err
	}))
	b.ReportMetric(100*float64(len(f.sidecar))/float64(size), "%block")
	b.ReportMetric(float64(len(f.sidecar))/10000, "B/series")
}
