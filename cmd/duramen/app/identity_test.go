package app

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestInstanceIDsOfOneMachineDiffer(t *testing.T) {
	for listen, want := range map[string]string{
		":9095":          "box-3",
		"10.0.0.1:9095":  "box-3",
		":9096":          "box-3:9096",
		"127.0.0.1:9097": "box-3:9097",
		"127.0.0.1:0":    "box-3:22222222",
	} {
		id, err := instanceID("", "box-3", listen, "0111111122222222")
		require.NoError(t, err)
		require.Equal(t, want, id, listen)
	}
	id, err := instanceID("me", "box-3", ":9096", "x")
	require.NoError(t, err)
	require.Equal(t, "me", id)
	_, err = instanceID("", "", ":9096", "x")
	require.ErrorContains(t, err, "ring.instance_id")
}

func TestAdvertisedAddress(t *testing.T) {
	for _, c := range []struct{ set, listen, want string }{
		{"", "127.0.0.1:0", "127.0.0.1:7"},
		{"", "node-a:9095", "node-a:7"},
		{"host", ":9095", "host:7"},
		{"host:99", ":9095", "host:99"},
		{"fd00::1", ":9095", "[fd00::1]:7"},
		{"", ":9095", ":7"},
		{"", "0.0.0.0:9095", ":7"},
		{"", "[::]:9095", ":7"},
	} {
		got, err := advertised(c.set, c.listen, "7")
		require.NoError(t, err)
		require.Equal(t, c.want, got, "%v", c)
	}
}
