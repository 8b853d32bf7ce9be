package loadledger

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/remotewrite"
)

func config() loadplan.Config {
	return loadplan.Config{
		Seed: 7, Tenants: []string{"a", "b"}, Series: 500, Start: 1_790_000_000_000, Interval: 15 * time.Second, Scrapes: 240,
		PerRequest: 150, Protocols: []remotewrite.Version{remotewrite.V1},
	}
}

func newJournal(t *testing.T) (*Journal, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger")
	j, err := Create(path, config())
	require.NoError(t, err)
	t.Cleanup(func() { _ = j.Close() })
	return j, path
}

func readFile(t *testing.T, path string) *Ledger {
	t.Helper()
	l, err := Read(path)
	require.NoError(t, err)
	return l
}

// fates returns the first six fates of a chunk.
func fates(l *Ledger, tenant, chunk int) []Fate {
	var all []Fate
	for s := range 6 {
		all = append(all, l.Fate(tenant, chunk, s))
	}
	return all
}

// TestWhatIsCertain: at every moment the file says what somebody who finds it may rely on.
func TestWhatIsCertain(t *testing.T) {
	j, path := newJournal(t)
	l := readFile(t, path)
	require.Equal(t, config(), l.Config())
	require.False(t, l.Closed())
	require.Equal(t, NeverSent, l.Fate(0, 0, 0), "nothing is sent before its scrape is claimed")

	require.NoError(t, j.Claim(0))
	l = readFile(t, path)
	require.Equal(t, Unknown, l.Fate(0, 0, 0), "it may be under way")
	require.Equal(t, Unknown, l.Fate(1, 2, claimAhead-1))
	require.Equal(t, NeverSent, l.Fate(1, 2, claimAhead))

	require.NoError(t, j.Note(1, 2, 0, Acknowledged))
	require.NoError(t, j.Note(1, 2, 1, Refused))
	require.NoError(t, j.Note(1, 2, 2, Acknowledged))
	require.NoError(t, j.Note(1, 2, 3, Unknown))
	l = readFile(t, path)
	require.Equal(t, []Fate{Acknowledged, Refused, Acknowledged, Unknown, Unknown, Unknown}, fates(l, 1, 2))
	require.Equal(t, Unknown, l.Fate(0, 2, 0), "another tenant")
	require.Equal(t, 4, l.Noted())
	require.Equal(t, 3, l.Next(1, 2), "an unknown one is sent again")
	require.Zero(t, l.Next(0, 2))

	require.NoError(t, j.Close())
	require.NoError(t, j.Close())
	require.ErrorIs(t, j.Note(1, 2, 4, Acknowledged), os.ErrClosed)
	l = readFile(t, path)
	require.True(t, l.Closed())
	require.Equal(t, []Fate{Acknowledged, Refused, Acknowledged, Unknown, NeverSent, NeverSent}, fates(l, 1, 2))
	require.Equal(t, NeverSent, l.Fate(0, 0, 0))
}

func TestResume(t *testing.T) {
	j, path := newJournal(t)
	require.NoError(t, j.Claim(0))
	require.NoError(t, j.Note(0, 0, 0, Acknowledged))
	require.NoError(t, j.Note(0, 0, 1, Unknown))
	require.NoError(t, j.Close())

	j, l, err := Resume(path)
	require.NoError(t, err)
	require.Equal(t, 1, l.Next(0, 0))
	require.NoError(t, j.Claim(1))
	require.False(t, readFile(t, path).Closed())
	require.Equal(t, Unknown, readFile(t, path).Fate(0, 0, 2))
	require.NoError(t, j.Note(0, 0, 1, Acknowledged))
	require.NoError(t, j.Note(0, 0, 1, Unknown), "nothing takes an acknowledgement back")
	require.NoError(t, j.Claim(239))
	require.NoError(t, j.Close())
	l = readFile(t, path)
	require.Equal(t, []Fate{Acknowledged, Acknowledged, NeverSent}, fates(l, 0, 0)[:3])

	_, err = Create(path, config())
	require.ErrorIs(t, err, os.ErrExist, "a ledger is never overwritten")
}

// TestResumedAndStoppedEarly: a sender that was killed leaves requests of which nobody knows. One that goes on and ends in
// order before it has come to them must not say that they were never sent.
func TestResumedAndStoppedEarly(t *testing.T) {
	killed, path := newJournal(t)
	require.NoError(t, killed.Claim(0))
	require.NoError(t, killed.Note(0, 0, 0, Acknowledged))

	j, _, err := Resume(path)
	require.NoError(t, err)
	require.NoError(t, j.Claim(1))
	require.NoError(t, j.Note(0, 0, 1, Acknowledged))
	require.NoError(t, j.Close())
	l := readFile(t, path)
	require.False(t, l.Closed())
	require.Equal(t, []Fate{Acknowledged, Acknowledged, Unknown}, fates(l, 0, 0)[:3])
	require.Equal(t, Unknown, l.Fate(1, 2, 0), "the killed one may have sent it")

	j, _, err = Resume(path)
	require.NoError(t, err)
	require.NoError(t, j.Note(1, 2, 0, Acknowledged))
	j.Settle()
	require.NoError(t, j.Close())
	l = readFile(t, path)
	require.True(t, l.Closed())
	require.Equal(t, []Fate{Acknowledged, Acknowledged, NeverSent}, fates(l, 0, 0)[:3])
}

// TestTornAtEveryByte: whatever a crash leaves of the file, what remains is right, and a sender can go on with it.
func TestTornAtEveryByte(t *testing.T) {
	j, path := newJournal(t)
	start, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, j.Claim(0))
	claimed, err := os.ReadFile(path)
	require.NoError(t, err)
	for s := range 4 {
		require.NoError(t, j.Note(1, 0, s, Acknowledged))
	}
	require.NoError(t, j.Close())
	data, err := os.ReadFile(path)
	require.NoError(t, err)

	torn := filepath.Join(t.TempDir(), "torn")
	for size := range len(data) {
		for name, content := range map[string][]byte{
			"cut": data[:size], "zeros": append(data[:size:size], make([]byte, 100)...),
		} {
			require.NoError(t, os.WriteFile(torn, content, 0o644))
			l, err := Read(torn)
			if size < len(start) {
				require.ErrorIs(t, err, ErrDamaged, "%s at %d", name, size)
				continue
			}
			require.NoError(t, err, "%s at %d of %d", name, size, len(data))
			require.False(t, l.Closed())
			got := fates(l, 1, 0)
			for s, f := range got {
				switch {
				case size < len(claimed):
					require.Equal(t, NeverSent, f, "nothing was sent before the claim reached the disk")
				case f != Unknown:
					require.Equal(t, Acknowledged, f)
					require.Less(t, s, 4)
				}
			}

			again, _, err := Resume(torn)
			require.NoError(t, err)
			next := l.Next(1, 0)
			require.NoError(t, again.Claim(next))
			require.NoError(t, again.Note(1, 0, next, Refused))
			again.Settle()
			require.NoError(t, again.Close())
			l = readFile(t, torn)
			require.True(t, l.Closed())
			require.Equal(t, Refused, l.Fate(1, 0, next))
		}
	}
}

// TestDamageIsSaid: a flipped bit anywhere but in the last record makes the journal worthless.
func TestDamageIsSaid(t *testing.T) {
	j, path := newJournal(t)
	require.NoError(t, j.Claim(0))
	for s := range 40 {
		require.NoError(t, j.Note(0, 1, s, Acknowledged))
	}
	require.NoError(t, j.Close())
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	for at := range len(data) - 20 {
		data[at] ^= 0x10
		l, _, err := decode(data)
		if err != nil {
			require.ErrorIs(t, err, ErrDamaged)
		} else {
			// A length that reaches beyond the end looks like a torn tail: less is certain then, never something else.
			require.False(t, l.Closed())
		}
		data[at] ^= 0x10
	}
}

func TestJournalRefusesNonsense(t *testing.T) {
	for name, note := range map[string][4]int{
		"tenant": {2, 0, 0, 3}, "chunk": {0, 9, 0, 3}, "scrape": {0, 0, 240, 3}, "no fate": {0, 0, 0, 0}, "fate": {0, 0, 0, 4},
	} {
		j, path := newJournal(t)
		require.NoError(t, j.Claim(0))
		require.NoError(t, j.Note(note[0], note[1], note[2], Fate(note[3])))
		_, err := Read(path)
		require.ErrorIs(t, err, ErrDamaged, name)
	}
	j, path := newJournal(t)
	require.NoError(t, j.Note(0, 0, 5, Acknowledged))
	require.NoError(t, j.Note(0, 0, 7, Acknowledged))
	_, err := Read(path)
	require.ErrorContains(t, err, "scrape 7 is noted")

	bad := config()
	bad.Series = 0
	_, err = Create(path+"2", bad)
	require.Error(t, err)
	require.NoFileExists(t, path+"2")
}

// TestSyncs: claims reach the disk before anything is sent, notes within a second.
func TestSyncs(t *testing.T) {
	j, _ := newJournal(t)
	now := time.Unix(1000, 0)
	j.now = func() time.Time { return now }
	require.NoError(t, j.Claim(0))
	require.Equal(t, now, j.synced)
	now = now.Add(syncEvery - 1)
	require.NoError(t, j.Note(0, 0, 0, Acknowledged))
	require.NotEqual(t, now, j.synced)
	now = now.Add(1)
	require.NoError(t, j.Note(0, 0, 1, Acknowledged))
	require.Equal(t, now, j.synced)
	size := func() int64 {
		info, err := j.file.Stat()
		require.NoError(t, err)
		return info.Size()
	}
	before := size()
	require.NoError(t, j.Claim(claimAhead-1))
	require.Equal(t, before, size(), "claimed already")
	require.NoError(t, j.Claim(claimAhead))
	require.Greater(t, size(), before)
}

// TestFailedWriteFailsAll: after a write that failed nothing more can be relied on.
func TestFailedWriteFailsAll(t *testing.T) {
	j, _ := newJournal(t)
	require.NoError(t, j.file.Close())
	require.ErrorContains(t, j.Note(0, 0, 0, Acknowledged), "write ledger")
	require.ErrorContains(t, j.Claim(3), "write ledger")
}

func FuzzDecode(f *testing.F) {
	path := filepath.Join(f.TempDir(), "ledger")
	j, err := Create(path, config())
	require.NoError(f, err)
	require.NoError(f, j.Claim(0))
	require.NoError(f, j.Note(0, 0, 0, Acknowledged))
	require.NoError(f, j.Close())
	data, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(data)
	f.Add(data[:len(data)-3])
	f.Fuzz(func(t *testing.T, data []byte) {
		l, size, err := decode(data)
		if err != nil {
			return
		}
		require.LessOrEqual(t, size, len(data))
		again, same, err := decode(data[:size])
		require.NoError(t, err)
		require.Equal(t, size, same)
		require.Equal(t, l, again)
	})
}
