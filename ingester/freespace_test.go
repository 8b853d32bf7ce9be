package ingester

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/errkind"
)

func TestFreeSpace(t *testing.T) {
	const gib = 1 << 30
	for name, tc := range map[string]struct {
		minFree, free, size uint64
		refused             bool
	}{
		"auto, small volume: 2 GiB": {0, 2*gib - 1, 20 * gib, true},
		"auto, small volume, room":  {0, 2 * gib, 20 * gib, false},
		"auto, large volume: 5 %":   {0, 49 * gib, 1000 * gib, true},
		"auto, large volume, room":  {0, 51 * gib, 1000 * gib, false},
		"set":                       {64 << 20, 63 << 20, 1000 * gib, true},
		"set, room":                 {64 << 20, 64 << 20, 1000 * gib, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFreeSpace("/data", tc.minFree, time.Now)
			f.stat = func(string) (uint64, uint64, error) { return tc.free, tc.size, nil }
			err := f.check()
			if !tc.refused {
				require.NoError(t, err)
				return
			}
			require.Equal(t, errkind.Unavailable, errkind.Of(err))
			require.Positive(t, errkind.RetryAfter(err))
			require.ErrorContains(t, err, "bytes free, writes need at least")
		})
	}
}

func TestFreeSpaceLooksOnceASecond(t *testing.T) {
	now, looks := time.Unix(1000, 0), 0
	var fault error
	f := newFreeSpace("/data", 1, func() time.Time { return now })
	f.stat = func(string) (uint64, uint64, error) { looks++; return 0, 0, fault }
	require.Error(t, f.check())
	require.Error(t, f.check())
	require.Equal(t, 1, looks)
	now = now.Add(time.Second)
	fault = errors.New("input/output error")
	require.ErrorIs(t, f.check(), fault)
	require.Equal(t, errkind.Unavailable, errkind.Of(f.check()))
	require.Equal(t, 2, looks)
	now = now.Add(-time.Hour)
	require.Error(t, f.check())
	require.Equal(t, 3, looks, "a clock that went back must not freeze the answer")
}

func TestFreeSpaceOfARealVolume(t *testing.T) {
	require.NoError(t, newFreeSpace(t.TempDir(), 1, time.Now).check())
	require.Error(t, newFreeSpace(t.TempDir(), 1<<62, time.Now).check())
	require.Error(t, newFreeSpace(t.TempDir()+"/none", 1, time.Now).check())
}
