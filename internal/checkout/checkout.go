// Package checkout owns the question where the repository is, for tests that build from it or read it. It refuses to guess
// outside of it. Read package e2e/process next for what is built.
package checkout

import (
	"errors"
	"os"
	"path/filepath"
)

// Top returns the repository's top folder, found from the working directory upwards.
func Top() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "tools", "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not inside the repository")
		}
		dir = parent
	}
}
