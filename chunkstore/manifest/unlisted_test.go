package manifest

import (
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/internal/errkind"
)

func TestUnlistedBlocksOfATenantWithoutAManifest(t *testing.T) {
	clock := &testClock{time.UnixMilli(1_700_000_000_000)}
	bkt := faultbucket.New(bucket.NewInMemoryWithClock(clock.now), nil)
	o := newTestOwner(bkt, clock.now)
	id := testBlock(1).ULID
	put := func(key string) { require.NoError(t, bkt.Put(t.Context(), key, strings.NewReader("x"), 1)) }
	require.Zero(t, strayBlock(t, o, "acme"))

	put("acme/" + id.String() + "/index")
	put("acme/notes/meta.json")
	put("acme/bucket-index.json.gz")
	clock.t = clock.t.Add(time.Hour)
	require.Zero(t, strayBlock(t, o, "acme"), "nothing there is a complete block")

	put("acme/" + id.String() + "/meta.json")
	require.Zero(t, strayBlock(t, o, "acme"), "its announcement may be on its way")
	clock.t = clock.t.Add(announceWithin)
	require.Equal(t, id, strayBlock(t, o, "acme"))
	require.Zero(t, strayBlock(t, o, "acm"), "another tenant's")

	bkt.SetPlan(func(faultbucket.Op) faultbucket.Fault { return faultbucket.Before })
	_, err := o.Unlisted(t.Context(), "acme")
	require.Equal(t, errkind.Unavailable, errkind.Of(err))
	o.Compared("acme")
	require.Zero(t, strayBlock(t, o, "acme"), "left out on purpose, and nobody is asked any more")
	bkt.SetPlan(nil)
}

func strayBlock(t *testing.T, o *Owner, tenantID string) ulid.ULID {
	t.Helper()
	id, err := o.Unlisted(t.Context(), tenantID)
	require.NoError(t, err)
	return id
}
