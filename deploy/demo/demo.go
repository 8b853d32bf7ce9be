package main

import (
	"context"
	_ "embed" // for the configuration of Prometheus
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/duramendb/duramen/e2e/process"
)

const (
	startTimeout = 2 * time.Minute
	stopTimeout  = 30 * time.Second
	pollEvery    = 200 * time.Millisecond
)

//go:embed prometheus.yml
var prometheusConfig string

// demo is a Duramen and a Prometheus that writes to it.
type demo struct {
	settings
	out                 io.Writer
	duramen, prometheus *process.Process // nil before they are started
}

// start starts both servers and waits until they are ready.
func (d *demo) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var err error
	if d.duramen, err = d.startOne(ctx, process.Spec{
		Name: "duramen", Ready: "/ready", URL: "http://" + d.settings.duramen.host,
		Args: []string{
			"-data-dir=" + filepath.Join(d.dir, "duramen", "data"), "-server.http-listen-address=" + d.settings.duramen.host,
			"-server.grpc-listen-address=127.0.0.1:0",
		},
	}); err != nil {
		return err
	}
	config := filepath.Join(d.dir, "prometheus.yml")
	text := strings.NewReplacer("DURAMEN_ADDRESS", d.settings.duramen.host, "PROMETHEUS_ADDRESS", d.settings.prometheus.host,
		"ALERTS_FILE", filepath.Join(d.root, "deploy", "prometheus", "alerts.yml")).
		Replace(prometheusConfig)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return err
	}
	d.prometheus, err = d.startOne(ctx, process.Spec{
		Name: "prometheus", Ready: "/-/ready", URL: "http://" + d.settings.prometheus.host,
		Args: []string{
			"--config.file=" + config, "--web.listen-address=" + d.settings.prometheus.host,
			"--storage.tsdb.path=" + filepath.Join(d.dir, "prometheus", "data"),
			"--enable-feature=exemplar-storage,metadata-wal-records", "--storage.remote.flush-deadline=5s",
		},
	})
	return err
}

// startOne starts a server out of the reach of the terminal's Ctrl-C: who writes has to stop before who is written to.
func (d *demo) startOne(ctx context.Context, spec process.Spec) (*process.Process, error) {
	spec.Binary, spec.Dir, spec.OwnGroup = filepath.Join(d.binaries, spec.Name), filepath.Join(d.dir, spec.Name), true
	if _, err := os.Stat(spec.Binary); err != nil {
		return nil, fmt.Errorf("%w: run `make demo`, which builds it", err)
	}
	p, _, err := process.StartReady(ctx, spec)
	return p, err
}

// show waits until a query finds what Prometheus scraped, and says where to look.
func (d *demo) show(ctx context.Context, kept bool) error {
	query := d.duramen.URL + "/prometheus/api/v1/query?query=up"
	fmt.Fprintln(d.out, "Waiting for the first samples …")
	answer, err := d.firstAnswer(ctx, query)
	if err != nil {
		return err
	}
	fate := "removed at the end"
	if kept {
		fate = "kept"
	}
	fmt.Fprintf(d.out, `
Duramen     %[1]s
Prometheus  %[2]s, which scrapes both and writes to Duramen
Data        %[3]s, %[4]s; logs are in duramen/log and prometheus/log below it

Ask with curl:

  curl -s '%[5]s'
  %[6]s

or with duramenctl, as a table or a plot:

  bin/duramenctl query -url=%[1]s 'up'
  bin/duramenctl query -url=%[1]s -start=-10m -format=plot 'sum(rate(duramen_ingester_samples_total[1m]))'

Grafana     add a data source of type Prometheus with this URL: %[1]s/prometheus
            then import deploy/grafana/dashboards/duramen-node.json
Alerts      %[2]s/api/v1/rules has those of deploy/prometheus/alerts.yml

Ctrl-C stops both.
`, d.duramen.URL, d.prometheus.URL, d.dir, fate, query, answer)
	return nil
}

// firstAnswer asks until both targets are there and up.
func (d *demo) firstAnswer(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		answer, up, err := ask(ctx, url)
		if err == nil && up == 2 {
			return answer, nil
		}
		select {
		case <-ctx.Done():
			return "", errors.Join(fmt.Errorf("no samples of both targets: %w; the last answer: %s", ctx.Err(), answer), err)
		case <-d.duramen.Done():
			return "", ended(d.duramen)
		case <-d.prometheus.Done():
			return "", ended(d.prometheus)
		case <-tick.C:
		}
	}
}

// ask returns the answer and how many series in it have the value 1.
func ask(ctx context.Context, url string) (answer string, up int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", 0, err
	}
	answer = strings.TrimSpace(string(body))
	var parsed struct {
		Data struct{ Result []struct{ Value [2]any } }
	}
	if err := json.Unmarshal(body, &parsed); err != nil {
		return answer, 0, err
	}
	for _, series := range parsed.Data.Result {
		if series.Value[1] == "1" {
			up++
		}
	}
	return answer, up, nil
}

// wait returns nil when ctx ends, or an error when one of the servers does.
func (d *demo) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.duramen.Done():
		return ended(d.duramen)
	case <-d.prometheus.Done():
		return ended(d.prometheus)
	}
}

func ended(p *process.Process) error {
	return fmt.Errorf("%s ended by itself; the end of its log:\n%s", p.Name, p.LogTail(2000))
}

// stop ends what runs: the writer first, so that its last samples arrive.
func (d *demo) stop() error {
	var errs []error
	for _, p := range []*process.Process{d.prometheus, d.duramen} {
		if p == nil {
			continue
		}
		select {
		case <-p.Done():
		default:
			fmt.Fprintf(d.out, "Stopping %s …\n", p.Name)
			errs = append(errs, p.Terminate(stopTimeout))
		}
	}
	return errors.Join(errs...)
}
