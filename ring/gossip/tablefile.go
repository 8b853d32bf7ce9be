package gossip

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/duramendb/duramen/ring"
)

// tableName is the file of what was last known of the cluster. With it a disk that was replaced while all members were
// down is still noticed, and so are floors of those who left and members that crashed.
const tableName = "members.json"

// tableFile is its content.
type tableFile struct {
	Entries []ring.Entry `json:"entries"`
	// Peers are gossip addresses by instance ID, tried when no member of the join list answers.
	Peers map[string]string `json:"peers,omitempty"`
}

// openTable reads the table, which is empty when there is none yet. An error that wraps errDamaged leaves it empty.
func openTable(dir string) (tableFile, error) {
	name := filepath.Join(dir, tableName)
	data, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return tableFile{}, nil
	}
	if err != nil {
		return tableFile{}, fmt.Errorf("read members: %w", err)
	}
	var t tableFile
	if err := json.Unmarshal(data, &t); err != nil {
		return tableFile{}, damaged(name, err)
	}
	return t, nil
}

func (t tableFile) save(dir string) error {
	data, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return writeDurably(filepath.Join(dir, tableName), append(data, '\n'))
}
