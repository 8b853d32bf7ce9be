package ingester

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/prometheus/tsdb/wlog"
)

const (
	asidePrefix = "wal-aside-"
	// asideReport is written into a folder that is kept, before anything is repaired.
	asideReport = "report.json"
)

// setAside links the logs into a new folder beside them, so that what a repair deletes stays readable. It takes no
// room.
func setAside(dir string, now time.Time) (aside string, err error) {
	aside = filepath.Join(dir, fmt.Sprintf("%s%d", asidePrefix, now.UnixNano()))
	if err := os.Mkdir(aside, 0o777); err != nil {
		return "", err
	}
	for _, name := range []string{walDirName, wlog.WblDirName} {
		if err := linkTree(filepath.Join(dir, name), filepath.Join(aside, name)); err != nil {
			return "", fmt.Errorf("set %s aside: %w", name, err)
		}
	}
	return aside, nil
}

// linkTree recreates the folders of from in to and links the files; hidden names are skipped. No from is no error.
func linkTree(from, to string) error {
	entries, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o777); err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		if e.IsDir() {
			err = linkTree(src, dst)
		} else {
			err = os.Link(src, dst)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keepAside writes the report that makes an aside folder permanent, and syncs what it names.
func keepAside(aside string, damages []logDamage) error {
	data, err := json.MarshalIndent(damages, "", "  ")
	if err != nil {
		return err
	}
	if err := writeDurable(filepath.Join(aside, asideReport), data); err != nil {
		return err
	}
	for _, name := range []string{walDirName, wlog.WblDirName} {
		if err := syncDir(filepath.Join(aside, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncDir(filepath.Dir(aside))
}

// keptAside returns the damage of all aside folders that were kept, and removes those that no report made permanent:
// leftovers of an open that was interrupted. If such a leftover has segments that the logs no longer have, the open was
// interrupted while stock repaired, and the leftover is kept after all.
func keptAside(dir string) ([]logDamage, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []logDamage
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), asidePrefix) {
			continue
		}
		aside := filepath.Join(dir, e.Name())
		data, err := os.ReadFile(filepath.Join(aside, asideReport))
		if errors.Is(err, fs.ErrNotExist) {
			lost, err := settleLeftover(dir, aside)
			if err != nil {
				return nil, err
			}
			out = append(out, lost...)
			continue
		}
		var damages []logDamage
		if err == nil {
			err = json.Unmarshal(data, &damages)
		}
		if err != nil {
			damages = []logDamage{{Reason: fmt.Sprintf("%s: %v", asideReport, err)}}
		}
		for i := range damages {
			damages[i].Aside = aside
		}
		out = append(out, damages...)
	}
	return out, nil
}

func settleLeftover(dir, aside string) ([]logDamage, error) {
	for _, name := range []string{walDirName, wlog.WblDirName} {
		had, err := segmentNumbers(filepath.Join(aside, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, n := range had {
			_, err := os.Stat(wlog.SegmentName(filepath.Join(dir, name), n))
			if !errors.Is(err, fs.ErrNotExist) {
				continue
			}
			lost := []logDamage{{
				Log: name, Segment: n, Reason: "segment went missing while an open was interrupted", Aside: aside,
			}}
			return lost, keepAside(aside, lost)
		}
	}
	return nil, os.RemoveAll(aside)
}
