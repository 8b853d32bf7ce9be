package seriesgen

import (
	"github.com/prometheus/prometheus/model/labels"
)

// kind is the law that the values of a metric follow.
type kind uint8

const (
	counter         kind = iota // whole numbers that grow and start again at 0
	seconds                     // a counter of fractions
	gauge                       // whole numbers around a base
	ratio                       // a fraction between 0 and 1, at times NaN
	flag                        // mostly 1
	flaky                       // a gauge that goes stale now and then
	hist                        // native histogram with integer counts
	floatHist                   // native histogram with float counts
	customHist                  // native histogram with custom buckets
	customFloatHist             // the same with float counts
)

// metric is one series of a pod.
type metric struct {
	name  string
	kind  kind
	scale float64 // of the value: growth per scrape of a counter, base of a gauge
	extra []labels.Label
}

// one and its siblings keep the catalogue below readable.
func one(k, v string) []labels.Label { return []labels.Label{{Name: k, Value: v}} }

func two(k, v, k2, v2 string) []labels.Label { return append(one(k, v), one(k2, v2)...) }

func http(code, handler string) []labels.Label {
	return append(one("code", code), two("handler", handler, "method", "GET")...)
}

func bucket(le string) []labels.Label { return append(http("200", "/api/v1/orders"), one("le", le)...) }

// catalogue is what every pod exposes, in the order of its series. The share of kinds and the 1.5 labels that the average
// metric adds to the 11 of its target are those of a cluster with kubelet, cAdvisor and an HTTP service in each pod.
// Native histograms, when asked for, replace the values of the last four.
var catalogue = [50]metric{
	{"up", flag, 1, nil},
	{"scrape_duration_seconds", ratio, 1, nil},
	{"scrape_samples_scraped", gauge, 50, nil},
	{"process_cpu_seconds_total", seconds, 0.4, nil},
	{"process_resident_memory_bytes", gauge, 3e8, nil},
	{"process_open_fds", gauge, 120, nil},
	{"process_start_time_seconds", flag, 1.7e9, nil},
	{"go_goroutines", gauge, 300, nil},
	{"go_memstats_heap_inuse_bytes", gauge, 1e8, nil},
	{"go_gc_duration_seconds", ratio, 0.01, one("quantile", "0.5")},
	{"go_gc_duration_seconds", ratio, 0.02, one("quantile", "1")},
	{"go_gc_duration_seconds_count", counter, 2, nil},
	{"container_cpu_usage_seconds_total", seconds, 1.5, one("cpu", "total")},
	{"container_cpu_cfs_throttled_periods_total", counter, 3, nil},
	{"container_memory_working_set_bytes", gauge, 4e8, nil},
	{"container_memory_rss", gauge, 2e8, nil},
	{"container_network_receive_bytes_total", counter, 40000, one("interface", "eth0")},
	{"container_network_transmit_bytes_total", counter, 60000, one("interface", "eth0")},
	{"container_network_receive_packets_total", counter, 80, one("interface", "eth0")},
	{"container_fs_reads_bytes_total", counter, 9000, one("device", "/dev/nvme0n1")},
	{"container_fs_writes_bytes_total", counter, 12000, one("device", "/dev/nvme0n1")},
	{"container_last_seen", gauge, 1.7e9, nil},
	{"kube_pod_container_status_restarts_total", counter, 0.01, nil},
	{"kube_pod_container_status_ready", flag, 1, nil},
	{"kube_pod_container_resource_limits", flag, 2, two("resource", "cpu", "unit", "core")},
	{"kube_pod_container_resource_limits", flag, 4e9, two("resource", "memory", "unit", "byte")},
	{"kube_pod_status_phase", flag, 1, one("phase", "Running")},
	{"http_requests_in_flight", gauge, 9, nil},
	{"http_requests_total", counter, 120, http("200", "/api/v1/orders")},
	{"http_requests_total", counter, 3, http("404", "/api/v1/orders")},
	{"http_requests_total", counter, 0.2, http("500", "/api/v1/orders")},
	{"http_requests_total", counter, 40, http("200", "/api/v1/carts")},
	{"http_request_duration_seconds_bucket", counter, 20, bucket("0.005")},
	{"http_request_duration_seconds_bucket", counter, 60, bucket("0.01")},
	{"http_request_duration_seconds_bucket", counter, 80, bucket("0.025")},
	{"http_request_duration_seconds_bucket", counter, 100, bucket("0.1")},
	{"http_request_duration_seconds_bucket", counter, 110, bucket("0.5")},
	{"http_request_duration_seconds_bucket", counter, 120, bucket("+Inf")},
	{"http_request_duration_seconds_sum", seconds, 3, http("200", "/api/v1/orders")},
	{"http_request_duration_seconds_count", counter, 120, http("200", "/api/v1/orders")},
	{"grpc_client_handled_total", counter, 25, two("grpc_code", "OK", "grpc_method", "Reserve")},
	{"grpc_client_handled_total", counter, 0.5, two("grpc_code", "Unavailable", "grpc_method", "Reserve")},
	{"db_pool_connections", gauge, 20, one("state", "idle")},
	{"db_pool_connections", gauge, 12, one("state", "busy")},
	{"cache_hit_ratio", ratio, 0.9, one("cache", "sessions")},
	{"queue_depth", flaky, 80, one("queue", "orders")},
	{"request_size_bytes", hist, 12, nil},
	{"response_size_bytes", floatHist, 12, nil},
	{"job_duration_seconds", customHist, 5, one("stage", "prepare")},
	{"job_wait_seconds", customFloatHist, 5, one("stage", "queued")},
}

var apps = [...]string{
	"checkout-api", "cart-service", "payments", "catalog-search", "web-frontend", "auth-gateway", "shipping", "recommender",
}

var namespaces = [...]string{"shop-prod", "shop-staging", "platform", "data-pipeline", "monitoring"}
