package rpcframe

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFieldsAreReadAsTheyWereAppended(t *testing.T) {
	frame := []byte{7}
	frame = binary.AppendUvarint(frame, math.MaxUint64)
	frame = binary.AppendVarint(frame, math.MinInt64)
	frame = binary.AppendUvarint(frame, 9)
	frame = AppendFloat(frame, -0.5)
	frame = AppendText(AppendText(frame, "copy"), "view")
	frame = append(frame, "abc"...)
	read := func(d Decoder) (all []any) {
		all = append(all, d.Byte(), d.Uvarint(), d.Varint(), d.Number(9), d.Float(), d.Text(), d.View(), string(d.Bytes(2)),
			string(d.Rest()))
		if err := d.Err(); err != nil {
			return []any{err, d.Rest(), d.More(), d.Number(9), d.Text(), d.View(), d.Float(), d.Byte()}
		}
		return all
	}
	require.Equal(t, []any{byte(7), uint64(math.MaxUint64), int64(math.MinInt64), 9, -0.5, "copy", "view", "ab", "c"},
		read(NewDecoder(frame)))
	for n := range len(frame) - 1 {
		require.Equal(t, []any{ErrCut, []byte(nil), false, 0, "", "", 0.0, byte(0)}, read(NewDecoder(frame[:n])), "cut at %d", n)
	}
}

func TestANumberHasABound(t *testing.T) {
	d := NewDecoder(binary.AppendUvarint(nil, 10))
	require.Zero(t, d.Number(9))
	require.ErrorIs(t, d.Err(), ErrCut)
	require.False(t, d.More())
}
