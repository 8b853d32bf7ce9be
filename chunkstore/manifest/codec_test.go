package manifest

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/errkind"
)

func testManifest() *Manifest {
	m, _ := (&Manifest{Tenant: "acme"}).withBlocks([]Block{testBlock(1), testBlock(2)}, 1_700_000_000_000, "0123456789abcdef")
	m.Removed = []RemovedBlock{{ULID: testBlock(3).ULID, RemovedAt: 1_700_000_000_001}}
	return m
}

// format2Manifest has every field of format 2.
func format2Manifest() *Manifest {
	m := testManifest()
	m.Blocks[0].SidecarBytes, m.Blocks[0].DirectoryBytes = 300, 100
	m.Blocks[0].Labels = map[string]string{"replica": "a", "cluster": "eu"}
	m.Blocks[1].Shard, m.Blocks[1].NoCompact = "1_of_4", "index is too large"
	m.Removed = append(m.Removed, RemovedBlock{ULID: testBlock(4).ULID, RemovedAt: 1_700_000_000_002, Dropped: true})
	m.Lost = []LostRange{{MinTime: 5, MaxTime: 10, Reason: "log of ingester/a damaged"}, {MinTime: 5, MaxTime: 11, Reason: "x"}}
	return m
}

// fullManifest has every field.
func fullManifest() *Manifest {
	m := format2Manifest()
	m.Blocks[0].IndexBytes, m.Blocks[0].Deleted = 200, 2
	m.Removed = append(m.Removed, RemovedBlock{ULID: testBlock(5).ULID, RemovedAt: 1_700_000_000_003, KeepUntil: 1_800_000_000_000})
	m.Deletions = []Deletion{
		{ID: 2, Selectors: []string{`up`, `{job="a"}`}, MinTime: -5, MaxTime: 1_700_000_000_000, CreatedAt: 1_700_000_000_000},
		{ID: 3, Selectors: []string{`{__name__=~".+"}`}, MinTime: 7, MaxTime: 7, CreatedAt: 1_700_000_000_001, Urgent: true},
	}
	m.NextDeletion = 5
	m.Doomed = &TenantDeletion{RequestedAt: 10, GraceUntil: 20, FinishedAt: 30, Blocks: 4, Bytes: 5}
	return m
}

func encode(t testing.TB, m *Manifest) []byte {
	t.Helper()
	data, err := Encode(m)
	require.NoError(t, err)
	return data
}

// TestFormat keeps the bytes of all versions of the format readable for ever.
func TestFormat(t *testing.T) {
	old, err := os.ReadFile("testdata/format1")
	require.NoError(t, err)
	m, err := Decode(old)
	require.NoError(t, err)
	require.Equal(t, testManifest(), m)

	old, err = os.ReadFile("testdata/format2")
	require.NoError(t, err)
	m, err = Decode(old)
	require.NoError(t, err)
	require.Equal(t, format2Manifest(), m)

	want, err := os.ReadFile("testdata/format3")
	require.NoError(t, err)
	require.Equal(t, string(want), string(encode(t, fullManifest())))
	m, err = Decode(want)
	require.NoError(t, err)
	require.Equal(t, fullManifest(), m)
}

// TestOldFormatsHaveNoLaterFields: what a program of an older format would have refused is refused as that format.
func TestOldFormatsHaveNoLaterFields(t *testing.T) {
	payload := func(m *Manifest) []byte {
		data := encode(t, m)
		return data[bytes.IndexByte(data, '\n')+1:]
	}
	for format, changes := range map[int]map[string]func(*Manifest){
		2: {
			"sidecar":    func(m *Manifest) { m.Blocks[0].SidecarBytes, m.Blocks[0].DirectoryBytes = 2, 1 },
			"labels":     func(m *Manifest) { m.Blocks[0].Labels = map[string]string{"a": "b"} },
			"shard":      func(m *Manifest) { m.Blocks[0].Shard = "1_of_2" },
			"no compact": func(m *Manifest) { m.Blocks[0].NoCompact = "x" },
			"dropped":    func(m *Manifest) { m.Removed[0].Dropped = true },
			"lost":       func(m *Manifest) { m.Lost = []LostRange{{MinTime: 1, MaxTime: 2}} },
		},
		3: {
			"index":         func(m *Manifest) { m.Blocks[0].IndexBytes = 1 },
			"deleted":       func(m *Manifest) { m.Blocks[0].Deleted, m.NextDeletion = 1, 2 },
			"next deletion": func(m *Manifest) { m.NextDeletion = 1 },
			"deletions":     func(m *Manifest) { m.Deletions, m.NextDeletion = fullManifest().Deletions, 4 },
			"keep":          func(m *Manifest) { m.Removed[0].KeepUntil = 1 },
			"doomed":        func(m *Manifest) { m.Doomed = &TenantDeletion{RequestedAt: 1, GraceUntil: 1} },
		},
	} {
		for name, change := range changes {
			m := testManifest()
			change(m)
			p := payload(m)
			for f := oldestFormat; f <= formatVersion; f++ {
				_, err := Decode(append(header(f, p), p...))
				if f >= format {
					require.NoError(t, err, name)
					continue
				}
				require.ErrorContains(t, err, fmt.Sprintf("format is %d and fields are of format %d", f, format), name)
			}
		}
	}
}

// TestNextVersionForgetsNothing compares field by field, so that a new field cannot be left out.
func TestNextVersionForgetsNothing(t *testing.T) {
	m := fullManifest()
	next := *m.draft(0, "").next
	require.Equal(t, m.Version+1, next.Version)
	next.Version, next.SwapID = m.Version, m.SwapID
	require.Equal(t, *m, next)
}

func TestNothingHasOneForm(t *testing.T) {
	payload := `{"tenant":"acme","version":1,"swap_id":"x","removed":[],"lost":[],"deletions":[],"blocks":[{"ulid":` +
		`"00000000040000000000000001","min_time":0,"max_time":1,"level":1,"sources":[],"labels":{}}]}`
	m, err := Decode(append(header(formatVersion, []byte(payload)), payload...))
	require.NoError(t, err)
	require.Nil(t, m.Removed)
	require.Nil(t, m.Lost)
	require.Nil(t, m.Deletions)
	require.Nil(t, m.Blocks[0].Labels)
}

func TestDecodeAcceptsNoFlippedBit(t *testing.T) {
	data := encode(t, fullManifest())
	for i := range data {
		for bit := range 8 {
			data[i] ^= 1 << bit
			_, err := Decode(data)
			require.Error(t, err, "byte %d, bit %d", i, bit)
			require.Equal(t, errkind.Corrupt, errkind.Of(err))
			data[i] ^= 1 << bit
		}
	}
	_, err := Decode(data)
	require.NoError(t, err)
}

func TestDecodeAcceptsNoOtherLength(t *testing.T) {
	data := encode(t, fullManifest())
	for n := range data {
		_, err := Decode(data[:n])
		require.Equal(t, errkind.Corrupt, errkind.Of(err), "%d bytes", n)
	}
	for _, more := range []string{"\n", " ", "\x00", string(data)} {
		_, err := Decode(append(slices.Clone(data), more...))
		require.Equal(t, errkind.Corrupt, errkind.Of(err))
	}
}

func TestDecodeSaysWhatIsWrong(t *testing.T) {
	data := string(encode(t, testManifest()))
	with := func(payload string) string { return string(header(formatVersion, []byte(payload))) + payload }
	for want, object := range map[string]string{
		"no valid header":               "",
		"format is 4; 1 to 3 are known": strings.Replace(data, "manifest 3 ", "manifest 4 ", 1),
		"format is 0;":                  strings.Replace(data, "manifest 3 ", "manifest 0 ", 1),
		"payload has":                   data[:len(data)-1],
		"checksum does not match":       strings.Replace(data, "acme", "acne", 1),
		"unknown field":                 with(strings.Replace(data[strings.IndexByte(data, '\n')+1:], `"swap_id"`, `"tombstones":[],"swap_id"`, 1)),
		"is missing":                    with(`{}`),
		"bytes follow the JSON":         with(data[strings.IndexByte(data, '\n')+1:] + "{}"),
	} {
		_, err := Decode([]byte(object))
		require.ErrorContains(t, err, want)
	}
	twice := testManifest()
	twice.Blocks = append(twice.Blocks, twice.Blocks[1])
	_, err := Decode(encode(t, twice))
	require.ErrorContains(t, err, "listed twice")
	unsorted := testManifest()
	slices.Reverse(unsorted.Blocks)
	_, err = Decode(encode(t, unsorted))
	require.ErrorContains(t, err, "out of order")
	later := testManifest()
	later.Blocks[0].AddedVersion = 2
	_, err = Decode(encode(t, later))
	require.ErrorContains(t, err, "later version")
	for want, change := range map[string]func(*Manifest){
		"which is yet to come":           func(m *Manifest) { m.Blocks[0].Deleted = 5 },
		"deletion 3 of 3":                func(m *Manifest) { m.NextDeletion = 3 },
		"deletion 0 of 5":                func(m *Manifest) { m.Deletions[0].ID = 0 },
		"deletion 2 is out of order":     func(m *Manifest) { m.Deletions[1].ID = 2 },
		"has no selector":                func(m *Manifest) { m.Deletions[0].Selectors = nil },
		"above max time":                 func(m *Manifest) { m.Deletions[1].MinTime = 8 },
		"above the time of creation":     func(m *Manifest) { m.Deletions[0].MaxTime++ },
		"is requested at 21":             func(m *Manifest) { m.Doomed.RequestedAt = 21 },
		"taken back until 20 and finish": func(m *Manifest) { m.Doomed.FinishedAt = 9 },
		"took 4 blocks of -1 bytes":      func(m *Manifest) { m.Doomed.Bytes = -1 },
		"index of":                       func(m *Manifest) { m.Blocks[0].IndexBytes = m.Blocks[0].SizeBytes + 1 },
	} {
		m := fullManifest()
		change(m)
		_, err = Decode(encode(t, m))
		require.ErrorContains(t, err, want)
	}
	for want, lost := range map[string][]LostRange{
		"is empty":     {{MinTime: 5, MaxTime: 5}},
		"out of order": {{MinTime: 5, MaxTime: 9}, {MinTime: 4, MaxTime: 9}},
	} {
		m := testManifest()
		m.Lost = lost
		_, err = Decode(encode(t, m))
		require.ErrorContains(t, err, want)
	}
}

func TestVersionKeys(t *testing.T) {
	require.Equal(t, "acme/duramen/manifest/00000000000000000042", Key("acme", 42))
	for _, version := range []uint64{1, 42, 1<<64 - 1} {
		got, ok := ParseKey("acme", Key("acme", version))
		require.True(t, ok)
		require.Equal(t, version, got)
	}
	for _, name := range []string{"", "1", "00000000000000000000", "0000000000000000000x", "99999999999999999999", "00000000000000000001/", "+0000000000000000001"} {
		_, ok := ParseKey("acme", Prefix("acme")+name)
		require.False(t, ok, name)
	}
}

func FuzzDecode(f *testing.F) {
	data, err := Encode(testManifest())
	require.NoError(f, err)
	f.Add(data)
	f.Add(data[:len(data)/2])
	data, err = Encode(fullManifest())
	require.NoError(f, err)
	f.Add(data)
	for _, name := range []string{"testdata/format1", "testdata/format2"} {
		old, err := os.ReadFile(name)
		require.NoError(f, err)
		f.Add(old)
	}
	f.Add([]byte("duramen-manifest 1 crc32c=00000000 bytes=0\n"))
	f.Add(append(header(formatVersion, []byte(`{}`)), `{}`...))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Decode(data)
		if err != nil {
			require.Equal(t, errkind.Corrupt, errkind.Of(err))
			// The same payload under a right header, so that more than the checksum is tried.
			payload := data[bytes.IndexByte(data, '\n')+1:]
			if m, err = Decode(append(header(formatVersion, payload), payload...)); err != nil {
				require.Equal(t, errkind.Corrupt, errkind.Of(err))
				return
			}
		}
		require.NoError(t, m.validate())
		again, err := Decode(encode(t, m))
		require.NoError(t, err)
		require.Equal(t, m, again)
	})
}
