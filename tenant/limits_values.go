package tenant

import (
	"errors"
	"flag"
	"fmt"
	"time"
)

// maxFutureTolerance bounds FutureTolerance: a sample from far ahead moves the head's newest time and with it makes all
// real samples too old, so half an hour of clock skew is the most that any tenant may be allowed.
const maxFutureTolerance = 30 * time.Minute

// Values are the limits of one tenant as an operator writes them. Zero means "no limit" where the help text says so.
type Values struct {
	IngestionRate       float64       `yaml:"ingestion_rate"`
	IngestionBurst      int           `yaml:"ingestion_burst"`
	MaxRequestBytes     int           `yaml:"max_request_bytes"`
	MaxSeries           int           `yaml:"max_series"`
	MaxLabelNames       int           `yaml:"max_label_names"`
	MaxLabelNameLength  int           `yaml:"max_label_name_length"`
	MaxLabelValueLength int           `yaml:"max_label_value_length"`
	MaxHistogramBuckets int           `yaml:"max_histogram_buckets"`
	OutOfOrderWindow    time.Duration `yaml:"out_of_order_window"`
	FutureTolerance     time.Duration `yaml:"future_tolerance"`
	MaxMetadata         int           `yaml:"max_metadata"`
	MaxExemplars        int           `yaml:"max_exemplars"`

	IngestionTenantShardSize int `yaml:"ingestion_tenant_shard_size"`

	MaxFetchedSeriesPerQuery     int           `yaml:"max_fetched_series_per_query"`
	MaxFetchedChunkBytesPerQuery int64         `yaml:"max_fetched_chunk_bytes_per_query"`
	MaxQueryLength               time.Duration `yaml:"max_query_length"`
	MaxQueuedQueries             int           `yaml:"max_queued_queries"`

	RetentionPeriod time.Duration `yaml:"retention_period"`
	MaxDeletions    int           `yaml:"max_deletions"`
}

// RegisterFlags registers one flag for each value and sets v to the defaults.
func (v *Values) RegisterFlags(f *flag.FlagSet) {
	f.Float64Var(&v.IngestionRate, "limits.ingestion-rate", 0,
		"Samples per second that a tenant may send; 0 means no limit. More is answered with 429 and Retry-After. In a cluster "+
			"each distributor allows its part of it: spread the senders over them.")
	f.IntVar(&v.IngestionBurst, "limits.ingestion-burst", 0,
		"Samples that a tenant may send at once after a pause; 0 means ten seconds' worth of the rate. No request is too "+
			"large by itself: one that takes more than is left passes, and those after it wait.")
	f.IntVar(&v.MaxRequestBytes, "limits.max-request-bytes", 100<<20,
		"Bytes of a write request after decompression. A larger one is answered with 413 before memory is spent on it.")
	f.IntVar(&v.MaxSeries, "limits.max-series", 0,
		"Series that a tenant may have in memory, copies not counted; 0 means no limit. Samples of further series are "+
			"refused with 400, reason series_limit; series that exist go on. In a cluster each ingester allows its part of it.")
	f.IntVar(&v.MaxLabelNames, "limits.max-label-names", 100,
		"Labels of a series, the metric name included. A series with more is refused with 400, reason too_many_labels.")
	f.IntVar(&v.MaxLabelNameLength, "limits.max-label-name-length", 1024,
		"Bytes of a label name. A series with a longer one is refused with 400, reason label_name_too_long.")
	f.IntVar(&v.MaxLabelValueLength, "limits.max-label-value-length", 4096,
		"Bytes of a label value. A series with a longer one is refused with 400, reason label_value_too_long.")
	f.IntVar(&v.MaxHistogramBuckets, "limits.max-histogram-buckets", 1000,
		"Buckets of a native histogram, negative, positive and custom ones together; 0 means no limit. A larger "+
			"histogram is refused with 400, reason histogram_too_many_buckets.")
	f.DurationVar(&v.OutOfOrderWindow, "limits.out-of-order-window", 3*time.Hour,
		"How much older than a tenant's newest sample another sample may be; 0 accepts samples in order only. An older "+
			"one is refused with 400, reason too_old.")
	f.DurationVar(&v.FutureTolerance, "limits.future-tolerance", 5*time.Minute,
		"How far ahead of the server's clock a sample may be, 30m at most. A sample further ahead is refused with 400, "+
			"reason too_far_in_future.")
	f.IntVar(&v.MaxMetadata, "limits.max-metadata", 10_000,
		"Metric families of a tenant whose metadata (type, help, unit) is kept in memory; 0 keeps none. Beyond it the "+
			"metadata of new families is dropped and counted; samples are not affected.")
	f.IntVar(&v.MaxExemplars, "limits.max-exemplars", 500,
		"Exemplars of a tenant kept in memory, about 100 bytes each; 0 keeps none. Beyond it the oldest is forgotten; "+
			"nothing is refused.")
	f.IntVar(&v.IngestionTenantShardSize, "limits.ingestion-tenant-shard-size", 0,
		"Ingesters of a cluster that share a tenant's series, over all zones; 0 means all of them. A small tenant is cheaper on "+
			"few, and one that overloads its ingesters leaves the others alone. Rounded up to as many in each zone.")
	v.registerQueryFlags(f)
}

func (v *Values) registerQueryFlags(f *flag.FlagSet) {
	f.IntVar(&v.MaxFetchedSeriesPerQuery, "limits.max-fetched-series-per-query", 1_000_000,
		"Series that one query may select, all its selectors together; 0 means no limit. A query over it is refused with "+
			"422, over blocks in the bucket before their samples are read.")
	f.Int64Var(&v.MaxFetchedChunkBytesPerQuery, "limits.max-fetched-chunk-bytes-per-query", 16<<30,
		"Bytes of chunks in the bucket that one query may need; 0 means no limit. A query over it is refused with 422 "+
			"before they are read.")
	f.DurationVar(&v.MaxQueryLength, "limits.max-query-length", 0,
		"The longest time that a selector of a query may reach over, from the oldest to the newest sample that it asks for; "+
			"0 means no limit. querier.lookback_delta comes on top. A query over it is refused with 422. Lists of series "+
			"and labels are not subject to it.")
	f.IntVar(&v.MaxQueuedQueries, "limits.max-queued-queries", 200,
		"Queries of a tenant that may wait for their turn, and as many remote reads; 0 means no limit. A further one is "+
			"refused with 429 and Retry-After. Tenants have their turns in a fair order, however many wait of each.")
	f.DurationVar(&v.RetentionPeriod, "limits.retention-period", 0,
		"How old a sample may be that queries show, to the millisecond; 0 means that all are kept for ever. Blocks of which all "+
			"samples are older are deleted from the bucket by the compactor. A longer period shows again what has not been "+
			"deleted yet.")
	f.IntVar(&v.MaxDeletions, "limits.max-deletions", 1000,
		"Deletions of series that a tenant may have: those not carried out in all blocks yet, and those of the last 30 days; "+
			"0 means no limit. Each costs every query a comparison of series. A further one is refused with 422.")
}

// Validate returns an error for each value out of range, joined: the field, the value and what would be right.
func (v *Values) Validate() error {
	var errs []error
	refuse := func(bad bool, field string, value any, right string) {
		if bad {
			errs = append(errs, fmt.Errorf("%s is %v; %s", field, value, right))
		}
	}
	const none = ", or 0 for no limit"
	refuse(!(v.IngestionRate >= 0), "ingestion_rate", v.IngestionRate, "use samples per second"+none)
	refuse(v.IngestionBurst < 0, "ingestion_burst", v.IngestionBurst,
		"use a number of samples, or 0 for ten seconds' worth of the rate")
	refuse(v.MaxRequestBytes < 1024, "max_request_bytes", v.MaxRequestBytes, "use 1024 bytes or more, such as 104857600")
	refuse(v.MaxSeries < 0, "max_series", v.MaxSeries, "use a number of series"+none)
	refuse(v.MaxLabelNames < 1, "max_label_names", v.MaxLabelNames, "use 1 or more")
	refuse(v.MaxLabelNameLength < 8, "max_label_name_length", v.MaxLabelNameLength,
		"use 8 bytes or more, for __name__ must fit")
	refuse(v.MaxLabelValueLength < 1, "max_label_value_length", v.MaxLabelValueLength, "use 1 byte or more")
	refuse(v.MaxHistogramBuckets < 0, "max_histogram_buckets", v.MaxHistogramBuckets, "use a number of buckets"+none)
	refuse(v.OutOfOrderWindow < 0, "out_of_order_window", v.OutOfOrderWindow,
		"use a duration such as 3h, or 0 for samples in order only")
	refuse(v.FutureTolerance < 0 || v.FutureTolerance > maxFutureTolerance, "future_tolerance", v.FutureTolerance,
		"use 0s to 30m, for one sample from far ahead would make all real ones too old")
	refuse(v.MaxMetadata < 0, "max_metadata", v.MaxMetadata, "use a number of metric families, or 0 to keep none")
	refuse(v.MaxExemplars < 0, "max_exemplars", v.MaxExemplars, "use a number of exemplars, or 0 to keep none")
	refuse(v.IngestionTenantShardSize < 0, "ingestion_tenant_shard_size", v.IngestionTenantShardSize,
		"use a number of ingesters, or 0 for all")
	refuse(v.MaxFetchedSeriesPerQuery < 0, "max_fetched_series_per_query", v.MaxFetchedSeriesPerQuery,
		"use a number of series"+none)
	refuse(v.MaxFetchedChunkBytesPerQuery < 0, "max_fetched_chunk_bytes_per_query", v.MaxFetchedChunkBytesPerQuery,
		"use a number of bytes"+none)
	refuse(v.MaxQueryLength < 0, "max_query_length", v.MaxQueryLength, "use a duration such as 9600h"+none)
	refuse(v.MaxQueuedQueries < 0, "max_queued_queries", v.MaxQueuedQueries, "use a number of queries"+none)
	refuse(v.RetentionPeriod < 0, "retention_period", v.RetentionPeriod, "use a duration such as 9600h, or 0 for ever")
	refuse(v.MaxDeletions < 0, "max_deletions", v.MaxDeletions, "use a number of deletions"+none)
	return errors.Join(errs...)
}

// DefaultValues returns what a tenant gets when nobody says otherwise.
func DefaultValues() Values {
	var v Values
	v.RegisterFlags(flag.NewFlagSet("defaults", flag.ContinueOnError))
	return v
}
