package ingester

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/duramendb/duramen/internal/errkind"
)

// bornFileName is where the folder of all tenants keeps when it was first used.
const bornFileName = "born.json"

// readBorn returns when the folder was first used, in milliseconds since the Unix epoch, and notes it on first use. What
// this ingester accepted since is here or was deleted with a floor of its own; what it accepted on a disk that it had
// before is not, so born is the floor of tenants without a folder. A folder that held tenants before the file existed
// has math.MinInt64.
func readBorn(dir string, now time.Time, hasTenants bool) (int64, error) {
	var state struct {
		BornMs int64 `json:"born_ms"`
	}
	path := filepath.Join(dir, bornFileName)
	data, err := os.ReadFile(path)
	switch {
	case err == nil:
		if err := json.Unmarshal(data, &state); err != nil {
			return 0, errkind.Wrap(errkind.Corrupt, fmt.Errorf("read %s: %w", path, err))
		}
		return state.BornMs, nil
	case !errors.Is(err, fs.ErrNotExist):
		return 0, fmt.Errorf("read %s: %w", path, err)
	}
	state.BornMs = now.UnixMilli()
	if hasTenants {
		state.BornMs = math.MinInt64
	}
	if data, err = json.Marshal(state); err != nil {
		return 0, err
	}
	if err := writeDurable(path, data); err != nil {
		return 0, fmt.Errorf("write %s: %w", path, err)
	}
	return state.BornMs, nil
}
