package tlsgossip

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
)

// maxPayload is what two bytes of length can say; a packet of gossip is never longer.
const maxPayload = 1<<16 - 1

// errEmpty means a frame without a payload, which nobody sends.
var errEmpty = errors.New("a packet of no bytes")

// appendFrame appends a packet as it travels: its length in two bytes, the higher one first, and its bytes.
func appendFrame(dst, packet []byte) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(packet))) //nolint:gosec // WriteTo has looked
	return append(dst, packet...)
}

// readFrame reads the next packet into memory of its own, at most maxPayload bytes. io.EOF is an end between two packets.
func readFrame(r *bufio.Reader) ([]byte, error) {
	var header [2]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint16(header[:])
	if length == 0 {
		return nil, errEmpty
	}
	packet := make([]byte, length)
	if _, err := io.ReadFull(r, packet); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return packet, nil
}
