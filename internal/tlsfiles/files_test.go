package tlsfiles

import (
	"crypto/tls"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/duramendb/duramen/internal/certtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// handshake reports what the two say of one another.
func handshake(t *testing.T, client, server *tls.Config) (clientErr, serverErr error) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	var serving sync.WaitGroup
	serving.Go(func() {
		far, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		defer far.Close()
		serverErr = tls.Server(far, server).Handshake()
	})
	near, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", l.Addr().String())
	require.NoError(t, err)
	clientErr = tls.Client(near, client).Handshake()
	if clientErr != nil {
		_ = near.Close()
	}
	serving.Wait()
	_ = near.Close()
	return clientErr, serverErr
}

func TestFilesAreReadAgainWhenTheyChange(t *testing.T) {
	before, after := certtest.New(t), certtest.New(t)
	cert, key := before.Issue(t, "server")
	f, err := OpenServer(ServerConfig{CertFile: cert, KeyFile: key}, quiet())
	require.NoError(t, err)
	var later atomic.Int64
	began := time.Now()
	f.now = func() time.Time { return began.Add(time.Duration(later.Load())) }
	trusts := func(a *certtest.Authority) bool {
		client, err := OpenClient(ClientConfig{CAFile: a.File, ServerName: "localhost"}, quiet())
		require.NoError(t, err)
		refused, _ := handshake(t, client.Current(), f.Current())
		return refused == nil
	}
	require.True(t, trusts(before))

	newCert, newKey := after.Issue(t, "server")
	certtest.Replace(t, newCert, cert)
	later.Add(int64(2 * lookAgain))
	require.True(t, trusts(before), "half a renewal changes nothing")
	certtest.Replace(t, newKey, key)
	require.True(t, trusts(before), "not looked at yet")
	later.Add(int64(2 * lookAgain))
	require.True(t, trusts(after))
	require.False(t, trusts(before))
}

func TestClientsShowACertificateWhereItIsDemanded(t *testing.T) {
	ours, others := certtest.New(t), certtest.New(t)
	cert, key := ours.Issue(t, "server")
	server, err := OpenServer(ServerConfig{CertFile: cert, KeyFile: key, ClientCAFile: ours.File}, quiet())
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		of *certtest.Authority
		ok bool
	}{"none": {nil, false}, "a foreign one": {others, false}, "ours": {ours, true}} {
		c := ClientConfig{CAFile: ours.File, ServerName: "127.0.0.1"}
		if tc.of != nil {
			c.CertFile, c.KeyFile = tc.of.Issue(t, "client")
		}
		client, err := OpenClient(c, quiet())
		require.NoError(t, err)
		_, refused := handshake(t, client.Current(), server.Current())
		require.Equal(t, tc.ok, refused == nil, name)
	}
}

func TestAnHTTPListenerFollowsItsFiles(t *testing.T) {
	a := certtest.New(t)
	cert, key := a.Issue(t, "server")
	config, err := Listener(ServerConfig{CertFile: cert, KeyFile: key}, quiet())
	require.NoError(t, err)
	client, err := OpenClient(ClientConfig{CAFile: a.File, ServerName: "localhost"}, quiet())
	require.NoError(t, err)
	offers := client.Current().Clone()
	offers.NextProtos = []string{"h2"}
	clientErr, serverErr := handshake(t, offers, config)
	require.NoError(t, clientErr)
	require.NoError(t, serverErr)

	config, err = Listener(ServerConfig{}, nil)
	require.NoError(t, err)
	require.Nil(t, config)
}

// TestFilesThatCannotBeUsedAreNamed: the error says which setting and which file.
func TestFilesThatCannotBeUsedAreNamed(t *testing.T) {
	a := certtest.New(t)
	cert, key := a.Issue(t, "one")
	_, otherKey := a.Issue(t, "two")
	words := filepath.Join(t.TempDir(), "words")
	require.NoError(t, os.WriteFile(words, []byte("no certificate"), 0o600))
	for name, c := range map[string]struct {
		check func() error
		want  []string
	}{
		"a missing certificate": {(&ClientConfig{Enabled: true, CertFile: "/nowhere", KeyFile: key}).CheckFiles, []string{"cert_file /nowhere"}},
		"another's key":         {(&ServerConfig{CertFile: cert, KeyFile: otherKey}).CheckFiles, []string{cert, otherKey, "does not match"}},
		"a missing authority":   {(&ClientConfig{Enabled: true, CAFile: "/nowhere"}).CheckFiles, []string{"ca_file", "/nowhere"}},
		"an authority of words": {
			(&ServerConfig{CertFile: cert, KeyFile: key, ClientCAFile: words}).CheckFiles, []string{"client_ca_file", words, "no certificate"},
		},
	} {
		err := c.check()
		for _, text := range c.want {
			require.ErrorContains(t, err, text, name)
		}
	}
	_, err := OpenServer(ServerConfig{CertFile: "/nowhere", KeyFile: key}, quiet())
	require.Error(t, err)
	require.NoError(t, (&ServerConfig{}).CheckFiles())
	require.NoError(t, (&ClientConfig{}).CheckFiles())
}

func TestSettingsThatCannotBe(t *testing.T) {
	for name, c := range map[string]ClientConfig{
		"half a pair": {Enabled: true, CertFile: "x"}, "files without": {CAFile: "x"},
	} {
		require.Error(t, c.Validate(), name)
	}
	for name, c := range map[string]ServerConfig{
		"half a pair": {CertFile: "x"}, "clients only": {ClientCAFile: "x"},
	} {
		require.Error(t, c.Validate(), name)
	}
}
