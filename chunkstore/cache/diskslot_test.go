package cache

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzSlot scans a file of any bytes: what it takes for records lie in the file one behind another, and are what would be
// written for them.
func FuzzSlot(f *testing.F) {
	slot := []byte(slotMagic)
	for i := range int64(3) {
		obj := Object{"tenant/01K000000000000000000000000/chunks/000001", 1 << 30}
		slot, _ = appendRecord(slot, obj, i*granule, content(obj, i*granule, 50+i))
	}
	f.Add(slot)
	f.Add(slot[:len(slot)-1])
	f.Add(bytes.Repeat(slot, 2))
	f.Add([]byte(slotMagic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		at := int64(len(slotMagic))
		end := scanSlot(bytes.NewReader(data), int64(len(data)), func(r record) {
			require.LessOrEqual(t, r.end(), int64(len(data)))
			require.NotEmpty(t, r.obj.Key)
			require.GreaterOrEqual(t, r.offset, int64(0))
			require.LessOrEqual(t, r.offset+int64(r.length), r.obj.Size)
			again, _ := appendRecord(nil, r.obj, r.offset, data[r.at:r.end()])
			require.Equal(t, at+int64(len(again)), r.end(), "one behind another")
			head := len(again) - int(r.length)
			require.Equal(t, again[12:head], data[at+12:at+int64(head)], "but for the checksums")
			at = r.end()
		})
		if end != 0 {
			require.Equal(t, at, end)
		}
	})
}

func TestRecordsThatAreRefused(t *testing.T) {
	for name, r := range map[string]struct {
		obj Object
		off int64
		n   int
	}{
		"behind the object's end": {Object{"o", 100}, 50, 51},
		"over a granule":          {Object{"o", 1 << 20}, granule - 1, 2},
		"empty":                   {Object{"o", 100}, 0, 0},
		"without a key":           {Object{"", 100}, 0, 1},
		"before the beginning":    {Object{"o", 100}, -1, 1},
		"too long":                {Object{"o", 1 << 20}, 0, granule + 1},
	} {
		slot, _ := appendRecord([]byte(slotMagic), r.obj, r.off, make([]byte, r.n))
		end := scanSlot(bytes.NewReader(slot), int64(len(slot)), func(r record) { t.Errorf("%s: %+v", name, r) })
		require.EqualValues(t, len(slotMagic), end, name)
	}
}
