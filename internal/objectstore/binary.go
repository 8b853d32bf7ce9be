package objectstore

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/duramendb/duramen/internal/checkout"
)

// binaryVariable names a versitygw to use in place of the one that `make tools` builds.
const binaryVariable = "DURAMEN_VERSITYGW"

// findBinary returns bin/versitygw, or one that is built once for all test runs where there is none.
func findBinary(t testing.TB) (string, error) {
	if path := os.Getenv(binaryVariable); path != "" {
		return filepath.Abs(path)
	}
	top, err := checkout.Top()
	if err != nil {
		return "", err
	}
	path := filepath.Join(top, "bin", "versitygw")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	return build(t, filepath.Join(top, "tools"))
}

// build builds versitygw as the tools module pins it into the user's cache, which takes minutes the first time.
func build(t testing.TB, tools string) (string, error) {
	pinned, err := os.ReadFile(filepath.Join(tools, "go.mod"))
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	hash := sha256.Sum256(pinned)
	path := filepath.Join(cache, "duramen-tests", "versitygw-"+hex.EncodeToString(hash[:8]))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	temp, err := os.MkdirTemp(filepath.Dir(path), "build-") //nolint:usetesting // renamed from, on one volume
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(temp)
	built := filepath.Join(temp, "versitygw")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", built, "github.com/versity/versitygw/cmd/versitygw")
	cmd.Dir = tools
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build versitygw: %w\n%s", err, out)
	}
	return path, os.Rename(built, path)
}
