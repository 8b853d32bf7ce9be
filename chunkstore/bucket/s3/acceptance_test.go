package s3

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/internal/certtest"
)

func TestAcceptance(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	buckettest.RunAcceptance(t, func(t *testing.T) bucket.Bucket { return s.open(t) })
}

func TestAcceptanceOverTLS(t *testing.T) {
	t.Parallel()
	ca := certtest.New(t)
	cert, key := ca.Issue(t, "server")
	s := startServer(t, "--cert", cert, "--key", key)
	buckettest.RunAcceptance(t, func(t *testing.T) bucket.Bucket { return s.open(t, trusting(ca), pathStyle) })
}

func pathStyle(c *Config) { c.Lookup = lookupPath }

func trusting(ca *certtest.Authority) func(*Config) {
	return func(c *Config) { c.Insecure, c.TLSCAFile = false, ca.File }
}

func TestVirtualHosts(t *testing.T) {
	t.Parallel()
	s := startServer(t, "--virtual-domain", "s3.test")
	name := s.NewBucket(t)
	cfg := s.config()
	cfg.BucketName, cfg.Endpoint, cfg.Lookup = name, "s3.test", lookupVirtual
	b := openBucket(t, cfg)
	dial := b.transport.DialContext
	var asked string
	b.transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		asked = address
		return dial(ctx, network, s.Address())
	}
	buckettest.Put(t, b, "t/object", "content")
	require.Equal(t, "content", buckettest.Get(t, b, "t/object"))
	require.Equal(t, []string{"t/object"}, buckettest.Keys(t, b, "t/", false))
	require.NoError(t, b.Delete(t.Context(), "t/object"))
	require.Equal(t, name+".s3.test:80", asked)
}
