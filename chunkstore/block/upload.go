package block

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/tenant"
)

// Upload copies the block in dir, whose name is its ULID, into the bucket and returns its entry for the manifest, with
// AddedAt and AddedVersion left open. Chunks go first, then the index and the sidecar, and meta.json last, each verified by
// its size: a meta.json in the bucket means that the block is complete.
//
// The sidecar is built here, from the local index; a block that was uploaded without one gets it. Where there is no room
// on the local disk to build it the block goes without, and SidecarBytes is 0: who needs it builds it.
//
// After an error call Upload again, with the same arguments and as often as it takes; what is in the bucket already is
// not sent again. A block that is there completely is verified only. writer is stored as duramen.writer.
//
// ErrDiffers: see there. A bucket that fails gives an error of kind Unavailable, a local block that is damaged one of
// kind Corrupt.
func Upload(ctx context.Context, bkt bucket.Bucket, tenantID, dir, writer string) (manifest.Block, error) {
	return UploadAs(ctx, bkt, tenantID, dir, Options{Writer: writer})
}

// Options say more about an upload.
type Options struct {
	// Writer is stored as duramen.writer.
	Writer string
	// Labels are external labels: they belong to each series of the block, and are kept beside it.
	Labels map[string]string
	// Went is told of bytes that were sent, as they are; nil tells nobody.
	Went func(n int64)
}

// UploadAs is Upload with options. A block that is there with other external labels is ErrDiffers.
func UploadAs(ctx context.Context, bkt bucket.Bucket, tenantID, dir string, o Options) (manifest.Block, error) {
	u, err := newUpload(bkt, tenantID, dir, o)
	if err == nil {
		err = u.run(ctx)
	}
	if err != nil {
		return manifest.Block{}, fmt.Errorf("upload block %s: %w", filepath.Base(dir), err)
	}
	return u.entry(), nil
}

// entry is what the manifest has to know of the block as it is in the bucket.
func (u *upload) entry() manifest.Block {
	b := u.meta.ManifestBlock(u.metaBytes)
	b.SidecarBytes, b.DirectoryBytes = u.sidecar.Bytes, u.sidecar.DirectoryBytes
	return b
}

// upload is one call of Upload.
type upload struct {
	bkt    bucket.Bucket
	tenant string
	dir    string
	went   func(n int64) // may be nil
	// scratch returns an empty file for the sidecar, as the function scratch does.
	scratch func(dir string) (*os.File, error)

	meta      *Meta // as it is to be in the bucket, afterwards as it is there
	metaBytes int64
	sidecar   Sidecar // zero: none
}

func newUpload(bkt bucket.Bucket, tenantID, dir string, o Options) (*upload, error) {
	if err := tenant.ValidateID(tenantID); err != nil {
		return nil, err
	}
	meta, err := ReadMeta(dir)
	if err != nil {
		return nil, err
	}
	if id, err := ulid.ParseStrict(filepath.Base(dir)); err != nil || id != meta.ULID {
		return nil, errkind.New(errkind.Corrupt, "folder holds the meta.json of block %s", meta.ULID)
	}
	if meta.Stats.NumTombstones > 0 {
		// The format of the bucket knows no tombstones: the deleted samples would come back.
		return nil, errkind.New(errkind.Invalid, "block has %d tombstones; compact them away first", meta.Stats.NumTombstones)
	}
	files, err := localFiles(dir)
	if err != nil {
		return nil, err
	}
	meta.Duramen = &Duramen{Writer: o.Writer, Version: duramenVersion}
	meta.Thanos = &Thanos{
		Version: thanosVersion, Labels: o.Labels, Source: sourceName, Files: append(files, File{Name: MetaName}),
	}
	if _, complete := meta.files(); !complete {
		return nil, errkind.New(errkind.Corrupt, "folder lacks the index or the chunks")
	}
	return &upload{bkt: bkt, tenant: tenantID, dir: dir, went: o.Went, scratch: scratch, meta: meta}, nil
}

// localFiles returns the block's files in the order of their upload. What else lies in the folder stays there.
func localFiles(dir string) ([]File, error) {
	entries, err := os.ReadDir(filepath.Join(dir, chunksName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var files []File
	for _, e := range entries {
		name := chunksName + "/" + e.Name()
		n, ok := ParseSegmentName(name)
		if !ok {
			continue
		}
		if n != len(files)+1 {
			return nil, errkind.New(errkind.Corrupt, "%s is missing", SegmentName(len(files)+1))
		}
		files = append(files, File{Name: name})
	}
	files = append(files, File{Name: IndexName})
	for i := range files {
		info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(files[i].Name)))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errkind.Wrap(errkind.Corrupt, err)
		}
		if err != nil {
			return nil, err
		}
		if info.Size() == 0 {
			return nil, errkind.New(errkind.Corrupt, "%s is empty", files[i].Name)
		}
		files[i].SizeBytes = info.Size()
	}
	return files, nil
}

func (u *upload) run(ctx context.Context) error {
	there, size, err := fetchMeta(ctx, u.bkt, u.tenant, u.meta.ULID)
	switch {
	case err == nil:
		return u.resumeComplete(ctx, there, size)
	case errors.Is(err, ErrNoMeta), errkind.Of(err) == errkind.Corrupt:
		// A meta.json that cannot be read marks nothing as complete; it is replaced at the end.
		return u.sendAll(ctx)
	default:
		return err
	}
}

// resumeComplete handles a block whose meta.json is in the bucket: everything should be, and is only verified. Objects
// that went missing nevertheless are sent again.
func (u *upload) resumeComplete(ctx context.Context, there *Meta, size int64) error {
	theirs, _ := there.files()
	ours, _ := u.meta.files()
	if !slices.EqualFunc(theirs, ours, func(a, b File) bool { return a.Name == b.Name && a.SizeBytes == b.SizeBytes }) ||
		!u.meta.describesSame(there) {
		return errkind.Wrap(errkind.Corrupt, ErrDiffers)
	}
	if !maps.Equal(there.Thanos.Labels, u.meta.Thanos.Labels) { // it has files, so it has the section
		return errkind.New(errkind.Invalid, "%w: it is there with external labels %v", ErrDiffers, there.Thanos.Labels)
	}
	if err := u.sendFiles(ctx); err != nil {
		return err
	}
	built, err := u.findOrBuild(ctx)
	if err != nil && errkind.Of(err) != errkind.Corrupt { // a local index that is damaged by now harms the bucket's not
		return err
	}
	if err := u.sendSidecar(ctx, built); err != nil {
		return err
	}
	u.meta, u.metaBytes = there, size
	return nil
}

func (u *upload) sendAll(ctx context.Context) error {
	built, err := u.findOrBuild(ctx) // first, because it reads the local index and so finds out what is wrong with it
	if err != nil {
		return err
	}
	if err := u.sendFiles(ctx); err != nil {
		if built != nil {
			err = errors.Join(err, built.Close())
		}
		return err
	}
	if err := u.sendSidecar(ctx, built); err != nil {
		return err
	}
	data, err := u.meta.Marshal()
	if err != nil {
		return err
	}
	u.metaBytes = int64(len(data))
	key := Key(u.tenant, u.meta.ULID, MetaName)
	if err := u.bkt.Put(ctx, key, bytes.NewReader(data), u.metaBytes); err != nil {
		return unavailable(err)
	}
	return u.verifySent(ctx, key, u.metaBytes)
}

// sendFiles sends what the bucket does not hold in the right size. Blocks are immutable and a put is whole or not at
// all, so the size tells an object of an earlier attempt from none.
func (u *upload) sendFiles(ctx context.Context) error {
	files, _ := u.meta.files()
	for _, f := range files {
		key := Key(u.tenant, u.meta.ULID, f.Name)
		err := verifySize(ctx, u.bkt, key, f.SizeBytes)
		if errors.Is(err, ErrIncomplete) {
			err = u.send(ctx, key, f)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (u *upload) send(ctx context.Context, key string, f File) error {
	local, err := os.Open(filepath.Join(u.dir, filepath.FromSlash(f.Name)))
	if err != nil {
		return err
	}
	var body io.Reader = local
	if u.went != nil {
		body = &meter{local, u.went}
	}
	err = unavailable(u.bkt.Put(ctx, key, body, f.SizeBytes))
	if err := errors.Join(err, local.Close()); err != nil {
		return err
	}
	return u.verifySent(ctx, key, f.SizeBytes)
}

// meter tells of what is read from it.
type meter struct {
	r    io.Reader
	went func(n int64)
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.went(int64(n))
	return n, err
}

// verifySent checks what was put just now: when it is not there in full, the way to the bucket is at fault, and sending
// again may help.
func (u *upload) verifySent(ctx context.Context, key string, size int64) error {
	return unavailable(verifySize(ctx, u.bkt, key, size))
}

// findOrBuild sees whether the bucket has the sidecar and builds it otherwise, into a file that the caller sends and
// closes. There is none when there is nothing to send. An index that is damaged is an error.
func (u *upload) findOrBuild(ctx context.Context) (_ *os.File, err error) {
	b, segments := u.meta.ManifestBlock(0), u.meta.segments()
	u.sidecar, err = FindSidecar(ctx, u.bkt, u.tenant, b, segments)
	if !errors.Is(err, ErrNoSidecar) {
		return nil, err
	}
	file, err := u.scratch(u.dir)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // no place to build it: see Upload
	}
	u.sidecar, err = BuildSidecar(ctx, file, filepath.Join(u.dir, IndexName), b, segments)
	switch {
	case err == nil:
		return file, nil
	case ctx.Err() != nil, errkind.Of(err) == errkind.Corrupt:
		return nil, errors.Join(err, file.Close())
	default: // the disk is full: see Upload
		return nil, file.Close()
	}
}

// sendSidecar sends and closes what findOrBuild returned.
func (u *upload) sendSidecar(ctx context.Context, file *os.File) error {
	if file == nil {
		return nil
	}
	key, size := Key(u.tenant, u.meta.ULID, SidecarName), u.sidecar.Bytes
	err := unavailable(u.bkt.Put(ctx, key, io.NewSectionReader(file, 0, size), size))
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	return u.verifySent(ctx, key, size)
}

// scratch returns an empty file without a name, so that nothing is left of it whatever happens: in dir, or where programs
// may write when that is not allowed.
func scratch(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, SidecarName+"-*")
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
		f, err = os.CreateTemp("", SidecarName+"-*")
	}
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
