package migration

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/e2e/client"
)

var recordFlag = flag.Bool("e2e.record", false, "write testdata anew, from what the peers do")

// record keeps a part of a bucket that a peer has written, and what the peer answers about it, for the runs without peers.
func record(t *testing.T, name, bucket string, c *client.Client) {
	t.Helper()
	if !*recordFlag {
		return
	}
	dir := filepath.Join("testdata", name)
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.CopyFS(filepath.Join(dir, "bucket"), os.DirFS(bucket)))
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	require.NoError(t, json.NewEncoder(z).Encode(ask(t, c, begin, begin+asked).short()))
	require.NoError(t, z.Close())
	require.NoError(t, os.WriteFile(filepath.Join(dir, "answers.json.gz"), b.Bytes(), 0o644))
}

// recorded reads the answers that record has kept.
func recorded(t *testing.T, name string) (a answers) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name, "answers.json.gz"))
	require.NoError(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	require.NoError(t, err)
	require.NoError(t, json.NewDecoder(z).Decode(&a))
	return a
}

// short replaces samples by their hash, but for those of the first selector, which has them all.
func (a answers) short() answers {
	out := answers{}
	for question, lines := range a {
		if strings.HasPrefix(question, raw("")) && question != raw(selectors[0]) {
			sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
			lines = []string{hex.EncodeToString(sum[:])}
		}
		out[question] = lines
	}
	return out
}
