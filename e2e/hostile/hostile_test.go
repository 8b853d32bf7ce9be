package hostile

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/chunkstore/blockgen"
	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/e2e/process"
)

// The defaults are for every run of the tests; make hostile asks for a year.
var (
	days     = flag.Int("hostile.days", 10, "days of samples in the bucket")
	series   = flag.Int("hostile.series", 100, "series of the hostile tenant")
	interval = flag.Duration("hostile.interval", time.Hour, "time between two samples of a series")
	limit    = flag.Int64("hostile.memory", 384<<20, "memory limit of the process in bytes")
	parallel = flag.Int("hostile.parallel", 32, "hostile queries at the same time")
	lasts    = flag.Duration("hostile.duration", 2*time.Second, "how long they are sent, and until one was refused")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestOneTenantAsksForEverything sends queries over all series and all time, and looks at the memory of the process, at
// what is refused and how, and at how long another tenant waits for a small query.
func TestOneTenantAsksForEverything(t *testing.T) {
	if testing.Short() {
		t.Skip("a story is not short")
	}
	binary, err := process.Build(t.Context(), false)
	require.NoError(t, err)
	dir := t.TempDir()
	first := time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -*days-1)
	fillBucket(t, filepath.Join(dir, "data", "bucket"), "hostile", 10, *series/10, first)
	fillBucket(t, filepath.Join(dir, "data", "bucket"), "small", 1, 10, first)
	spec, err := process.Duramen(binary, dir, "-log.level=warn", "-querier.timeout=30s",
		"-chunkstore.memory.limit-bytes="+strconv.FormatInt(*limit, 10), "-ingester.min-free-bytes=1")
	require.NoError(t, err)
	t.Setenv("GOMEMLIMIT", strconv.FormatInt(*limit/10*9, 10)) // what a process sets in a container with that limit
	p, _, err := process.StartReady(t.Context(), spec)
	require.NoError(t, err)
	defer p.Kill()
	idle, err := p.PeakRSS()
	require.NoError(t, err)

	s := &story{url: p.URL, answers: map[string]int{}}
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: *parallel + 8, MaxIdleConnsPerHost: *parallel + 8}}
	defer client.CloseIdleConnections()
	small := request{tenant: "small", path: "query", form: url.Values{
		"query": {"sum(grid_metric_000)"}, "time": {unix(first.Add(36 * time.Hour))},
	}}
	quiet := s.timed(t, client, small, 5)

	ctx, cancel := context.WithTimeout(t.Context(), *lasts+time.Minute)
	defer cancel()
	end := time.Now().Add(*lasts)
	var wg sync.WaitGroup
	requests := hostile(first)
	for i := range *parallel {
		wg.Go(func() {
			for n := i; ctx.Err() == nil; n++ {
				s.send(ctx, t, client, requests[n%len(requests)])
			}
		})
	}
	var loud []time.Duration
	for ctx.Err() == nil && (time.Now().Before(end) || !s.refused()) {
		loud = append(loud, s.timed(t, client, small, 1)...)
	}
	cancel()
	wg.Wait()
	after := s.timed(t, client, small, 5)
	peak, err := p.PeakRSS()
	require.NoError(t, err)
	t.Logf("%d days × %d series, %d hostile queries at a time, memory limit %d MiB", *days, *series, *parallel, *limit>>20)
	t.Logf("peak RSS %d MiB (idle %d MiB)", peak>>20, idle>>20)
	t.Logf("answers to the hostile tenant: %v", s.answers)
	t.Logf("another tenant's small query: alone %s, meanwhile %s, afterwards %s", summary(quiet), summary(loud), summary(after))
	for _, text := range s.examples {
		t.Logf("refused with %s", text)
	}
	require.Less(t, peak, *limit)
	require.True(t, s.refused(), "no query was refused")
}

// fillBucket writes blocks and the manifest of a tenant.
func fillBucket(t *testing.T, dir, tenant string, metrics, each int, first time.Time) {
	t.Helper()
	grid := blockgen.Grid{
		Seed: 1, Metrics: metrics, Series: each, Interval: interval.Milliseconds(), Start: first.UnixMilli(),
	}
	bkt, err := bucket.NewFilesystem(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, bkt.Close()) }()
	blocks, err := grid.Write(filepath.Join(dir, tenant), *days)
	require.NoError(t, err)
	var change manifest.Change
	for _, b := range blocks {
		change.Add = append(change.Add, b.Entry)
	}
	_, err = manifest.NewOwner(bkt, time.Now, slog.New(slog.DiscardHandler), nil).Swap(t.Context(), tenant, change)
	require.NoError(t, err)
}

type request struct {
	tenant, path string
	form         url.Values
}

// hostile are requests for everything, by several routes.
func hostile(first time.Time) []request {
	all, start := `{__name__=~".+"}`, unix(first)
	end := first.AddDate(0, 0, *days)
	step := strconv.Itoa(int(end.Sub(first).Seconds()) / 10_000)
	get := func(path string, kv ...string) request {
		form := url.Values{}
		for i := 0; i < len(kv); i += 2 {
			form.Add(kv[i], kv[i+1])
		}
		return request{"hostile", path, form}
	}
	span := fmt.Sprintf("[%dd]", *days)
	return []request{
		get("query_range", "query", all, "start", start, "end", unix(end), "step", step),
		get("query_range", "query", "count("+all+") by (pod)", "start", start, "end", unix(end), "step", step),
		get("query", "query", "last_over_time("+all+span+")", "time", unix(end)),
		get("query", "query", all+span, "time", unix(end)),
		get("query", "query", `last_over_time({__name__=~".*metric.*",pod=~".*[0-9]+.*"}`+span+`)`, "time", unix(end)),
		get("series", "match[]", all, "start", start, "end", unix(end)),
		get("query_range", "query", "last_over_time("+all+"[1d])", "start", start, "end", unix(end), "step", step),
		get("label/pod/values", "match[]", all, "start", start, "end", unix(end)),
	}
}

func unix(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// story counts answers and keeps an example of each refusal.
type story struct {
	url string

	mu       sync.Mutex
	answers  map[string]int
	examples []string
}

// refusal is what a refusal names: a number and a limit.
var refusal = regexp.MustCompile(`\d.*(limit|memory|querier\.|chunkstore\.)`)

// send sends a hostile request. An answer that is neither whole, nor a refusal that names number and limit, nor that time
// is up, is a fault.
func (s *story) send(ctx context.Context, t *testing.T, client *http.Client, r request) {
	status, body, err := s.do(ctx, client, r)
	if err != nil {
		if ctx.Err() == nil {
			t.Errorf("%s: %v", r.path, err)
		}
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[strconv.Itoa(status)+" "+r.path]++
	switch status {
	case http.StatusOK, http.StatusServiceUnavailable:
	case http.StatusUnprocessableEntity, http.StatusTooManyRequests:
		if !refusal.MatchString(body) {
			t.Errorf("%s: %d without number and limit: %s", r.path, status, body)
		}
		text := fmt.Sprintf("%d: %s", status, errorText(body))
		kind := regexp.MustCompile(`\d+`).ReplaceAllString(text[3:], "N")
		if !slices.ContainsFunc(s.examples, func(e string) bool {
			return regexp.MustCompile(`\d+`).ReplaceAllString(e[3:], "N") == kind
		}) {
			s.examples = append(s.examples, text)
		}
	default:
		t.Errorf("%s: %d: %s", r.path, status, body[:min(len(body), 300)])
	}
}

func errorText(body string) string {
	var answer struct{ Error string }
	if json.Unmarshal([]byte(body), &answer) != nil {
		return body
	}
	return answer.Error
}

// refused reports whether a query has been refused.
func (s *story) refused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.examples) > 0
}

// timed sends a request that has to be answered, n times.
func (s *story) timed(t *testing.T, client *http.Client, r request, n int) (took []time.Duration) {
	for range n {
		began := time.Now()
		status, body, err := s.do(context.Background(), client, r)
		if err != nil || status != http.StatusOK || !strings.Contains(body, `"resultType":"vector"`) {
			t.Fatalf("the small query: %d %v: %s", status, err, body)
		}
		took = append(took, time.Since(began))
	}
	return took
}

// do returns the status and the beginning of the body of an answer, which it reads to the end.
func (s *story) do(ctx context.Context, client *http.Client, r request) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/prometheus/api/v1/"+r.path+"?"+r.form.Encode(), nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("X-Scope-OrgID", r.tenant)
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	head, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
	}
	return resp.StatusCode, string(head), err
}

func summary(took []time.Duration) string {
	slices.Sort(took)
	at := func(q float64) time.Duration {
		return took[min(len(took)-1, int(q*float64(len(took))))].Round(time.Millisecond)
	}
	return fmt.Sprintf("median %s, p99 %s, worst %s of %d", at(0.5), at(0.99), at(1), len(took))
}
