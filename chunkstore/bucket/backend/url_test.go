package backend

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseURL(t *testing.T) {
	want := defaults()
	want.Filesystem.Directory = "./data/bucket"
	got, err := ParseURL("./data/bucket")
	require.NoError(t, err)
	require.Equal(t, want, got)

	want.Filesystem.Directory = "/var/lib/x"
	got, err = ParseURL("file:///var/lib/x")
	require.NoError(t, err)
	require.Equal(t, want, got)

	want.RootTenant = "thanos"
	got, err = ParseURL("file:///var/lib/x?root_tenant=thanos")
	require.NoError(t, err)
	require.Equal(t, want, got)

	want = defaults()
	want.Backend, want.SingleWriter, want.RootTenant = S3, true, "thanos"
	want.S3.BucketName, want.S3.Endpoint, want.S3.Region = "metrics", "minio:9000", "us-east-1"
	want.S3.Insecure, want.S3.Lookup, want.S3.PartSizeBytes = true, "path", 8<<20
	want.S3.CredentialsFile = "/etc/keys"
	got, err = ParseURL("s3://metrics/?endpoint=minio:9000&region=us-east-1&insecure=true&lookup=path&part_size_bytes=8388608" +
		"&credentials_file=/etc/keys&single_writer=true&root_tenant=thanos")
	require.NoError(t, err)
	require.Equal(t, want, got)
	got, err = ParseURL("s3://metrics?endpoint=a")
	require.NoError(t, err)
	require.Equal(t, "a", got.S3.Endpoint)
}

func TestParseURLRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "not empty",
		"gs://bucket":                          `scheme "gs" is not known`,
		"s3://":                                "bucket_name is empty",
		"s3://metrics":                         "s3.endpoint is empty",
		"s3://metrics/sub?endpoint=a":          "a path below the bucket is not supported",
		"s3://metrics:80/?endpoint=a":          "a path below the bucket is not supported",
		"s3://key:hunter2@metrics/?endpoint=a": "neither a user",
		"s3://metrics/?endpoint=a#x":           "fragment",
		"s3://metrics/?endpoint=a&endpoint=b":  "given twice",
		"s3://metrics/?endpont=a":              "endpoint",
		"s3://metrics/?endpoint=a&insecure=x":  "true or false",
		"s3://metrics/?bucket_name=a":          "behind s3://",
		"s3://metrics/?endpoint=a&lookup=x":    "lookup",
		"s3://metrics/?endpoint=a&secret_access_key=hunter2": "environment",
		"s3://metrics/?endpoint=a&session_token=hunter2":     "environment",
		"s3://metrics/?%zz":                        "%zz",
		"file://host/path":                         "file:///path",
		"file:///path?x=y":                         "file:///path",
		"file:///path?root_tenant=..":              "root_tenant",
		"s3://metrics/?endpoint=a&root_tenant=a/b": "root_tenant",
	} {
		_, err := ParseURL(text)
		require.ErrorContains(t, err, want, text)
		require.NotContains(t, err.Error(), "hunter2")
		require.NotContains(t, err.Error(), "line ", "a URL has none")
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("s3://metrics/?endpoint=minio:9000&region=us-east-1&insecure=true&lookup=path")
	f.Add("./data")
	f.Fuzz(func(t *testing.T, text string) {
		if cfg, err := ParseURL(text); err == nil {
			require.NoError(t, cfg.Validate())
		}
	})
}
