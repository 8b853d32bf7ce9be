package app

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket/identity"
	"github.com/duramendb/duramen/ring"
	"github.com/duramendb/duramen/tenant"
)

// TestAnotherBucketIsAccepted by the setting that the refused start names, once.
func TestAnotherBucketIsAccepted(t *testing.T) {
	dir := t.TempDir()
	startNode(t, testConfig(dir)).stop()
	var kept bucketFile
	data, err := os.ReadFile(filepath.Join(dir, bucketName))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &kept))

	other := "-bucket.filesystem.directory=" + filepath.Join(dir, "other")
	refused := func(args ...string) {
		a, err := New(testConfig(dir, args...), &logBuffer{})
		require.NoError(t, err)
		require.ErrorIs(t, a.Run(t.Context()), identity.ErrRefused)
	}
	refused(other)
	accept := "-bucket.accept-new-identity=" + kept.ID
	n := startNode(t, testConfig(dir, other, accept))
	require.Equal(t, http.StatusOK, n.do(http.MethodGet, "/healthz", nil).status)
	n.stop()
	startNode(t, testConfig(dir, other, accept)).stop()
	refused(accept) // back again is another change
	refused("-bucket.filesystem.directory="+filepath.Join(dir, "third"), accept)

	require.NoError(t, os.WriteFile(filepath.Join(dir, bucketName), []byte("{"), 0o600))
	_, err = New(testConfig(dir), &logBuffer{})
	require.ErrorContains(t, err, bucketName)
}

// TestAnUpgradeWithoutTheVolume: a node that was used before there were identities is not bound to the empty folder in the place
// of its bucket, nor kept from work by it, and takes its bucket when that is back.
func TestAnUpgradeWithoutTheVolume(t *testing.T) {
	dir := t.TempDir()
	bucketDir, aside, kept := filepath.Join(dir, "bucket"), filepath.Join(dir, "aside"), filepath.Join(dir, bucketName)
	old := time.Now().Add(-20 * time.Hour)
	n := startNode(t, testConfig(dir))
	require.Less(t, n.push("/api/v1/push", "", "m", 7, old).status, 300)
	require.Equal(t, http.StatusOK, n.do(http.MethodPost, "/ingester/flush?wait=true", nil).status)
	n.stop()
	require.NoError(t, os.Remove(kept))
	require.NoError(t, os.Remove(filepath.Join(bucketDir, identity.Key)))
	require.NoError(t, os.Rename(bucketDir, aside))

	n = startNode(t, testConfig(dir))
	require.Less(t, n.push("/api/v1/push", "", "recent", 8, time.Now()).status, 300)
	require.Equal(t, http.StatusOK, n.do(http.MethodPost, "/ingester/flush?wait=true", nil).status)
	require.Equal(t, http.StatusOK, n.do(http.MethodGet, "/healthz", nil).status)
	require.Contains(t, n.log.String(), "given no identity yet")
	n.stop()
	require.NoFileExists(t, kept)
	require.NoFileExists(t, filepath.Join(bucketDir, identity.Key))
	require.NoError(t, os.RemoveAll(bucketDir))
	require.NoError(t, os.Rename(aside, bucketDir))
	n = startNode(t, testConfig(dir))
	require.Equal(t, "7", n.query("", "m", old))
	require.FileExists(t, kept)
	n.stop()

	// The health of one whose bucket was away at its start writes nothing into another one: this one has no place for a probe.
	require.NoError(t, os.Rename(bucketDir, aside))
	require.NoError(t, os.MkdirAll(filepath.Join(bucketDir, "~duramen"), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(bucketDir, "~duramen", "probe"), nil, 0o600))
	a, err := New(testConfig(dir), &logBuffer{})
	require.NoError(t, err)
	require.ErrorIs(t, a.checkBucket(t.Context()), identity.ErrRefused)
	require.ErrorIs(t, a.Run(t.Context()), identity.ErrRefused)
}

// TestAMemberOnAnotherBucketThanItsCluster: who keeps nothing on its disk learns from the ingesters that its bucket, which is
// empty, is the wrong one.
func TestAMemberOnAnotherBucketThanItsCluster(t *testing.T) {
	c := newCluster(t)
	all := c.start("node-a-0", "a", roleAll, "-ring.replication-factor=1")
	reader := c.start("reader-0", "a", roleQuerier+","+roleStoreGateway, "-ring.replication-factor=1",
		"-bucket.filesystem.directory="+filepath.Join(c.dir, "elsewhere"))
	c.meet()
	old := time.Now().Add(-20 * time.Hour)
	require.Less(t, all.push("/api/v1/push", "team-a", "m", 7, old).status, 300)
	res := all.do(http.MethodPost, "/ingester/flush?tenant=team-a&wait=true", nil)
	require.Equal(t, http.StatusOK, res.status, res.body)

	require.Eventually(t, func() bool { // the word of the ingester is on its way
		return strings.Contains(reader.do(http.MethodGet, "/healthz", nil).body, "it has no identity")
	}, 20*time.Second, 10*time.Millisecond)
	res = reader.do(http.MethodGet, "/prometheus/api/v1/query?query=m&time="+old.UTC().Format(time.RFC3339Nano), nil,
		tenant.HeaderName, "team-a")
	require.Equal(t, http.StatusServiceUnavailable, res.status, res.body)
	require.Contains(t, res.body, "ingester node-a-0")
	require.Contains(t, reader.do(http.MethodGet, "/healthz", nil).body, "it has no identity, and that of the bucket of ingester")
	require.Equal(t, http.StatusOK, reader.do(http.MethodGet, "/ready", nil).status)
	require.Equal(t, "7", all.query("team-a", "m", old))
	require.NoFileExists(t, filepath.Join(c.dir, "reader-0", bucketName))
}

// TestTheClusterBucketIsOfWhoWasFirst, of the living.
func TestTheClusterBucketIsOfWhoWasFirst(t *testing.T) {
	now := time.Now()
	member := func(id, bucket string, registered int64, age time.Duration) ring.Entry {
		return ring.MemberEntry(ring.Member{
			ID: id, Zone: id, State: ring.Active, Epoch: 1, Roles: []ring.Role{ring.RoleIngester}, Registered: registered,
			BucketID: bucket, Seen: now.Add(-age).UnixMilli(),
		})
	}
	entries := []ring.Entry{
		member("a", "X", 5, 0), member("b", "Y", 3, 0), member("c", "", 1, 0), member("d", "Z", 2, time.Hour),
	}
	view := ring.New(ring.Config{}, entries, now)
	for self, want := range map[string]string{"a": "Y", "b": "", "c": "", "d": "Y", "querier": "Y"} {
		id, _ := bucketOf(view, self, now)
		require.Equal(t, want, id, self)
	}
}
