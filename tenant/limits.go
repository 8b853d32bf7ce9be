package tenant

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.yaml.in/yaml/v3"

	"github.com/duramendb/duramen/internal/service"
	"github.com/duramendb/duramen/internal/strictyaml"
)

// LimitsConfig holds the limits of every tenant that the overrides file does not name, and where that file is.
type LimitsConfig struct {
	Values        `yaml:",inline"`
	OverridesFile string        `yaml:"overrides_file"`
	ReloadPeriod  time.Duration `yaml:"reload_period"`
}

// RegisterFlags registers the flags and sets c to the defaults.
func (c *LimitsConfig) RegisterFlags(f *flag.FlagSet) {
	c.Values.RegisterFlags(f)
	f.StringVar(&c.OverridesFile, "limits.overrides-file", "",
		"YAML file with limits of single tenants, \"overrides: {<tenant>: {max_series: 100000}}\". It is read again "+
			"while running; a file with a fault is refused whole and the limits before it stay in force.")
	f.DurationVar(&c.ReloadPeriod, "limits.reload-period", 10*time.Second,
		"How often the overrides file is read again.")
}

// Validate returns all faults, each with the field, the value and what would be right.
func (c *LimitsConfig) Validate() error {
	err := c.Values.Validate()
	if c.ReloadPeriod <= 0 {
		err = errors.Join(err, fmt.Errorf("reload_period is %v; use a positive duration such as 10s", c.ReloadPeriod))
	}
	return err
}

// Limits answers what a tenant may do. A limit is asked for when it is needed and never copied, since it may change
// while the process runs. All methods are safe for concurrent use; reads take no lock.
type Limits struct {
	cfg     LimitsConfig
	log     *slog.Logger
	metrics *limitsMetrics

	state atomic.Pointer[limitsState]

	reported string // used by Run: the last failure that was logged, so that it is logged once

	mu      sync.Mutex // held by Reload
	loaded  []byte     // the file in force; nil before the first load
	lastErr error      // of the last Reload
}

// limitsState is immutable. A tenant that never was in the file has the defaults and the first epoch.
type limitsState struct {
	defaults *tenantLimits
	tenants  map[string]*tenantLimits
	epoch    uint64 // the highest given out
}

type tenantLimits struct {
	Values
	epoch uint64
}

// NewLimits returns limits that answer with the defaults until the overrides file is loaded, by the start of Service
// or by Reload.
func NewLimits(cfg LimitsConfig, log *slog.Logger, reg prometheus.Registerer) (*Limits, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}
	l := &Limits{cfg: cfg, log: log, metrics: newLimitsMetrics(reg)}
	l.state.Store(&limitsState{defaults: &tenantLimits{cfg.Values, 1}, epoch: 1})
	return l, nil
}

// StaticLimits returns limits that are the same for all tenants and never change, for tests.
func StaticLimits(v Values) *Limits {
	l := &Limits{cfg: LimitsConfig{Values: v}, log: slog.New(slog.DiscardHandler), metrics: newLimitsMetrics(nil)}
	l.state.Store(&limitsState{defaults: &tenantLimits{v, 1}, epoch: 1})
	return l
}

// Service loads the overrides file, and fails to start when it cannot, then follows it.
func (l *Limits) Service() *service.Service {
	return service.NewService("limits", service.Phases{
		Starting: func(context.Context) error { return l.Reload() },
		Running:  l.Run,
	})
}

// Run reads the overrides file again every ReloadPeriod until ctx ends. A failure keeps the limits in force.
func (l *Limits) Run(ctx context.Context) error {
	if l.cfg.OverridesFile == "" {
		<-ctx.Done()
		return ctx.Err()
	}
	tick := time.NewTicker(l.cfg.ReloadPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			l.reloadAndReport()
		}
	}
}

// reloadAndReport logs a failure once, though it is met again each period.
func (l *Limits) reloadAndReport() {
	err := l.Reload()
	switch {
	case err == nil:
		l.reported = ""
	case err.Error() != l.reported:
		l.reported = err.Error()
		l.log.Error("limits not reloaded, those before stay in force", "err", err)
	}
}

// Reload reads the overrides file now. On an error nothing changes.
func (l *Limits) Reload() error {
	if l.cfg.OverridesFile == "" {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lastErr = nil
	if err := l.reload(); err != nil {
		l.metrics.reloadFailures.Inc()
		l.lastErr = fmt.Errorf("limits: overrides_file %s: %w", l.cfg.OverridesFile, err)
		return l.lastErr
	}
	l.metrics.lastSuccess.SetToCurrentTime()
	return nil
}

// Check returns why the overrides file in force is not the one on disk, nil when it is.
func (l *Limits) Check(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lastErr
}

func (l *Limits) reload() error {
	data, err := os.ReadFile(l.cfg.OverridesFile)
	if err != nil {
		return err
	}
	if l.loaded != nil && string(data) == string(l.loaded) {
		return nil
	}
	overrides, err := parseOverrides(data, l.cfg.Values)
	if err != nil {
		return err
	}
	next := l.state.Load().with(overrides)
	l.state.Store(next)
	l.loaded = append([]byte{}, data...)
	// A float64 holds 53 bits exactly.
	l.metrics.hash.Set(float64(xxhash.Sum64(data) >> 11))
	l.log.Info("limits loaded", "file", l.cfg.OverridesFile, "tenants", len(overrides))
	return nil
}

// parseOverrides returns the full limits of each tenant that the file names: the defaults, changed by the file.
func parseOverrides(data []byte, defaults Values) (map[string]Values, error) {
	var file struct {
		Overrides map[string]yaml.Node `yaml:"overrides"`
	}
	if err := strictyaml.Decode(data, &file); err != nil {
		return nil, err
	}
	var errs []error
	overrides := make(map[string]Values, len(file.Overrides))
	for id, node := range file.Overrides {
		v := defaults
		err := ValidateID(id)
		if err == nil {
			err = strictyaml.DecodeNode(&node, "overrides."+id, &v)
		}
		if err == nil {
			if err = v.Validate(); err != nil {
				err = fmt.Errorf("line %d: overrides.%s: %w", node.Line, id, err)
			}
		}
		if err != nil {
			errs = append(errs, err)
		}
		overrides[id] = v
	}
	return overrides, errors.Join(errs...)
}

// with returns the state after a load. Tenants whose limits are what they were keep their epoch. One that left the file
// stays in the map with the defaults under a new epoch, so that no epoch ever stands for two sets of limits.
func (s *limitsState) with(overrides map[string]Values) *limitsState {
	next := &limitsState{defaults: s.defaults, tenants: make(map[string]*tenantLimits, len(overrides)), epoch: s.epoch}
	put := func(id string, v Values) {
		now := s.of(id)
		if now.Values != v {
			next.epoch++
			now = &tenantLimits{v, next.epoch}
		}
		next.tenants[id] = now
	}
	for id := range s.tenants {
		if _, ok := overrides[id]; !ok {
			put(id, s.defaults.Values)
		}
	}
	for id, v := range overrides {
		put(id, v)
	}
	return next
}

func (s *limitsState) of(id string) *tenantLimits {
	if t, ok := s.tenants[id]; ok {
		return t
	}
	return s.defaults
}
