package main

import (
	"bytes"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestATakenDefaultIsReplacedAndAChoiceIsNot(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	taken := l.Addr().String()

	var said bytes.Buffer
	a := address{host: taken}
	require.NoError(t, a.settle("Duramen", &said))
	require.NotEqual(t, taken, a.host)
	require.Equal(t, taken+" is taken by another process, Duramen uses "+a.host+".\n", said.String())

	said.Reset()
	free := address{host: a.host}
	require.NoError(t, free.settle("Duramen", &said))
	require.Equal(t, a.host, free.host)
	require.Empty(t, said.String())

	var chosen address
	require.NoError(t, chosen.Set(taken))
	require.ErrorContains(t, chosen.settle("Duramen", &said), "address already in use")
	require.Error(t, chosen.Set("9009"))
}
