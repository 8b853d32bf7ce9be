package app

import (
	"cmp"
	_ "embed" // for the reference's introduction
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/duramendb/duramen/chunkstore/bucket/backend"
)

// Metric describes a metric that a process may serve, whether it has series yet or not.
type Metric struct {
	Name string
	// Type is counter, gauge, histogram or summary.
	Type string
	// Labels are in the order in which the code gives them, constant ones first.
	Labels []string
	// Help is what /metrics says: what is measured, then what a rise or another change means.
	Help string
}

// Metrics lists what a process registers, by name: with the default settings, and with those of each of others.
func Metrics(others ...Config) ([]Metric, error) {
	byName := map[string]Metric{}
	for _, cfg := range append([]Config{DefaultConfig()}, others...) {
		seen, err := registeredMetrics(cfg)
		if err != nil {
			return nil, err
		}
		for _, m := range seen {
			byName[m.Name] = m
		}
	}
	all := make([]Metric, 0, len(byName))
	for _, m := range byName {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b Metric) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// onS3 has the metrics of a bucket on S3 as well. The server is not asked anything.
func onS3() Config {
	cfg := DefaultConfig()
	cfg.Bucket.Backend, cfg.Bucket.S3.BucketName, cfg.Bucket.S3.Endpoint = backend.S3, "metrics", "localhost"
	return cfg
}

// asGateway and withGateways have the metrics of both sides of a store-gateway.
func asGateway() Config {
	cfg := DefaultConfig()
	cfg.Target = roleStoreGateway
	return cfg
}

// inCluster has those of a member that plays every role, and asks others for blocks.
func inCluster() Config {
	cfg := DefaultConfig()
	cfg.Memberlist.Join = []string{"localhost:7946"}
	return cfg
}

func withGateways() Config {
	cfg := DefaultConfig()
	cfg.Querier.StoreGatewayAddresses = []string{"localhost:9095"}
	return cfg
}

// registeredMetrics builds a process in an empty directory, starts nothing, and describes what was registered.
func registeredMetrics(cfg Config) (_ []Metric, err error) {
	dir, err := os.MkdirTemp("", "duramen-metrics-*")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	cfg.DataDir = dir
	reg := &describingRegistry{Registry: prometheus.NewRegistry()}
	a, err := newApp(cfg, io.Discard, reg)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	return reg.describe()
}

// describingRegistry keeps what it was given: a registry alone cannot tell the type of a metric without series.
type describingRegistry struct {
	*prometheus.Registry

	collectors []prometheus.Collector
}

func (r *describingRegistry) Register(c prometheus.Collector) error {
	err := r.Registry.Register(c)
	if err == nil {
		r.collectors = append(r.collectors, c)
	}
	return err
}

func (r *describingRegistry) MustRegister(cs ...prometheus.Collector) {
	r.Registry.MustRegister(cs...)
	r.collectors = append(r.collectors, cs...)
}

func (r *describingRegistry) describe() ([]Metric, error) {
	var all []Metric
	for _, c := range r.collectors {
		types, err := collectedTypes(c)
		if err != nil {
			return nil, err
		}
		for d := range drain(c.Describe) {
			m, err := parseDesc(d.String())
			if err != nil {
				return nil, err
			}
			if m.Type = cmp.Or(types[d.String()], vecType(c), onlyType(types)); m.Type == "" {
				return nil, fmt.Errorf("metric %s has no type: give it a series, or make it a vector", m.Name)
			}
			all = append(all, m)
		}
	}
	return all, nil
}

// drain returns what f sends. It stops neither f nor the caller early.
func drain[T any](f func(chan<- T)) chan T {
	out := make(chan T)
	go func() {
		defer close(out)
		f(out)
	}()
	return out
}

// collectedTypes returns the types of the metrics that have series, by description.
func collectedTypes(c prometheus.Collector) (map[string]string, error) {
	types := map[string]string{}
	var errs []error
	for m := range drain(c.Collect) {
		var d dto.Metric
		if err := m.Write(&d); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", m.Desc(), err))
		}
		types[m.Desc().String()] = typeOf(&d)
	}
	return types, errors.Join(errs...)
}

func typeOf(d *dto.Metric) string {
	switch {
	case d.Counter != nil:
		return "counter"
	case d.Gauge != nil:
		return "gauge"
	case d.Histogram != nil:
		return "histogram"
	case d.Summary != nil:
		return "summary"
	default:
		return ""
	}
}

// onlyType returns the type that all metrics of a collector have, "" when they differ: one that has no value at the
// moment will have it, too.
func onlyType(types map[string]string) (only string) {
	for _, t := range types {
		if only != "" && t != only {
			return ""
		}
		only = t
	}
	return only
}

func vecType(c prometheus.Collector) string {
	switch c.(type) {
	case *prometheus.CounterVec:
		return "counter"
	case *prometheus.GaugeVec:
		return "gauge"
	case *prometheus.HistogramVec:
		return "histogram"
	case *prometheus.SummaryVec:
		return "summary"
	default:
		return ""
	}
}

var (
	descText   = regexp.MustCompile(`^Desc\{fqName: ("(?:[^"\\]|\\.)*"), help: ("(?:[^"\\]|\\.)*"), .*constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)
	constLabel = regexp.MustCompile(`([a-zA-Z_]\w*)="(?:[^"\\]|\\.)*"`)
)

// parseDesc reads the text of a description, which has no other way to tell its parts.
func parseDesc(text string) (Metric, error) {
	parts := descText.FindStringSubmatch(text)
	if parts == nil {
		return Metric{}, fmt.Errorf("description %s has another form than expected", text)
	}
	name, err := strconv.Unquote(parts[1])
	if err != nil {
		return Metric{}, fmt.Errorf("description %s: %w", text, err)
	}
	help, err := strconv.Unquote(parts[2])
	if err != nil {
		return Metric{}, fmt.Errorf("description %s: %w", text, err)
	}
	m := Metric{Name: name, Help: help}
	for _, l := range constLabel.FindAllStringSubmatch(parts[3], -1) {
		m.Labels = append(m.Labels, l[1])
	}
	if parts[4] != "" {
		m.Labels = append(m.Labels, strings.Split(parts[4], ",")...)
	}
	return m, nil
}

//go:embed metricsreference.md
var metricsIntro string

// WriteMetricsReference writes docs/metrics.md.
func WriteMetricsReference(w io.Writer) error {
	all, err := Metrics(onS3(), asGateway(), withGateways(), inCluster())
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString(metricsIntro)
	component := ""
	for _, m := range all {
		rest, ours := strings.CutPrefix(m.Name, metricPrefix)
		if !ours {
			continue
		}
		if next, _, _ := strings.Cut(rest, "_"); next != component {
			component = next
			fmt.Fprintf(&b, "\n## `%s%s_`\n\n| metric | type | labels | what it is | what a change means |\n|---|---|---|---|---|\n",
				metricPrefix, component)
		}
		what, change := splitHelp(m.Help)
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", m.Name, m.Type, codes(m.Labels), escapeCell(what), escapeCell(change))
	}
	b.WriteString("\n## Of the Go runtime and the process\n\nThese come from the client library and are the same in every " +
		"Go program on Linux.\n\n| metric | type | labels | what it is |\n|---|---|---|---|\n")
	for _, m := range all {
		if !strings.HasPrefix(m.Name, metricPrefix) {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, m.Type, codes(m.Labels), escapeCell(m.Help))
		}
	}
	_, err = io.WriteString(w, b.String())
	return err
}

const metricPrefix = "duramen_"

// splitHelp cuts a help text into what is measured and what a change of it means.
func splitHelp(help string) (what, change string) {
	at := strings.IndexAny(help, ".;")
	for at >= 0 && at+1 < len(help) && help[at+1] != ' ' {
		next := strings.IndexAny(help[at+1:], ".;")
		if next < 0 {
			return help, ""
		}
		at += 1 + next
	}
	if at < 0 || at+2 >= len(help) {
		return help, ""
	}
	change = help[at+2:]
	return help[:at] + ".", strings.ToUpper(change[:1]) + change[1:]
}

func codes(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return "`" + strings.Join(names, "`, `") + "`"
}
