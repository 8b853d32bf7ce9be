package querier

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	config_util "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// scriptedRecent is an ingester whose series a test decides one by one.
type scriptedRecent struct {
	next    func(ctx context.Context, i int) (storage.Series, error) // nil, nil ends the set
	onClose func()
}

func (r *scriptedRecent) Querier(
	context.Context, string, duramenpb.View, int64, int64,
) (storage.Querier, duramenpb.Held, error) {
	return &scriptedQuerier{r: r}, duramenpb.Held{}, nil
}

func (r *scriptedRecent) ChunkQuerier(
	context.Context, string, duramenpb.View, int64, int64,
) (storage.ChunkQuerier, duramenpb.Held, error) {
	return scriptedChunkQuerier{&scriptedQuerier{r: r}}, duramenpb.Held{}, nil
}

type scriptedQuerier struct {
	listQuerier
	r *scriptedRecent
}

func (q *scriptedQuerier) Close() error {
	if q.r.onClose != nil {
		q.r.onClose()
	}
	return nil
}

func (q *scriptedQuerier) Select(
	ctx context.Context, _ bool, _ *storage.SelectHints, _ ...*labels.Matcher,
) storage.SeriesSet {
	return &scriptedSet{ctx: ctx, r: q.r}
}

type scriptedChunkQuerier struct{ *scriptedQuerier }

func (q scriptedChunkQuerier) Select(
	ctx context.Context, sorted bool, hints *storage.SelectHints, m ...*labels.Matcher,
) storage.ChunkSeriesSet {
	return storage.NewSeriesSetToChunkSet(q.scriptedQuerier.Select(ctx, sorted, hints, m...))
}

type scriptedSet struct {
	listSet
	ctx context.Context //nolint:containedctx // a Select's
	r   *scriptedRecent
	i   int
	err error
}

func (s *scriptedSet) Next() bool {
	s.at, s.err = s.r.next(s.ctx, s.i)
	s.i++
	return s.at != nil
}

func (s *scriptedSet) Err() error { return s.err }

// longSeries has enough random samples to leave every buffer on the way to the client.
func longSeries(i int) storage.Series {
	var list []chunks.Sample
	for j := range 3000 {
		list = append(list, point{series: i, t: usualCut + int64(j)*1000, v: 1 / float64(j*i+1)})
	}
	return storage.NewListSeries(labels.FromStrings("__name__", "m", "i", fmt.Sprintf("%03d", i)), list)
}

// badSeries fails after its first samples.
func badSeries(i int) storage.Series {
	good := longSeries(i)
	return &storage.SeriesEntry{Lset: good.Labels(), SampleIteratorFn: func(chunkenc.Iterator) chunkenc.Iterator {
		return &badIterator{Iterator: good.Iterator(nil), left: 500}
	}}
}

type badIterator struct {
	chunkenc.Iterator
	left int
}

func (it *badIterator) Next() chunkenc.ValueType {
	if it.left--; it.left < 0 {
		return chunkenc.ValNone
	}
	return it.Iterator.Next()
}

func (it *badIterator) Err() error {
	if it.left < 0 {
		return errkind.New(errkind.Corrupt, "chunk is damaged")
	}
	return it.Iterator.Err()
}

// faults are ways in which a read fails at its fourth series.
func faults() map[string]func(ctx context.Context, i int) (storage.Series, error) {
	at := func(f func(ctx context.Context) (storage.Series, error)) func(context.Context, int) (storage.Series, error) {
		return func(ctx context.Context, i int) (storage.Series, error) {
			if i < 3 {
				return longSeries(i), nil
			}
			return f(ctx)
		}
	}
	return map[string]func(context.Context, int) (storage.Series, error){
		"a set that fails":    at(func(context.Context) (storage.Series, error) { return nil, errBroken }),
		"a series that fails": at(func(context.Context) (storage.Series, error) { return badSeries(3), nil }),
		"a panic":             at(func(context.Context) (storage.Series, error) { panic("a block is odd") }),
		"the timeout": at(func(ctx context.Context) (storage.Series, error) {
			<-ctx.Done()
			return longSeries(3), nil // a set that does not look at its context
		}),
	}
}

// serveReads is a server of remote read over scripted series.
func serveReads(t *testing.T, recent Recent, timeout time.Duration) *url.URL {
	t.Helper()
	cfg := testConfig(t)
	cfg.Timeout = timeout
	q, err := New(cfg, recent, &tsdbExtras{t: t}, brokenStore{}, &fakeManifests{}, noLimits, clock, nopLog, nil)
	require.NoError(t, err)
	h := q.Handler("/prometheus")
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				panic(http.ErrAbortHandler) // as our router, without its log
			}
		}()
		// Hides what a wrapper in front of us hides: only the controller reaches the server's writer.
		h.ServeHTTP(wrappedWriter{w}, r.WithContext(tenant.WithID(r.Context(), tenantID)))
	}))
	server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		_ = c.(*net.TCPConn).SetWriteBuffer(16 << 10) // to be full soon
		return ctx
	}
	server.Start()
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL + "/prometheus/api/v1/read")
	require.NoError(t, err)
	return u
}

type wrappedWriter struct{ w http.ResponseWriter }

func (w wrappedWriter) Header() http.Header         { return w.w.Header() }
func (w wrappedWriter) WriteHeader(status int)      { w.w.WriteHeader(status) }
func (w wrappedWriter) Write(p []byte) (int, error) { return w.w.Write(p) }
func (w wrappedWriter) Unwrap() http.ResponseWriter { return w.w }

// promRead reads with Prometheus' client.
func promRead(t *testing.T, u *url.URL, form prompb.ReadRequest_ResponseType) (series int, err error) {
	t.Helper()
	c, err := remote.NewReadClient("test", &remote.ClientConfig{
		URL: &config_util.URL{URL: u}, Timeout: model.Duration(time.Minute), ChunkedReadLimit: 50_000_000,
		AcceptedResponseTypes: []prompb.ReadRequest_ResponseType{form},
	})
	require.NoError(t, err)
	set, err := c.Read(t.Context(), readQuery(usualCut, now.UnixMilli(), everything), true)
	if err != nil {
		return 0, err
	}
	for set.Next() {
		series++
		it := set.At().Iterator(nil)
		for it.Next() != chunkenc.ValNone {
		}
		if err := it.Err(); err != nil {
			return series, err
		}
	}
	return series, set.Err()
}

func whole(_ context.Context, i int) (storage.Series, error) {
	if i < 5 {
		return longSeries(i), nil
	}
	return nil, nil
}

func TestRemoteReadIsWholeOrSeenToBreakOff(t *testing.T) {
	u := serveReads(t, &scriptedRecent{next: whole}, time.Minute)
	for _, form := range []prompb.ReadRequest_ResponseType{samples, streamed} {
		n, err := promRead(t, u, form)
		require.NoError(t, err)
		require.Equal(t, 5, n)
	}
	require.NoError(t, plainRead(t, u, "HTTP/1.0"))
	require.NoError(t, plainRead(t, u, "HTTP/1.1"))
	for name, next := range faults() {
		timeout := time.Minute
		if name == "the timeout" {
			timeout = 100 * time.Millisecond
		}
		u := serveReads(t, &scriptedRecent{next: next}, timeout)
		n, err := promRead(t, u, streamed)
		require.Error(t, err, "%s: a client took %d series for the whole", name, n)
		_, err = promRead(t, u, samples)
		require.Error(t, err, name)
		require.ErrorIs(t, plainRead(t, u, "HTTP/1.1"), io.ErrUnexpectedEOF, name)
		require.ErrorIs(t, plainRead(t, u, "HTTP/1.0"), io.ErrUnexpectedEOF, name)
	}
}

// plainRead asks for a stream on a connection of its own, whose end alone ends an answer to HTTP/1.0.
func plainRead(t *testing.T, u *url.URL, proto string) error {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", u.Host)
	require.NoError(t, err)
	defer conn.Close()
	body := readRequest(t, []prompb.ReadRequest_ResponseType{streamed}, readQuery(usualCut, now.UnixMilli(), everything))
	fmt.Fprintf(conn, "POST %s %s\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", u.Path, proto, len(body), body)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	_, _, err = decodeFrames(t, resp.Body)
	return err
}

func TestClientThatDoesNotReadIsLeft(t *testing.T) {
	closed := make(chan struct{})
	u := serveReads(t, &scriptedRecent{
		onClose: func() { close(closed) },
		next: func(_ context.Context, i int) (storage.Series, error) {
			if i > 1<<20 { // far more than the buffers of a connection
				return nil, nil
			}
			return longSeries(i % 1000), nil
		},
	}, 200*time.Millisecond)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", u.Host)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(16<<10))
	body := readRequest(t, []prompb.ReadRequest_ResponseType{streamed}, readQuery(usualCut, now.UnixMilli(), everything))
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", u.Path, len(body), body)
	select { // nothing is read
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Fatal("a client that does not read holds recent data open")
	}
}

func TestErrorBeforeTheFirstFrameHasItsStatus(t *testing.T) {
	for name, err := range map[int]error{
		http.StatusServiceUnavailable:  errkind.New(errkind.Unavailable, "bucket is away"),
		http.StatusInternalServerError: errors.New("odd"),
	} {
		recent := &scriptedRecent{next: func(context.Context, int) (storage.Series, error) { return nil, err }}
		u := serveReads(t, recent, time.Minute)
		for _, form := range []prompb.ReadRequest_ResponseType{samples, streamed} {
			body := readRequest(t, []prompb.ReadRequest_ResponseType{form}, readQuery(usualCut, now.UnixMilli(), everything))
			req, rerr := http.NewRequestWithContext(t.Context(), http.MethodPost, u.String(), bytes.NewReader(body))
			require.NoError(t, rerr)
			resp, rerr := http.DefaultClient.Do(req)
			require.NoError(t, rerr)
			text, rerr := io.ReadAll(resp.Body)
			require.NoError(t, rerr)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, name, resp.StatusCode)
			require.Equal(t, err.Error(), strings.TrimSpace(string(text)))
		}
	}
	http.DefaultClient.CloseIdleConnections()
}
