package app

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/certtest"
)

// TestTheCheckReadsTheFilesOfTLS: each setting that names a file is held against that file, and all faults are said at once.
func TestTheCheckReadsTheFilesOfTLS(t *testing.T) {
	authority := certtest.New(t)
	cert, key := authority.Issue(t, "one")
	_, otherKey := authority.Issue(t, "two")
	words := writeFile(t, "no certificate and no key")
	s3 := []string{
		"-bucket.backend=s3", "-bucket.s3.endpoint=localhost:1", "-bucket.s3.region=x", "-bucket.s3.bucket-name=metrics",
		"-bucket.s3.access-key-id=somebody", "-bucket.s3.secret-access-key=x",
	}
	tracing := []string{"-tracing.otlp-endpoint=localhost:4317"}
	client := []string{"-grpc-client.tls.enabled"}
	for name, tc := range map[string]struct {
		args []string
		want []string // the setting, and what is wrong with which file
	}{
		"no certificate": {
			[]string{"-server.http-tls.cert-file=/nowhere", "-server.http-tls.key-file=" + key},
			[]string{"server.http_tls.cert_file /nowhere", "no such file"},
		},
		"another's key": {
			[]string{"-server.grpc-tls.cert-file=" + cert, "-server.grpc-tls.key-file=" + otherKey},
			[]string{"server.grpc_tls.cert_file " + cert, otherKey, "does not match"},
		},
		"no authority": {
			[]string{"-server.http-tls.cert-file=" + cert, "-server.http-tls.key-file=" + key, "-server.http-tls.client-ca-file=" + words},
			[]string{"server.http_tls.client_ca_file", words},
		},
		"grpc client":              {append(client, "-grpc-client.tls.ca-file=/nowhere"), []string{"grpc_client.tls.ca_file", "/nowhere"}},
		"s3 authority":             {append(s3, "-bucket.s3.tls-ca-file="+words), []string{"bucket.s3.tls_ca_file", words}},
		"s3 pair":                  {append(s3, "-bucket.s3.tls-cert-file="+cert, "-bucket.s3.tls-key-file="+otherKey), []string{"bucket.s3.tls_cert_file " + cert}},
		"tracing":                  {append(tracing, "-tracing.otlp-ca-file="+words), []string{"tracing.otlp_ca_file", words}},
		"encryption of gossip":     {[]string{"-memberlist.encryption-key-file=/nowhere"}, []string{"memberlist.encryption_key_file", "/nowhere"}},
		"encryption of many words": {[]string{"-memberlist.encryption-key-file=" + words}, []string{"memberlist.encryption_key_file " + words}},
	} {
		cmd, err := Parse(append([]string{"-config.check"}, tc.args...), nil)
		require.NoError(t, err, name)
		err = Answer(cmd, &strings.Builder{})
		for _, text := range tc.want {
			require.ErrorContains(t, err, text, name)
		}
	}

	cmd, err := Parse([]string{
		"-config.check", "-server.http-tls.cert-file=" + cert, "-server.http-tls.key-file=" + key,
		"-server.http-tls.client-ca-file=" + authority.File, "-server.grpc-tls.cert-file=/nowhere", "-server.grpc-tls.key-file=/nowhere",
		"-memberlist.encryption-key-file=" + os.DevNull,
	}, nil)
	require.NoError(t, err)
	err = Answer(cmd, &strings.Builder{})
	require.ErrorContains(t, err, "server.grpc_tls")
	require.ErrorContains(t, err, "memberlist.encryption_key_file")
	require.NotContains(t, err.Error(), "http_tls")
}
