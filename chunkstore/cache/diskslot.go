package cache

import (
	"encoding/binary"
	"hash/crc32"
	"io"
)

// A slot is a file of the disk cache: a magic, then records one behind another, each an extent of an object. All numbers
// are little endian.
//
//	slot    magic "DRMNSLT1"   record*
//	record  magic  u32
//	        headerCRC u32      CRC-32C of what follows up to the data, so it covers the data's checksum too
//	        dataCRC   u32      CRC-32C of the data
//	        keyLength u16, 0 u16
//	        length    u32      of the data
//	        size      u64      of the object
//	        offset    u64      of the data in the object
//	        key, data
//
// An extent does not cross a multiple of granule in its object. A file ends where a record is not whole: the rest was
// being written when the process died.
const (
	slotMagic    = "DRMNSLT1"
	recordMagic  = 0x31545845 // "EXT1"
	recordHeader = 36
	// granule bounds an extent: a few bytes of it cost reading and checking all of it. 64 KiB take about 20 us from a
	// warm page cache; larger ones would save nothing but index.
	granule = 64 << 10
	// maxKey is the longest key of an object store.
	maxKey = 1024
	// maxRecord is the longest record.
	maxRecord = recordHeader + maxKey + granule
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record is an extent as it lies in a slot.
type record struct {
	obj    Object
	offset int64 // of the data in the object
	length uint32
	crc    uint32 // of the data
	at     int64  // of the data in the slot
}

func (r record) end() int64 { return r.at + int64(r.length) }

// appendRecord appends the record of data, the bytes of obj at offset off, to dst, and returns its description, with at
// counted from the beginning of the record.
func appendRecord(dst []byte, obj Object, off int64, data []byte) ([]byte, record) {
	r := record{
		obj: obj, offset: off, length: uint32(len(data)), crc: crc32.Checksum(data, castagnoli),
		at: int64(recordHeader + len(obj.Key)),
	}
	start := len(dst)
	dst = binary.LittleEndian.AppendUint32(dst, recordMagic)
	dst = binary.LittleEndian.AppendUint32(dst, 0)
	dst = binary.LittleEndian.AppendUint32(dst, r.crc)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(obj.Key)))
	dst = binary.LittleEndian.AppendUint32(dst, r.length)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(obj.Size))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(off))
	dst = append(dst, obj.Key...)
	binary.LittleEndian.PutUint32(dst[start+4:], crc32.Checksum(dst[start+8:], castagnoli))
	return append(dst, data...), r
}

// scanSlot calls fn for each whole record of a slot of size bytes, in order, reading headers only. It returns where the
// last one ends, or 0 when r is no slot. What r holds is not trusted: data is not read here and may differ from its CRC.
func scanSlot(r io.ReaderAt, size int64, fn func(record)) (end int64) {
	var buf [recordHeader + maxKey]byte
	head := buf[:len(slotMagic)]
	if n, _ := r.ReadAt(head, 0); n < len(head) || string(head) != slotMagic {
		return 0
	}
	for end = int64(len(slotMagic)); ; {
		n, _ := r.ReadAt(buf[:min(size-end, int64(len(buf)))], end)
		rec, ok := parseRecord(buf[:n])
		if rec.at += end; !ok || rec.end() > size {
			return end
		}
		fn(rec)
		end = rec.end()
	}
}

// parseRecord reads the header and the key at the beginning of b. at is counted from there.
func parseRecord(b []byte) (record, bool) {
	if len(b) < recordHeader || binary.LittleEndian.Uint32(b) != recordMagic {
		return record{}, false
	}
	keyLength := binary.LittleEndian.Uint32(b[12:])
	if keyLength == 0 || keyLength > maxKey || int(keyLength) > len(b)-recordHeader {
		return record{}, false
	}
	b = b[:recordHeader+keyLength]
	if crc32.Checksum(b[8:], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return record{}, false
	}
	r := record{
		crc: binary.LittleEndian.Uint32(b[8:]), length: binary.LittleEndian.Uint32(b[16:]),
		offset: int64(binary.LittleEndian.Uint64(b[28:])), at: int64(len(b)),
	}
	r.obj.Size = int64(binary.LittleEndian.Uint64(b[20:]))
	if r.length == 0 || r.length > granule || r.offset < 0 || r.offset > r.obj.Size-int64(r.length) ||
		r.offset/granule != (r.offset+int64(r.length)-1)/granule {
		return record{}, false
	}
	r.obj.Key = string(b[recordHeader:])
	return r, true
}
