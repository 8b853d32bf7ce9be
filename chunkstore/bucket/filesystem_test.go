package bucket_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/bucket/buckettest"
)

const tempFolder = ".temp~"

func TestFilesystemSweepsWhatADeadProcessLeft(t *testing.T) {
	dir := t.TempDir()
	b, err := bucket.NewFilesystem(dir)
	require.NoError(t, err)
	buckettest.Put(t, b, "t/object", "x")
	require.NoError(t, b.Close())

	litter := filepath.Join(dir, tempFolder, "0123456789abcdef")
	require.NoError(t, os.WriteFile(litter, []byte("half an obj"), 0o600))
	b = openFilesystem(t, dir)
	require.NoFileExists(t, litter)
	require.Equal(t, []string{"t/object"}, buckettest.Keys(t, b, "", true))
}

func TestFilesystemSparesTheTempFilesOfOthers(t *testing.T) {
	dir := t.TempDir()
	first := openFilesystem(t, dir)
	writing, goOn := make(chan struct{}), make(chan struct{})
	put := make(chan error)
	go func() {
		slow := readFunc(func() { close(writing); <-goOn })
		put <- first.Put(context.Background(), "t/object", io.MultiReader(strings.NewReader("half"), slow), 4)
	}()
	<-writing
	old := filepath.Join(dir, tempFolder, "fedcba9876543210")
	require.NoError(t, os.WriteFile(old, nil, 0o600))
	require.NoError(t, os.Chtimes(old, time.Time{}, time.Now().Add(-25*time.Hour)))

	second := openFilesystem(t, dir)
	require.NoFileExists(t, old, "what is a day old belongs to nobody")
	require.Empty(t, buckettest.Keys(t, second, "", true), "an object that is being written is not listed")
	close(goOn)
	require.NoError(t, <-put)
	require.Equal(t, "half", buckettest.Get(t, second, "t/object"))
}

type readFunc func()

func (f readFunc) Read([]byte) (int, error) {
	f()
	return 0, io.EOF
}

func TestFilesystemLeavesNoTempFiles(t *testing.T) {
	dir := t.TempDir()
	b := openFilesystem(t, dir)
	buckettest.Put(t, b, "t/a", "x")
	require.NoError(t, b.PutIfAbsent(t.Context(), "t/b", nil))
	require.ErrorIs(t, b.PutIfAbsent(t.Context(), "t/b", nil), bucket.ErrExists)
	require.Error(t, b.Put(t.Context(), "t/c", strings.NewReader("x"), 2))
	entries, err := os.ReadDir(filepath.Join(dir, tempFolder))
	require.NoError(t, err)
	require.Len(t, entries, 1, "the lock alone")
}

func TestFilesystemKeepsItsTempFolderToItself(t *testing.T) {
	b := openFilesystem(t, t.TempDir())
	for _, key := range []string{tempFolder, tempFolder + "/lock", tempFolder + "/x/y"} {
		require.ErrorIs(t, b.Put(t.Context(), key, strings.NewReader(""), 0), bucket.ErrInvalidKey)
		require.ErrorIs(t, b.Delete(t.Context(), key), bucket.ErrInvalidKey)
		_, err := b.Get(t.Context(), key)
		require.ErrorIs(t, err, bucket.ErrInvalidKey)
	}
	require.Empty(t, buckettest.Keys(t, b, tempFolder, true))
	require.Empty(t, buckettest.Keys(t, b, tempFolder+"/", true))
	buckettest.Put(t, b, "t/"+tempFolder+"/x", "only the one at the top is taken")
	buckettest.Put(t, b, ".temp", "a tenant may have this name")
}

func TestFilesystemDoesNotLeadOut(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	b := openFilesystem(t, dir)
	require.NoError(t, os.Symlink(outside, filepath.Join(dir, "link")))
	_, err := b.Get(t.Context(), "link/secret")
	require.Error(t, err)
	require.Error(t, b.Put(t.Context(), "link/planted", strings.NewReader("x"), 1))
	require.Error(t, b.Delete(t.Context(), "link/secret"))
	require.FileExists(t, filepath.Join(outside, "secret"))
	require.NoFileExists(t, filepath.Join(outside, "planted"))
	require.Empty(t, buckettest.Keys(t, b, "", true))
}

func TestFilesystemWhoseDirectoryIsGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bucket")
	b := openFilesystem(t, dir)
	buckettest.Put(t, b, "t/a", "x")
	require.NoError(t, os.RemoveAll(dir))
	for range 2 {
		require.Error(t, b.Put(t.Context(), "t/a", strings.NewReader("x"), 1))
		require.Error(t, b.PutIfAbsent(t.Context(), "u/a", nil))
	}
}

func TestAListingOfEverythingSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, b := range []bucket.Bucket{openFilesystem(t, t.TempDir()), bucket.NewInMemory()} {
		list := func(prefix string) error { return b.List(ctx, prefix, true, func(bucket.Object) error { return nil }) }
		require.EqualError(t, list(""), "list everything: context canceled")
		require.EqualError(t, list("t/"), "list t/: context canceled")
	}
}

func TestFilesystemDoesNotListEmptyFolders(t *testing.T) {
	dir := t.TempDir()
	b := openFilesystem(t, dir)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "t", "crashed", "before"), 0o700))
	buckettest.Put(t, b, "t/a/x", "x")
	require.Equal(t, []string{"t/a/"}, buckettest.Keys(t, b, "t/", false))
}

// TestFilesystemBesideARemovingProcess has the folder of a put removed from outside, again and again, as another
// process does that deletes objects.
func TestFilesystemBesideARemovingProcess(t *testing.T) {
	dir := t.TempDir()
	b := openFilesystem(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	removed := make(chan int)
	go func() {
		n := 0
		for ctx.Err() == nil {
			if os.Remove(filepath.Join(dir, "t", "block")) == nil {
				n++
			}
			_ = os.Remove(filepath.Join(dir, "t"))
		}
		removed <- n
	}()
	for range 15 {
		buckettest.Put(t, b, "t/block/x", "x")
		// Not through the bucket, which would remove the folder itself.
		require.NoError(t, os.Remove(filepath.Join(dir, "t", "block", "x")))
	}
	cancel()
	require.Positive(t, <-removed)
}

// TestFilesystemSurvivesKill has a process write until it is killed; what it reported as written has to be there, and
// nothing else in part.
func TestFilesystemSurvivesKill(t *testing.T) {
	if dir := os.Getenv("BUCKET_WRITER_DIR"); dir != "" {
		writeUntilKilled(t, dir)
		return
	}
	dir := t.TempDir()
	writer := exec.Command(os.Args[0], "-test.run=^TestFilesystemSurvivesKill$")
	writer.Env = append(os.Environ(), "BUCKET_WRITER_DIR="+dir)
	out, err := writer.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, writer.Start())
	reported := make([]byte, 40) // forty objects, then the kill at any point of the forty-first
	_, err = io.ReadFull(out, reported)
	require.NoError(t, errors.Join(err, writer.Process.Kill()))
	_ = writer.Wait()

	b := openFilesystem(t, dir)
	keys := buckettest.Keys(t, b, "", true)
	require.GreaterOrEqual(t, len(keys), len(reported))
	for _, key := range keys {
		require.Len(t, buckettest.Get(t, b, key), objectSize, key)
	}
}

const objectSize = 100_000

func writeUntilKilled(t *testing.T, dir string) {
	b := openFilesystem(t, dir)
	for i := 0; ; i++ {
		key := filepath.Join("t", string(rune('a'+i%26)), strings.Repeat("x", 1+i/26))
		if i%2 == 0 {
			buckettest.Put(t, b, key, strings.Repeat("x", objectSize))
		} else {
			require.NoError(t, b.PutIfAbsent(t.Context(), key, make([]byte, objectSize)))
		}
		if _, err := os.Stdout.WriteString("."); err != nil {
			return
		}
	}
}

func TestCheckSeesThatTheDirectoryIsNotThereAnyMore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bucket")
	b, err := bucket.NewFilesystem(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.Close()) })
	require.NoError(t, b.Check())
	require.NoError(t, b.Put(t.Context(), "a", strings.NewReader("x"), 1))
	require.NoError(t, os.Rename(dir, dir+".away"))
	require.ErrorContains(t, b.Check(), dir)
	err = b.List(t.Context(), "", true, func(bucket.Object) error { return nil })
	require.ErrorContains(t, err, dir, "a listing is no answer")
	_, err = b.Get(t.Context(), "a")
	require.ErrorContains(t, err, dir)
	require.NotErrorIs(t, err, bucket.ErrNotFound)
	require.NotErrorIs(t, err, fs.ErrNotExist)
	require.ErrorContains(t, b.Put(t.Context(), "b", strings.NewReader("x"), 1), dir)
	require.ErrorContains(t, b.PutIfAbsent(t.Context(), "c", nil), dir)
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.ErrorContains(t, b.Check(), "replaced")
	require.NoError(t, os.Remove(dir))
	require.NoError(t, os.Rename(dir+".away", dir))
	require.NoError(t, b.Check())
}
