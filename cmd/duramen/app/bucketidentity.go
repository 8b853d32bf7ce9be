package app

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/duramendb/duramen/chunkstore/bucket/backend"
	"github.com/duramendb/duramen/chunkstore/bucket/identity"
	"github.com/duramendb/duramen/ring"
)

// bucketName is the file of the data directory that says which bucket it was used with.
const bucketName = "bucket.json"

// bucketFile is what it holds.
type bucketFile struct {
	ID string `json:"id"`
}

// bucketID returns the identity of the bucket that this directory was used with, "" when none is known.
func (d *dataDir) bucketID() (string, error) {
	name := filepath.Join(d.path, bucketName)
	data, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	var b bucketFile
	if err == nil {
		err = json.Unmarshal(data, &b)
	}
	if err != nil {
		return "", fmt.Errorf("read %s, which says what bucket this node uses: %w", name, err)
	}
	return b.ID, nil
}

// useBucket keeps the identity of the bucket.
func (d *dataDir) useBucket(id string) error {
	data, err := json.Marshal(bucketFile{id})
	if err != nil {
		return err
	}
	return writeDurably(filepath.Join(d.path, bucketName), append(data, '\n'))
}

// usedBucket is what this process knows of the bucket that it has used. One that keeps samples on its disk, or has nobody to
// ask, remembers that over restarts; any other member of a cluster is told by the ingesters.
func (a *App) usedBucket() (identity.Config, error) {
	cfg := identity.Config{Create: a.listsBlocks(), Leave: a.cfg.Bucket.AcceptNewIdentity, Setting: "bucket.filesystem.directory"}
	if a.cfg.Bucket.Backend == backend.S3 {
		cfg.Setting = "bucket.s3.bucket_name"
	}
	if a.cfg.clustered() {
		cfg.Cluster, cfg.Announce = a.clusterBucket, a.announceBucket
	}
	if a.cfg.clustered() && !a.listsBlocks() {
		return cfg, nil
	}
	var err error
	if cfg.Known, err = a.dataDir.bucketID(); err != nil {
		return cfg, err
	}
	cfg.Remember, cfg.Used = a.dataDir.useBucket, a.dataDir.used
	if cfg.Known == "" {
		a.warnOfEmptyBucket()
	}
	return cfg, nil
}

// clusterBucket is bucketOf the cluster, as this process knows it.
func (a *App) clusterBucket() (id, by string) {
	if a.ring == nil { // it stands further down in the table
		return "", ""
	}
	return bucketOf(a.ring.Ring(), a.instanceID, time.Now())
}

// bucketOf returns the bucket of the ingester that was registered first, of those that live and say which they use. It is ""
// when that is oneself. So of two that differ the same one is right for everybody.
func bucketOf(view *ring.Ring, self string, now time.Time) (id, by string) {
	var first ring.Member
	for _, m := range view.Members(ring.RoleIngester) {
		if m.ID != self && (m.BucketID == "" || !view.Alive(m, now)) {
			continue
		}
		if first.ID == "" || m.Registered < first.Registered || m.Registered == first.Registered && m.ID < first.ID {
			first = m
		}
	}
	if first.ID == self {
		return "", ""
	}
	return first.BucketID, "ingester " + first.ID
}

// announceBucket tells the other members which bucket is used here.
func (a *App) announceBucket(id string) {
	if a.ring == nil {
		return
	}
	if self := a.ring.Self(); self.ID != "" && self.BucketID != id {
		a.ring.Update(func(m *ring.Member) { m.BucketID = id })
	}
}
