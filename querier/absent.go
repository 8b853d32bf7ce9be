package querier

import (
	"context"
	"errors"
	"net/url"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/notifications"
)

// errAbsent answers what a Prometheus server has and Duramen does not.
var errAbsent = errors.New("not available in Duramen")

// absent stands for the parts of a Prometheus server that the API asks about and that are not here: no targets, rules
// or alerts, and no local TSDB to administer.
type absent struct{}

func (absent) ScrapePools() []string                       { return []string{} }
func (absent) TargetsActive() map[string][]*scrape.Target  { return nil }
func (absent) TargetsDropped() map[string][]*scrape.Target { return nil }
func (absent) TargetsDroppedCounts() map[string]int        { return map[string]int{} }
func (absent) Alertmanagers() []*url.URL                   { return nil }
func (absent) DroppedAlertmanagers() []*url.URL            { return nil }
func (absent) RuleGroups() []*rules.Group                  { return nil }
func (absent) AlertingRules() []*rules.AlertingRule        { return nil }
func (absent) Gather() ([]*dto.MetricFamily, error)        { return nil, nil }

func (absent) ScrapePoolConfig(string) (*config.ScrapeConfig, error) { return nil, errAbsent }

func (absent) CleanTombstones() error                                         { return errAbsent }
func (absent) Delete(context.Context, int64, int64, ...*labels.Matcher) error { return errAbsent }
func (absent) Snapshot(string, bool) error                                    { return errAbsent }
func (absent) Stats(string, int) (*tsdb.Stats, error)                         { return nil, errAbsent }

// WALReplayStatus says that no replay goes on: requests are let through when it is over.
func (absent) WALReplayStatus() (tsdb.WALReplayStatus, error) { return tsdb.WALReplayStatus{}, nil }

func (absent) BlockMetas() ([]tsdb.BlockMeta, error) { return nil, errAbsent }

func (absent) notifications() []notifications.Notification { return []notifications.Notification{} }

func (absent) subscribe() (<-chan notifications.Notification, func(), bool) { return nil, nil, false }
