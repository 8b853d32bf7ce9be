package checkout

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTop(t *testing.T) {
	top, err := Top()
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(top, "internal", "checkout", "checkout.go"))
	t.Chdir(t.TempDir())
	_, err = Top()
	require.Error(t, err)
}
