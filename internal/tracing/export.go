package tracing

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/credentials"
)

const (
	// exportTimeout bounds one export with its retries: a collector that restarts is back by then.
	exportTimeout = 10 * time.Second
	retryFirst    = 500 * time.Millisecond
	retryMost     = 2 * time.Second
	// stopTimeout is what a stop gives the collector for the last spans; a restart must not take longer for their sake.
	stopTimeout = 2 * time.Second
	// logPeriod bounds how often a collector that is away is logged.
	logPeriod = time.Minute
)

// exporter is the running side of a Provider: one goroutine that sends batches.
type exporter struct {
	p    *Provider
	otlp *otlptrace.Exporter

	failing  bool // logged, and nothing was exported since
	loggedAt time.Time
	unlogged int // failed exports since
}

// starting reads the certificates and makes the connection's state; it does not dial.
func (e *exporter) starting(ctx context.Context) error {
	options, err := e.p.cfg.options()
	if err != nil {
		return err
	}
	e.otlp = otlptracegrpc.NewUnstarted(options...)
	if err := e.otlp.Start(ctx); err != nil {
		return fmt.Errorf("tracing.otlp_endpoint %s: %w", e.p.cfg.OTLPEndpoint, err)
	}
	e.p.log.Info("tracing", "endpoint", e.p.cfg.OTLPEndpoint, "sample_ratio", e.p.cfg.SampleRatio)
	return nil
}

// CheckFiles reads the file of certificates, as a start does, and says what is wrong with it.
func (c *Config) CheckFiles() error {
	if c.OTLPEndpoint == "" {
		return nil
	}
	_, err := c.options()
	return err
}

func (c *Config) options() ([]otlptracegrpc.Option, error) {
	headers, err := parseHeaders(string(c.OTLPHeaders))
	if err != nil {
		return nil, fmt.Errorf("tracing.otlp_headers: %w", err)
	}
	options := []otlptracegrpc.Option{
		otlptracegrpc.WithEndpoint(c.OTLPEndpoint),
		otlptracegrpc.WithTimeout(exportTimeout),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{
			Enabled: true, InitialInterval: retryFirst, MaxInterval: retryMost, MaxElapsedTime: exportTimeout,
		}),
	}
	if len(headers) > 0 {
		options = append(options, otlptracegrpc.WithHeaders(headers))
	}
	if c.OTLPInsecure {
		return append(options, otlptracegrpc.WithInsecure()), nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.OTLPCAFile != "" {
		pem, err := os.ReadFile(c.OTLPCAFile)
		if err != nil {
			return nil, fmt.Errorf("tracing.otlp_ca_file: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("tracing.otlp_ca_file: no certificate in %s; use a PEM file", c.OTLPCAFile)
		}
	}
	return append(options, otlptracegrpc.WithTLSCredentials(credentials.NewTLS(config))), nil
}

// running exports until ctx ends, and for at most stopTimeout more.
func (e *exporter) running(ctx context.Context) error {
	until, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-until.Done():
			return
		}
		timer := time.NewTimer(stopTimeout)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel()
		case <-until.Done():
		}
	})
	e.p.queue.run(ctx, func(batch []sdk.ReadOnlySpan) { e.export(until, batch) })
	return nil
}

func (e *exporter) export(ctx context.Context, batch []sdk.ReadOnlySpan) {
	if ctx.Err() != nil {
		e.p.metrics.dropped.WithLabelValues(droppedAtStop).Add(float64(len(batch)))
		return
	}
	begin := e.p.now()
	err := e.otlp.ExportSpans(ctx, batch)
	e.p.metrics.seconds.Observe(e.p.now().Sub(begin).Seconds())
	if err == nil {
		e.p.metrics.exported.Add(float64(len(batch)))
		if e.failing {
			e.failing = false
			e.p.log.Info("spans are exported again", "failed_exports", e.unlogged)
		}
		return
	}
	e.p.metrics.failures.Inc()
	e.p.metrics.dropped.WithLabelValues(droppedExport).Add(float64(len(batch)))
	e.logFailure(err, len(batch))
}

// logFailure logs the first failure and then one a minute.
func (e *exporter) logFailure(err error, spans int) {
	now := e.p.now()
	if !e.loggedAt.IsZero() && now.Sub(e.loggedAt) < logPeriod {
		e.unlogged++
		return
	}
	e.p.log.Warn("spans not exported", "endpoint", e.p.cfg.OTLPEndpoint, "spans", spans, "failures_before", e.unlogged,
		"err", err)
	e.loggedAt, e.unlogged, e.failing = now, 0, true
}

// stopping closes the connection.
func (e *exporter) stopping(error) error {
	if e.otlp == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := e.otlp.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		e.p.log.Warn("connection to the collector not closed", "err", err)
	}
	return nil
}
