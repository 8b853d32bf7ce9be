package gossip

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// identityName is the file of what this member must not forget about itself.
const identityName = "member.json"

// identity is kept on disk, and written before what it says is told to anybody: an epoch that is used twice would let
// an entry of an earlier life beat one of this life.
type identity struct {
	StorageID string `json:"storage_id"`
	// Epoch is the highest one that was taken.
	Epoch uint64 `json:"epoch"`
	// Registered is the first start of this storage, in milliseconds.
	Registered int64 `json:"registered"`
	// Activated says that this storage was ACTIVE, and may hold samples.
	Activated bool `json:"activated"`
	// Claimed is the ordinal that was claimed, for an instance whose ID has none. ClaimedZone is where it counts.
	Claimed     *int   `json:"claimed_ordinal,omitempty"`
	ClaimedZone string `json:"claimed_zone,omitempty"`
	// LostBefore as ring.Member has it; LostEpoch is the last epoch of the storage that was lost.
	LostBefore int64  `json:"lost_before,omitempty"`
	LostEpoch  uint64 `json:"lost_epoch,omitempty"`
	// ForgivenEpoch: what storages of epochs up to this one held is in the bucket, or was given up by an operator.
	ForgivenEpoch uint64 `json:"forgiven_epoch,omitempty"`
}

// openIdentity reads the identity of a storage, or makes one up. A file of another storage lends its epoch only. One
// that cannot be read is moved aside, and the error says so: the epoch is then learned from the other members.
func openIdentity(dir, storageID string, now int64) (identity, error) {
	fresh := identity{StorageID: storageID, Registered: now}
	name := filepath.Join(dir, identityName)
	data, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return fresh, nil
	}
	if err != nil {
		return fresh, fmt.Errorf("read identity: %w", err)
	}
	var id identity
	if err := json.Unmarshal(data, &id); err != nil {
		return fresh, damaged(name, err)
	}
	if id.StorageID != storageID {
		fresh.Epoch = id.Epoch
		return fresh, nil
	}
	return id, nil
}

func (id *identity) save(dir string) error {
	data, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return writeDurably(filepath.Join(dir, identityName), append(data, '\n'))
}

// errDamaged is wrapped by the error of a file that was moved aside because it cannot be read.
var errDamaged = errors.New("the file was moved aside")

func damaged(name string, cause error) error {
	if err := os.Rename(name, name+".damaged"); err != nil {
		return errors.Join(fmt.Errorf("read %s: %w", name, cause), err)
	}
	return fmt.Errorf("read %s: %w: %w", name, cause, errDamaged)
}

// writeDurably replaces the file so that after a power cut there is the old one or the new one.
func writeDurably(name string, data []byte) error {
	temp := name + ".tmp"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(temp, name); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
