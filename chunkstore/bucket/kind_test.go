package bucket

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestClassify(t *testing.T) {
	const block = "team-a/01KAH2V5X4S3P8Y4QW4Q5B6Z7C/"
	for key, want := range map[string]struct {
		tenant string
		kind   kind
	}{
		block + "meta.json":            {"team-a", kindMeta},
		block + "index":                {"team-a", kindIndex},
		block + "chunks/000001":        {"team-a", kindChunks},
		block + "chunks/":              {"team-a", kindChunks},
		block + "duramen.idx":          {"team-a", kindSidecar},
		block + "deletion-mark.json":   {"team-a", kindMarker},
		block + "no-compact-mark.json": {"team-a", kindMarker},
		block + "tombstones":           {"team-a", kindOther},
		block:                          {"team-a", kindOther},
		"team-a/markers/01KAH2V5X4S3P8Y4QW4Q5B6Z7C-x-mark.json": {"team-a", kindMarker},
		"__markers__/team-a/tenant-deletion-mark.json":          {"team-a", kindMarker},
		"__markers__/": {"", kindMarker},
		"team-a/duramen/manifest/00000000000000000007": {"team-a", kindManifest},
		"team-a/duramen/manifest/":                     {"team-a", kindManifest},
		"team-a/duramen/quarantine/x.json":             {"team-a", kindOther},
		"team-a/bucket-index.json.gz":                  {"team-a", kindOther},
		"team-a/":                                      {"team-a", kindOther},
		"team-a":                                       {"", kindOther},
		"~duramen/probe/x":                             {"", kindOther},
		"":                                             {"", kindOther},
	} {
		id, k := classify(key)
		require.Equal(t, want.tenant, id, key)
		require.Equal(t, kindNames[want.kind], kindNames[k], key)
	}
}

func TestClassifyAll(t *testing.T) {
	for _, c := range []struct {
		tenant string
		kind   kind
		keys   []string
	}{
		{"", kindOther, nil},
		{"a", kindManifest, []string{"a/duramen/manifest/1", "a/duramen/manifest/2"}},
		{"a", kindOther, []string{"a/b/index", "a/b/chunks/000001"}},
		{"", kindIndex, []string{"a/b/index", "c/b/index"}},
		{"", kindOther, []string{"a/b/index", "c/b/meta.json"}},
	} {
		id, k := classifyAll(c.keys)
		require.Equal(t, c.tenant, id, c.keys)
		require.Equal(t, kindNames[c.kind], kindNames[k], c.keys)
	}
}
