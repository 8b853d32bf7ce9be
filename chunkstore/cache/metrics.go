package cache

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type memoryMetrics struct {
	used, limit, entries          prometheus.Gauge
	hits, misses, evicted, passed prometheus.Counter
}

// newMemoryMetrics registers the metrics of the cache called name; others with other names may be there.
func newMemoryMetrics(name string, reg prometheus.Registerer) *memoryMetrics {
	f, labels := promauto.With(reg), prometheus.Labels{"cache": name}
	return &memoryMetrics{
		used: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_cache_memory_used_bytes", ConstLabels: labels,
			Help: "Bytes of memory that the cache holds. It rises to the limit and stays there.",
		}),
		limit: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_cache_memory_limit_bytes", ConstLabels: labels,
			Help: "Bytes of memory that the cache may hold. It changes with the memory limit at start.",
		}),
		entries: f.NewGauge(prometheus.GaugeOpts{
			Name: "duramen_cache_memory_entries", ConstLabels: labels,
			Help: "Values in the cache. A rise at a full cache means smaller values.",
		}),
		hits: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_memory_hits_total", ConstLabels: labels,
			Help: "Values that were in memory. A rise means that queries ask for the same again.",
		}),
		misses: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_memory_misses_total", ConstLabels: labels,
			Help: "Values that were not in memory. Many against hits, with evictions, mean that the cache is too small.",
		}),
		evicted: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_memory_evictions_total", ConstLabels: labels,
			Help: "Values that left to make room. A rise means that more is in use than fits.",
		}),
		passed: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_memory_too_large_total", ConstLabels: labels,
			Help: "Values that were not kept because one alone is larger than the limit. A rise means that the limit is far " +
				"too small.",
		}),
	}
}

type rangesMetrics struct {
	reads, requests, shared, refetches prometheus.Counter
	asked, fetched, fromDisk           prometheus.Counter
}

func newRangesMetrics(reg prometheus.Registerer) *rangesMetrics {
	f := promauto.With(reg)
	return &rangesMetrics{
		reads: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_ranges_reads_total",
			Help: "Reads of ranges of an object by queries. A rise means more queries, or queries over more blocks.",
		}),
		requests: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_ranges_requests_total",
			Help: "Requests to the bucket made for reads. A rise at steady reads means that less is found on the local disk.",
		}),
		shared: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_ranges_shared_total",
			Help: "Requests that were not made because another read waited for the same bytes. A rise means queries that ask " +
				"for the same at the same time.",
		}),
		refetches: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_ranges_refetches_total",
			Help: "Reads repeated past the caches because the bytes were damaged. A rise means damage in the bucket, on the " +
				"way from it, or on the local disk.",
		}),
		asked: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_ranges_asked_bytes_total",
			Help: "Bytes that reads asked for. A rise means that queries read more data.",
		}),
		fetched: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_ranges_fetched_bytes_total",
			Help: "Bytes that came from the bucket, gaps between wanted ones too. A rise at steady asked bytes means colder " +
				"caches.",
		}),
		fromDisk: f.NewCounter(prometheus.CounterOpts{
			Name: "duramen_cache_ranges_disk_bytes_total",
			Help: "Bytes that came from the local disk in place of the bucket. A rise means a warm cache.",
		}),
	}
}
