// Package rpcframe owns how hand-coded messages travel through gRPC: as they are, with a checksum. It refuses to know what
// is in them, and registers nothing globally: client and server name the Codec in their options. Read package
// chunkstore/gateway next for frames that are sent with it.
package rpcframe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"google.golang.org/grpc/mem"
)

// Frame is a message. The sender must not change it once it is sent; the receiver's belongs to the receiver alone and is
// never written again.
type Frame []byte

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errDamaged = errors.New("checksum of a frame differs")

// Codec sends and receives a *Frame, followed by its CRC-32C in four bytes, little-endian.
type Codec struct{}

// Name implements encoding.CodecV2; it is the content subtype.
func (Codec) Name() string { return "duramen-frame" }

// Marshal implements encoding.CodecV2.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*Frame)
	if !ok {
		return nil, fmt.Errorf("a %T is no frame", v)
	}
	sum := binary.LittleEndian.AppendUint32(nil, crc32.Checksum(*f, castagnoli))
	return mem.BufferSlice{mem.SliceBuffer(*f), mem.SliceBuffer(sum)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (Codec) Unmarshal(data mem.BufferSlice, v any) error {
	f, ok := v.(*Frame)
	if !ok {
		return fmt.Errorf("a %T is no frame", v)
	}
	all := data.Materialize()
	n := len(all) - crc32.Size
	if n < 0 || crc32.Checksum(all[:n], castagnoli) != binary.LittleEndian.Uint32(all[n:]) {
		return errDamaged
	}
	*f = all[:n:n]
	return nil
}
