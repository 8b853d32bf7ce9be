package s3

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/encrypt"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

// Bucket is a bucket.Bucket on an S3 server.
type Bucket struct {
	cfg  Config
	name string
	log  *slog.Logger
	m    *metrics

	client    minio.Core // tries everything once; see retry
	keys      *keys
	transport *http.Transport
	sse       encrypt.ServerSide // nil for none

	uploads *semaphore.Weighted // bytes of memory for bodies that are being sent
	pause   time.Duration       // before the second try
}

var _ bucket.Bucket = (*Bucket)(nil)

// New checks cfg and reads the certificates that it names. The server is not asked anything; bucket.Probe does that.
func New(cfg Config, log *slog.Logger, reg prometheus.Registerer) (*Bucket, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open S3 bucket: %w", err)
	}
	transport, err := newTransport(cfg)
	if err != nil {
		return nil, fmt.Errorf("open S3 bucket: %w", err)
	}
	b := &Bucket{
		cfg:       cfg,
		log:       log,
		m:         newMetrics(reg),
		transport: transport,
		uploads:   semaphore.NewWeighted(cfg.UploadBufferBytes),
		pause:     cmp.Or(cfg.FirstPause, firstPause),
	}
	if b.sse, err = newEncryption(cfg); err != nil {
		return nil, fmt.Errorf("open S3 bucket: %w", err)
	}
	b.keys = newKeys(cfg, transport)
	client, err := minio.NewCore(cfg.Endpoint, &minio.Options{
		Creds:        b.keys.Credentials,
		Secure:       !cfg.Insecure,
		Transport:    &answers{transport, b.m},
		Region:       cfg.Region,
		BucketLookup: lookup(cfg),
		MaxRetries:   1,
	})
	if err != nil {
		return nil, fmt.Errorf("open S3 bucket: endpoint %q: %w", cfg.Endpoint, err)
	}
	client.SetAppInfo("duramen", "1")
	// Otherwise the library asks another host of Amazon's than the one that was named, which firewalls may not know.
	client.SetS3EnableDualstack(strings.Contains(cfg.Endpoint, "dualstack"))
	b.client = *client
	b.name = fmt.Sprintf("S3 bucket %s at %s", cfg.BucketName, client.EndpointURL())
	return b, nil
}

func lookup(cfg Config) minio.BucketLookupType {
	switch cfg.Lookup {
	case lookupPath:
		return minio.BucketLookupPath
	case lookupVirtual:
		return minio.BucketLookupDNS
	default:
		return minio.BucketLookupAuto
	}
}

func newEncryption(cfg Config) (encrypt.ServerSide, error) {
	switch cfg.SSE {
	case sseS3:
		return encrypt.NewSSE(), nil
	case sseKMS:
		return encrypt.NewSSEKMS(cfg.SSEKMSKeyID, nil)
	default:
		return nil, nil //nolint:nilnil // the library's word for none
	}
}

// Name implements bucket.Bucket, such as "S3 bucket metrics at https://s3.eu-central-1.amazonaws.com".
func (b *Bucket) Name() string { return b.name }

// Close drops idle connections. Calls and bodies that are open go on.
func (b *Bucket) Close() error {
	b.transport.CloseIdleConnections()
	return nil
}
