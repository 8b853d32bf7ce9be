package objectstore_test

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/internal/objectstore"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestKillAndRestart(t *testing.T) {
	s := objectstore.Start(t, objectstore.Options{})
	name := s.NewBucket(t)
	require.NoError(t, os.WriteFile(filepath.Join(s.BucketDir(name), "key"), []byte("x"), 0o600))
	dial := func() error {
		c, err := net.Dial("tcp", s.Address())
		if err != nil {
			return err
		}
		return c.Close()
	}
	require.NoError(t, dial())
	s.Kill()
	require.Error(t, dial())
	s.Kill()
	require.NoError(t, s.Restart())
	require.NoError(t, dial())
	require.FileExists(t, filepath.Join(s.BucketDir(name), "key"))
}
