package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/cli"
)

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	env := cli.Env{Stderr: &bytes.Buffer{}}
	missing := filepath.Join(dir, "missing")
	for _, tt := range []struct {
		flags Flags
		want  string
		usage bool
	}{
		{Flags{}, "which bucket?", true},
		{Flags{Bucket: dir, Config: "x"}, "both name a bucket", true},
		{Flags{Bucket: missing}, "no such file", false},
		{Flags{Bucket: "gs://x"}, "not known", true},
		{Flags{Config: missing}, "no such file", false},
	} {
		_, err := tt.flags.Open(env)
		require.ErrorContains(t, err, tt.want)
		require.Equal(t, tt.usage, errors.Is(err, cli.ErrUsage), "%v", err)
	}
	require.NoDirExists(t, missing, "nothing is created")
	b, err := (&Flags{Bucket: dir}).Open(env)
	require.NoError(t, err)
	require.Equal(t, "filesystem "+dir, b.Name())
	Close(b, &err)
	require.NoError(t, err)
	b, err = Open(env, missing, true)
	require.NoError(t, err)
	require.DirExists(t, missing)
	require.NoError(t, b.Close())
}

func TestConfigFile(t *testing.T) {
	dir := t.TempDir()
	env := cli.Env{Stderr: &bytes.Buffer{}}
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "data", "bucket"), 0o755))
	file := filepath.Join(dir, "duramen.yaml")
	write := func(text string) *Flags {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o600))
		return &Flags{Config: file}
	}
	b, err := write("data_dir: " + dir + "/data\nquerier: {anything: 1}\n").Open(env)
	require.NoError(t, err)
	require.Equal(t, "filesystem "+dir+"/data/bucket", b.Name())
	require.NoError(t, b.Close())
	b, err = write("bucket: {filesystem: {directory: " + dir + "}}\n").Open(env)
	require.NoError(t, err)
	require.Equal(t, "filesystem "+dir, b.Name())
	require.NoError(t, b.Close())
	b, err = write("bucket: {backend: s3, s3: {bucket_name: m, endpoint: h, access_key_id: a, secret_access_key: hunter2}}\n").Open(env)
	require.NoError(t, err)
	require.Equal(t, "S3 bucket m at https://h", b.Name())
	require.NoError(t, b.Close())
	_, err = write("bucket: {backend: s3}\n").Open(env)
	require.ErrorContains(t, err, "s3.bucket_name is empty")
	_, err = write("bucket: {bakend: s3}\n").Open(env)
	require.ErrorContains(t, err, "backend")
	_, err = write("bucket: [").Open(env)
	require.ErrorContains(t, err, "yaml")
}
