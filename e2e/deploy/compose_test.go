package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
)

// compose is the part of a compose file that is looked at. Decoding resolves the merge keys.
type compose struct {
	Services map[string]struct {
		Image       string
		Build       struct{ Context, Dockerfile string }
		Environment map[string]string
		Volumes     []string
		DependsOn   map[string]any `yaml:"depends_on"`
	}
	Volumes map[string]any
}

// TestCompose holds the compose file against itself and the binary, and starts its three processes on loopback: the same
// settings, but for the addresses and the bucket. They find one another, and what one takes another answers.
func TestCompose(t *testing.T) {
	data, err := os.ReadFile(absolute(t, "deploy/compose/compose.yaml"))
	require.NoError(t, err)
	var file compose
	require.NoError(t, yaml.Unmarshal(data, &file))
	members := map[string][]string{}
	for name, s := range file.Services {
		for _, v := range s.Volumes {
			from, _, _ := strings.Cut(v, ":")
			if strings.HasPrefix(from, ".") {
				require.FileExists(t, existing(t, filepath.Join("deploy/compose", from)))
			} else {
				require.Contains(t, file.Volumes, from, name)
			}
		}
		for on := range s.DependsOn {
			require.Contains(t, file.Services, on, name)
		}
		if s.Image != "duramen" {
			continue
		}
		require.FileExists(t, absolute(t, filepath.Join("deploy/compose", s.Build.Context, s.Build.Dockerfile)))
		for k, v := range s.Environment {
			members[name] = append(members[name], k+"="+v)
		}
		checkSettings(t, nil, members[name])
	}
	require.Len(t, members, 3)
	startCompose(t, members)
}

// existing returns the path of a file, of any one for a folder.
func existing(t *testing.T, name string) string {
	t.Helper()
	path := absolute(t, name)
	entries, err := os.ReadDir(path)
	if err != nil {
		return path
	}
	require.NotEmpty(t, entries, name)
	return filepath.Join(path, entries[0].Name())
}

func startCompose(t *testing.T, members map[string][]string) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	binary, err := process.Build(ctx, false)
	require.NoError(t, err)
	bucket, gossip := t.TempDir(), map[string]string{}
	var join []string
	for name := range members {
		port, err := process.FreePort()
		require.NoError(t, err)
		gossip[name] = "127.0.0.1:" + strconv.Itoa(port)
		join = append(join, gossip[name])
	}
	clients := map[string]*client.Client{}
	for name, environment := range members {
		spec, err := process.Duramen(binary, t.TempDir(), kept(environment)...)
		require.NoError(t, err)
		spec.Args = append(spec.Args, "-memberlist.bind-address="+gossip[name], "-memberlist.join="+strings.Join(join, ","),
			"-bucket.filesystem.directory="+bucket)
		p, err := process.Start(spec)
		require.NoError(t, err)
		t.Cleanup(p.Kill)
		t.Cleanup(func() {
			if t.Failed() {
				t.Logf("%s:\n%s", name, p.LogTail(3000))
			}
		})
		require.NoError(t, p.WaitReady(ctx))
		clients[name] = client.Duramen(spec.URL, "demo")
		defer clients[name].CloseIdle()
	}
	for name, c := range clients {
		require.Eventually(t, func() bool { return active(ctx, t, c) == 3 }, 30*time.Second, 10*time.Millisecond,
			"%s knows of three", name)
	}
	raw, err := (&prompb.WriteRequest{Timeseries: []prompb.TimeSeries{{
		Labels:  []prompb.Label{{Name: "__name__", Value: "composed"}},
		Samples: []prompb.Sample{{Timestamp: client.Now(), Value: 7}},
	}}}).Marshal()
	require.NoError(t, err)
	answer, err := clients["duramen-a"].Push(ctx, client.V1, raw)
	require.NoError(t, err)
	require.Equal(t, 2, answer.Status/100, "%+v", answer)
	for name, c := range clients {
		require.Equal(t, 1, answers(ctx, t, c, "composed == 7"), name)
	}
}

// kept returns as flags what of the settings a process on this machine can have.
func kept(environment []string) (args []string) {
	for _, e := range environment {
		name, value, _ := strings.Cut(strings.TrimPrefix(e, "DURAMEN_"), "=")
		switch name {
		case "RING_INSTANCE_ID", "RING_INSTANCE_ZONE", "MEMBERLIST_CLUSTER_LABEL":
			flag := strings.Replace(strings.ToLower(name), "_", ".", 1)
			args = append(args, fmt.Sprintf("-%s=%s", strings.ReplaceAll(flag, "_", "-"), value))
		}
	}
	return args
}

// active counts the members that the ring page of a process lists as ACTIVE.
func active(ctx context.Context, t *testing.T, c *client.Client) (n int) {
	t.Helper()
	answer, err := c.Get(ctx, "/ring?format=json")
	require.NoError(t, err)
	var page struct{ Members []struct{ State string } }
	require.NoError(t, json.Unmarshal([]byte(answer.Body), &page), answer.Body)
	for _, m := range page.Members {
		if m.State == "ACTIVE" {
			n++
		}
	}
	return n
}
