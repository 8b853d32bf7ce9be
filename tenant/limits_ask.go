package tenant

import "time"

func (l *Limits) of(tenant string) *tenantLimits { return l.state.Load().of(tenant) }

// Epoch changes whenever one of the tenant's limits changed, and only then. What was derived from the limits under one
// epoch, such as "this label set is valid", holds as long as the epoch is the same.
func (l *Limits) Epoch(tenant string) uint64 { return l.of(tenant).epoch }

// Values returns all limits of the tenant, to show them. To apply a limit, ask for it.
func (l *Limits) Values(tenant string) Values { return l.of(tenant).Values }

// IngestionRate is in samples per second; 0 means no limit.
func (l *Limits) IngestionRate(tenant string) float64 { return l.of(tenant).IngestionRate }

// IngestionBurst is in samples, at least 1 when a rate is set; 0 when there is no rate.
func (l *Limits) IngestionBurst(tenant string) int {
	v := l.of(tenant)
	switch {
	case v.IngestionRate == 0:
		return 0
	case v.IngestionBurst > 0:
		return v.IngestionBurst
	default:
		return max(1, int(min(10*v.IngestionRate, 1<<53)))
	}
}

// MaxRequestBytes bounds a write request after decompression, in bytes.
func (l *Limits) MaxRequestBytes(tenant string) int { return l.of(tenant).MaxRequestBytes }

// MaxSeries bounds the series in memory, copies not counted; 0 means no limit.
func (l *Limits) MaxSeries(tenant string) int { return l.of(tenant).MaxSeries }

// MaxLabelNames bounds the labels of a series, the metric name included.
func (l *Limits) MaxLabelNames(tenant string) int { return l.of(tenant).MaxLabelNames }

// MaxLabelNameLength is in bytes.
func (l *Limits) MaxLabelNameLength(tenant string) int { return l.of(tenant).MaxLabelNameLength }

// MaxLabelValueLength is in bytes.
func (l *Limits) MaxLabelValueLength(tenant string) int { return l.of(tenant).MaxLabelValueLength }

// MaxHistogramBuckets bounds all buckets of a native histogram together; 0 means no limit.
func (l *Limits) MaxHistogramBuckets(tenant string) int { return l.of(tenant).MaxHistogramBuckets }

// OutOfOrderWindow is how much older than the tenant's newest sample another may be; 0 means in order only.
func (l *Limits) OutOfOrderWindow(tenant string) time.Duration { return l.of(tenant).OutOfOrderWindow }

// FutureTolerance is how far ahead of the clock a sample may be, 30 min at most.
func (l *Limits) FutureTolerance(tenant string) time.Duration { return l.of(tenant).FutureTolerance }

// MaxMetadata is how many metric families' metadata is kept; 0 means none.
func (l *Limits) MaxMetadata(tenant string) int { return l.of(tenant).MaxMetadata }

// MaxExemplars is how many exemplars are kept; 0 means none.
func (l *Limits) MaxExemplars(tenant string) int { return l.of(tenant).MaxExemplars }

// IngestionTenantShardSize is how many ingesters of a cluster share the tenant's series; 0 means all.
func (l *Limits) IngestionTenantShardSize(tenant string) int {
	return l.of(tenant).IngestionTenantShardSize
}

// MaxFetchedSeriesPerQuery bounds the series that all selectors of one query select; 0 means no limit.
func (l *Limits) MaxFetchedSeriesPerQuery(tenant string) int {
	return l.of(tenant).MaxFetchedSeriesPerQuery
}

// MaxFetchedChunkBytesPerQuery bounds the bytes of chunks in the bucket that one query needs; 0 means no limit.
func (l *Limits) MaxFetchedChunkBytesPerQuery(tenant string) int64 {
	return l.of(tenant).MaxFetchedChunkBytesPerQuery
}

// MaxQueryLength bounds the time that a selector reaches over; 0 means no limit.
func (l *Limits) MaxQueryLength(tenant string) time.Duration { return l.of(tenant).MaxQueryLength }

// MaxQueuedQueries bounds the queries of the tenant that wait for their turn; 0 means no limit.
func (l *Limits) MaxQueuedQueries(tenant string) int { return l.of(tenant).MaxQueuedQueries }

// RetentionPeriod is how old a sample may be that queries show; 0 means that all are kept for ever.
func (l *Limits) RetentionPeriod(tenant string) time.Duration { return l.of(tenant).RetentionPeriod }

// MaxDeletions bounds the deletions of series that are remembered at a time; 0 means no limit.
func (l *Limits) MaxDeletions(tenant string) int { return l.of(tenant).MaxDeletions }
