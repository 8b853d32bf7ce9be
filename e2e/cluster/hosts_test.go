package cluster

import (
	"context"
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestHosts: the network does what the stories build on. A host that is cut off refuses nothing and answers nothing; hosts
// that are apart reach one another and nobody else; the test reaches all.
func TestHosts(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	w, err := NewNetwork(3)
	require.NoError(t, err)
	defer w.Close()
	reaches := func(from, to int) bool {
		binary, args := w.Host(from).wrap("bash", []string{"-c", "exec 3<>/dev/tcp/" + w.Host(to).Address + "/9; echo $?"})
		err := runWithin(500*time.Millisecond, binary, args...)
		return err == nil || err.Error() == "exit status 1" // refused is an answer
	}
	require.True(t, reaches(0, 1))
	require.NoError(t, w.Host(1).Silence())
	require.False(t, reaches(0, 1), "no answer, not even a refusal")
	require.False(t, reaches(1, 2))
	require.True(t, reaches(0, 2))
	dialer := net.Dialer{Timeout: time.Second}
	_, err = dialer.DialContext(t.Context(), "tcp", w.Host(1).Service+":9")
	require.ErrorContains(t, err, "refused", "the test reaches a silent host")

	require.NoError(t, w.Host(1).Apart())
	require.NoError(t, w.Host(2).Apart())
	require.True(t, reaches(1, 2))
	require.False(t, reaches(0, 2))
	require.NoError(t, w.Host(1).Reconnect())
	require.NoError(t, w.Host(2).Reconnect())
	require.True(t, reaches(2, 0))
	require.True(t, reaches(0, 1))
}

func runWithin(d time.Duration, binary string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	return exec.CommandContext(ctx, binary, args...).Run()
}
