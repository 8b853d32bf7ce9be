package rpcframe

import (
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/mem"
)

func TestAFrameArrivesAsItWasSent(t *testing.T) {
	for _, want := range []string{"", "x", "a longer one"} {
		sent := Frame(want)
		data, err := Codec{}.Marshal(&sent)
		require.NoError(t, err)
		var got Frame
		require.NoError(t, Codec{}.Unmarshal(data, &got))
		require.Equal(t, want, string(got))
	}
	_, err := Codec{}.Marshal("text")
	require.ErrorContains(t, err, "a string is no frame")
	require.ErrorContains(t, Codec{}.Unmarshal(nil, new(string)), "no frame")
}

func TestDamageIsAnError(t *testing.T) {
	sent := Frame("some bytes")
	data, err := Codec{}.Marshal(&sent)
	require.NoError(t, err)
	whole := data.Materialize()
	for i := range whole {
		damaged := append([]byte(nil), whole...)
		damaged[i] ^= 4
		var got Frame
		require.ErrorIs(t, Codec{}.Unmarshal(mem.BufferSlice{mem.SliceBuffer(damaged)}, &got), errDamaged)
		require.ErrorIs(t, Codec{}.Unmarshal(mem.BufferSlice{mem.SliceBuffer(whole[:i])}, &got), errDamaged)
	}
}
