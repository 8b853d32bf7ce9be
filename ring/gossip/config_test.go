package gossip

import (
	"encoding/base64"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/secret"
)

func defaults() Config {
	var c Config
	c.RegisterFlags(flag.NewFlagSet("test", flag.ContinueOnError))
	return c
}

// testKey returns a key of n bytes in base64.
func testKey(n int, fill string) string {
	return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(fill, n)))
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	c := defaults()
	require.NoError(t, c.Validate())
	for name, tc := range map[string]struct {
		change func(c *Config)
		want   string
	}{
		"join":        {func(c *Config) { c.Join = []string{"a:7946", "b:port"} }, `join has "b:port"`},
		"join port":   {func(c *Config) { c.Join = []string{":7946"} }, `join has ":7946"`},
		"bind":        {func(c *Config) { c.BindAddress = "localhost:7946" }, `bind_address is "localhost:7946"`},
		"no bind":     {func(c *Config) { c.BindAddress = "" }, `bind_address is ""`},
		"advertise":   {func(c *Config) { c.AdvertiseAddress = "a:b:c" }, `advertise_address is "a:b:c"`},
		"label":       {func(c *Config) { c.ClusterLabel = strings.Repeat("x", 256) }, "cluster_label has 256 bytes"},
		"keys twice":  {func(c *Config) { c.EncryptionKeys = secret.Text(testKey(16, "a")); c.EncryptionKeyFile = "f" }, "use one"},
		"short key":   {func(c *Config) { c.EncryptionKeys = secret.Text(testKey(32, "a") + "," + testKey(15, "b")) }, "key 2 has 15 bytes"},
		"garbled key": {func(c *Config) { c.EncryptionKeys = "not base64!" }, "key 1 is not base64"},
		"interval":    {func(c *Config) { c.GossipInterval = 0 }, "gossip_interval is 0s"},
		"packet":      {func(c *Config) { c.MaxPacketBytes = 100 }, "max_packet_bytes is 100"},
	} {
		t.Run(name, func(t *testing.T) {
			c := defaults()
			tc.change(&c)
			require.ErrorContains(t, c.Validate(), tc.want)
		})
	}
}

func TestAddresses(t *testing.T) {
	for address, want := range map[string]struct {
		host string
		port int
	}{
		"a:1":          {"a", 1},
		"a":            {"a", 7946},
		":0":           {"", 0},
		"10.0.0.1":     {"10.0.0.1", 7946},
		"[::1]:9":      {"::1", 9},
		"::1":          {"::1", 7946},
		"[fe80::1]":    {"fe80::1", 7946},
		"a.b.svc:7946": {"a.b.svc", 7946},
	} {
		host, port, err := splitAddress(address)
		require.NoError(t, err, address)
		require.Equal(t, want.host, host)
		require.Equal(t, want.port, port)
	}
}

func TestKeysFromAFile(t *testing.T) {
	c := defaults()
	keys, err := c.keys()
	require.NoError(t, err)
	require.Empty(t, keys)

	c.EncryptionKeyFile = filepath.Join(t.TempDir(), "keys")
	_, err = c.keys()
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, os.WriteFile(c.EncryptionKeyFile, []byte("\n"), 0o600))
	_, err = c.keys()
	require.ErrorContains(t, err, "no key")
	require.NoError(t, os.WriteFile(c.EncryptionKeyFile, []byte(testKey(32, "a")+"\n"+testKey(16, "b")+"\n"), 0o600))
	keys, err = c.keys()
	require.NoError(t, err)
	require.Equal(t, [][]byte{[]byte(strings.Repeat("a", 32)), []byte(strings.Repeat("b", 16))}, keys)
}
