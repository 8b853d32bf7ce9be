package block

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
	"github.com/duramendb/duramen/chunkstore/bucket/faultbucket"
	"github.com/duramendb/duramen/chunkstore/index"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
)

// uploaded is a bucket with one block.
func uploaded(t *testing.T) (*bucket.InMemory, string, manifest.Block) {
	t.Helper()
	dir, bkt := createBlock(t), bucket.NewInMemory()
	b, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
	require.NoError(t, err)
	return bkt, dir, b
}

func segmentsOf(t *testing.T, dir string) Segments {
	t.Helper()
	info, err := os.Stat(filepath.Join(dir, "chunks", "000001"))
	require.NoError(t, err)
	return Segments{info.Size()}
}

func TestUploadedSidecarIsThatOfTheBlock(t *testing.T) {
	bkt, dir, b := uploaded(t)
	data := buckettest.Get(t, bkt, Key(testTenant, b.ULID, SidecarName))
	require.EqualValues(t, len(data), b.SidecarBytes)
	dec, err := index.NewDecoder()
	require.NoError(t, err)
	defer dec.Close()
	d, err := index.ParseDirectory(dec, []byte(data[b.SidecarBytes-b.DirectoryBytes:]))
	require.NoError(t, err, "DirectoryBytes are the directory's")
	require.EqualValues(t, 10, d.Series)
	require.EqualValues(t, segmentsOf(t, dir), d.Segments)

	s, err := FindSidecar(t.Context(), bkt, testTenant, b, segmentsOf(t, dir))
	require.NoError(t, err)
	require.Equal(t, Sidecar{b.SidecarBytes, b.DirectoryBytes}, s)

	meta := buckettest.Get(t, bkt, Key(testTenant, b.ULID, MetaName))
	require.NotContains(t, meta, SidecarName, "what can be built in another size later is not written down for ever")
	require.Empty(t, scratchFiles(t, dir))
}

// scratchFiles are what building may have left in a block's folder.
func scratchFiles(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, SidecarName+"*"))
	require.NoError(t, err)
	return found
}

// TestFindSidecarTellsWhatIsNone changes what is there in every way that can happen.
func TestFindSidecarTellsWhatIsNone(t *testing.T) {
	for name, change := range map[string]func(data []byte, b *manifest.Block, s *Segments) []byte{
		"none":              func([]byte, *manifest.Block, *Segments) []byte { return nil },
		"empty":             func([]byte, *manifest.Block, *Segments) []byte { return []byte{} },
		"cut at the end":    func(d []byte, _ *manifest.Block, _ *Segments) []byte { return d[:len(d)-1] },
		"cut at the begin":  func(d []byte, _ *manifest.Block, _ *Segments) []byte { return d[1:] },
		"a directory alone": func(d []byte, b *manifest.Block, _ *Segments) []byte { return d[len(d)-int(b.DirectoryBytes):] },
		"a flipped footer":  func(d []byte, _ *manifest.Block, _ *Segments) []byte { d[len(d)-20] ^= 1; return d },
		"a flipped directory": func(d []byte, b *manifest.Block, _ *Segments) []byte {
			d[len(d)-int(b.DirectoryBytes)+3] ^= 1
			return d
		},
		"of other times":    func(d []byte, b *manifest.Block, _ *Segments) []byte { b.MinTime--; return d },
		"of another end":    func(d []byte, b *manifest.Block, _ *Segments) []byte { b.MaxTime++; return d },
		"of other series":   func(d []byte, b *manifest.Block, _ *Segments) []byte { b.Series++; return d },
		"of other chunks":   func(d []byte, b *manifest.Block, _ *Segments) []byte { b.Chunks++; return d },
		"of another file":   func(d []byte, _ *manifest.Block, s *Segments) []byte { (*s)[0]++; return d },
		"of two files":      func(d []byte, _ *manifest.Block, s *Segments) []byte { *s = append(*s, 9); return d },
		"of another format": func(d []byte, _ *manifest.Block, _ *Segments) []byte { d[len(d)-1] = '2'; return d },
	} {
		t.Run(name, func(t *testing.T) {
			bkt, dir, b := uploaded(t)
			segments, key := segmentsOf(t, dir), Key(testTenant, b.ULID, SidecarName)
			data := change([]byte(buckettest.Get(t, bkt, key)), &b, &segments)
			require.NoError(t, bkt.Delete(t.Context(), key))
			if data != nil {
				require.NoError(t, bkt.Put(t.Context(), key, bytes.NewReader(data), int64(len(data))))
			}
			_, err := FindSidecar(t.Context(), bkt, testTenant, b, segments)
			require.ErrorIs(t, err, ErrNoSidecar)
		})
	}
}

func TestFindSidecarOfABlockThatWasNotCounted(t *testing.T) {
	bkt, _, b := uploaded(t)
	b.Series, b.Chunks = 0, 0 // as old programs left it
	_, err := FindSidecar(t.Context(), bkt, testTenant, b, nil)
	require.NoError(t, err)
}

// TestFindSidecarTellsAFailingBucketFromNone: taking one for the other would build what is there.
func TestFindSidecarTellsAFailingBucketFromNone(t *testing.T) {
	inner, _, b := uploaded(t)
	for _, c := range []struct {
		method string
		fault  faultbucket.Fault
	}{{"Stat", faultbucket.Before}, {"GetRange", faultbucket.Before}, {"GetRange", faultbucket.Truncate}} {
		bkt := faultbucket.New(inner, faultbucket.On(c.method, c.fault))
		_, err := FindSidecar(t.Context(), bkt, testTenant, b, nil)
		require.Equal(t, errkind.Unavailable, errkind.Of(err), "%s %s: %v", c.method, c.fault, err)
		require.NotErrorIs(t, err, ErrNoSidecar)
	}
}

// TestFindSidecarReadsALargeDirectory reads less than a directory at first.
func TestFindSidecarReadsALargeDirectory(t *testing.T) {
	bkt, _, b := uploaded(t)
	for tail := int64(index.FooterSize); tail < b.SidecarBytes+10; tail += 31 {
		s, _, err := openSidecar(t.Context(), bkt, Key(testTenant, b.ULID, SidecarName), b, nil, tail)
		require.NoError(t, err)
		require.Equal(t, Sidecar{b.SidecarBytes, b.DirectoryBytes}, s)
	}
}

// TestUploadAddsASidecar: of a block that was shipped when there were none, one that is damaged, and one that is too much.
func TestUploadAddsASidecar(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, bkt bucket.Bucket, key string){
		"none":    func(t *testing.T, bkt bucket.Bucket, key string) { require.NoError(t, bkt.Delete(t.Context(), key)) },
		"damaged": func(t *testing.T, bkt bucket.Bucket, key string) { buckettest.Put(t, bkt, key, "DRMNIDX1") },
	} {
		t.Run(name, func(t *testing.T) {
			bkt, dir, want := uploaded(t)
			damage(t, bkt, Key(testTenant, want.ULID, SidecarName))
			got, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
			require.NoError(t, err)
			require.Equal(t, want, got)
			requireUploaded(t, bkt, dir)
		})
	}
}

func TestUploadRefusesADamagedIndex(t *testing.T) {
	dir, bkt := createBlock(t), bucket.NewInMemory()
	name := filepath.Join(dir, IndexName)
	sound, err := os.ReadFile(name)
	require.NoError(t, err)
	refused := 0
	for i := 0; i < len(sound); i += 5 {
		data := bytes.Clone(sound)
		data[i] ^= 0x10
		require.NoError(t, os.WriteFile(name, data, 0o600))
		_, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
		if err == nil { // not all of an index is read: chunks, series and symbols are
			require.NoError(t, Delete(t.Context(), bkt, testTenant, blockID(t, dir)))
			continue
		}
		refused++
		require.Equal(t, errkind.Corrupt, errkind.Of(err), "byte %d: %v", i, err)
		require.Empty(t, buckettest.Keys(t, bkt, "", true), "nothing of a damaged block is sent")
	}
	require.Greater(t, refused, len(sound)/5/3)
}

func TestUploadRefusesAnotherBlocksIndex(t *testing.T) {
	dir, bkt := createBlock(t), bucket.NewInMemory()
	changeMeta(t, dir, func(m *Meta) { m.Stats.NumSeries++ })
	_, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
	require.Equal(t, errkind.Corrupt, errkind.Of(err), "%v", err)
	require.ErrorContains(t, err, "series 10 instead of 11")
}

// TestUploadOfADamagedIndexThatTheBucketHasWhole: what the bucket has is announced, whatever befell the local copy since.
func TestUploadOfADamagedIndexThatTheBucketHasWhole(t *testing.T) {
	bkt, dir, want := uploaded(t)
	name := filepath.Join(dir, IndexName)
	data, err := os.ReadFile(name)
	require.NoError(t, err)
	data[len(data)-3] ^= 1
	require.NoError(t, os.WriteFile(name, data, 0o600))
	require.NoError(t, bkt.Delete(t.Context(), Key(testTenant, want.ULID, SidecarName)))
	got, err := Upload(t.Context(), bkt, testTenant, dir, testWriter)
	require.NoError(t, err)
	want.SidecarBytes, want.DirectoryBytes = 0, 0
	require.Equal(t, want, got)
}

// TestUploadWithoutRoomForASidecar: a full disk is emptied by shipping, so it must not keep from it.
func TestUploadWithoutRoomForASidecar(t *testing.T) {
	for name, scratch := range map[string]func(string) (*os.File, error){
		"full":          func(string) (*os.File, error) { return os.OpenFile("/dev/full", os.O_RDWR, 0) },
		"no file":       func(string) (*os.File, error) { return nil, syscall.ENOSPC },
		"not writeable": func(dir string) (*os.File, error) { return os.Open(filepath.Join(dir, IndexName)) },
	} {
		t.Run(name, func(t *testing.T) {
			bkt := bucket.NewInMemory()
			u, err := newUpload(bkt, testTenant, createBlock(t), Options{Writer: testWriter})
			require.NoError(t, err)
			u.scratch = scratch
			require.NoError(t, u.run(t.Context()))
			b := u.entry()
			require.Zero(t, b.SidecarBytes)
			require.Zero(t, b.DirectoryBytes)
			require.NoError(t, Verify(t.Context(), bkt, testTenant, b.ULID))
			_, err = FindSidecar(t.Context(), bkt, testTenant, b, nil)
			require.ErrorIs(t, err, ErrNoSidecar)
		})
	}
}

func TestScratchLeavesNoName(t *testing.T) {
	dir := t.TempDir()
	f, err := scratch(dir)
	require.NoError(t, err)
	require.Empty(t, scratchFiles(t, dir))
	_, err = io.WriteString(f, "x")
	require.NoError(t, err)
	require.NoError(t, f.Close())
}
