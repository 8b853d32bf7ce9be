package app

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
	"github.com/stretchr/testify/require"
)

// TestExamplesOfObjectStorage: what the document shows can be used as it stands.
func TestExamplesOfObjectStorage(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/object-storage.md")
	require.NoError(t, err)
	seen := map[string]int{}
	for _, m := range regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```").FindAllStringSubmatch(string(doc), -1) {
		kind, text := m[1], m[2]
		seen[kind]++
		switch kind {
		case "yaml":
			cmd, err := Parse([]string{"-config.file=" + writeFile(t, text)}, nil)
			require.NoError(t, err, text)
			require.Equal(t, "s3", cmd.Config.Bucket.Backend)
		case "json":
			require.True(t, json.Valid([]byte(text)), text)
		case "promql":
			_, err := parser.NewParser(parser.Options{}).ParseExpr(text)
			require.NoError(t, err, text)
		default:
			t.Errorf("nothing tests an example of %s", kind)
		}
	}
	require.Equal(t, map[string]int{"yaml": 3, "json": 2, "promql": 1}, seen)
	for _, s := range regexp.MustCompile("`(duramen_[a-z0-9_]+)`").FindAllStringSubmatch(string(doc), -1) {
		metrics, err := os.ReadFile("../../../docs/metrics.md")
		require.NoError(t, err)
		require.Contains(t, string(metrics), "| `"+s[1]+"` |")
	}
}

// TestExamplesOfACluster: the three commands are those of three members that differ and find one another.
func TestExamplesOfACluster(t *testing.T) {
	doc, err := os.ReadFile("../../../docs/cluster.md")
	require.NoError(t, err)
	ids, zones, listeners := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, m := range regexp.MustCompile("(?ms)^```sh\nduramen (.*?)^```").FindAllStringSubmatch(string(doc), -1) {
		cmd, err := Parse(strings.Fields(strings.ReplaceAll(m[1], "\\\n", " ")), nil)
		require.NoError(t, err, m[1])
		cfg := cmd.Config
		require.Equal(t, []string{"localhost:7946"}, cfg.Memberlist.Join)
		require.Equal(t, "bucket", cfg.Bucket.Filesystem.Directory)
		id, err := instanceID("", "box", cfg.Server.GRPCListenAddress, "")
		require.NoError(t, err)
		ids[id], zones[cfg.Ring.InstanceZone] = true, true
		for _, address := range []string{
			cfg.Server.GRPCListenAddress, cfg.Server.HTTPListenAddress, cfg.Memberlist.BindAddress, cfg.DataDir,
		} {
			listeners[address] = true
		}
	}
	require.Len(t, ids, 3)
	require.Len(t, zones, 3)
	require.Len(t, listeners, 12)
	require.True(t, listeners[":7946"], "one of them is where the others look")
}
