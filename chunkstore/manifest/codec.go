package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/internal/errkind"
)

// formatVersion is that of the object's bytes; see docs/manifest.md. It rises with any new field, for a program that
// does not know a field would drop it from the next version.
const formatVersion = 1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns the bytes of the object that holds m: a header line with format, checksum and length, then JSON.
func Encode(m *Manifest) ([]byte, error) {
	payload, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode manifest %d of tenant %s: %w", m.Version, m.Tenant, err)
	}
	return append(header(payload), payload...), nil
}

func header(payload []byte) []byte {
	return fmt.Appendf(nil, "duramen-manifest %d crc32c=%08x bytes=%d\n",
		formatVersion, crc32.Checksum(payload, castagnoli), len(payload))
}

// Decode reads what Encode wrote. It accepts no other bytes than those that were written, and nothing that it does not
// understand in full. The error is of kind Corrupt.
func Decode(data []byte) (*Manifest, error) {
	m, err := decode(data)
	if err != nil {
		return nil, errkind.New(errkind.Corrupt, "decode manifest: %w", err)
	}
	return m, nil
}

func decode(data []byte) (*Manifest, error) {
	end := bytes.IndexByte(data, '\n') + 1
	head, payload := data[:end], data[end:]
	// There is one way to write the header of a payload, so comparing it checks all of it, letter by letter.
	if !bytes.Equal(head, header(payload)) {
		return nil, headerError(head, payload)
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	var m Manifest
	if err := d.Decode(&m); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("bytes follow the JSON")
	}
	return &m, m.validate()
}

// headerError finds words for a header that is not what it should be.
func headerError(head, payload []byte) error {
	var format, length int
	var sum uint32
	n, _ := fmt.Sscanf(string(head), "duramen-manifest %d crc32c=%08x bytes=%d\n", &format, &sum, &length)
	switch {
	case n >= 1 && format != formatVersion:
		return fmt.Errorf("format is %d; %d is known", format, formatVersion)
	case n == 3 && length != len(payload):
		return fmt.Errorf("payload has %d bytes instead of %d", len(payload), length)
	case n == 3 && sum != crc32.Checksum(payload, castagnoli):
		return errors.New("checksum does not match")
	default:
		return errors.New("no valid header")
	}
}

func (m *Manifest) validate() error {
	if m.Tenant == "" || m.Version == 0 || m.SwapID == "" {
		return errors.New("tenant, version or swap ID is missing")
	}
	seen := make(map[ulid.ULID]struct{}, len(m.Blocks))
	for i := range m.Blocks {
		b := &m.Blocks[i]
		if err := b.validate(); err != nil {
			return err
		}
		if _, twice := seen[b.ULID]; twice {
			return fmt.Errorf("block %s is listed twice", b.ULID)
		}
		seen[b.ULID] = struct{}{}
		if b.AddedVersion > m.Version {
			return fmt.Errorf("block %s was added by the later version %d", b.ULID, b.AddedVersion)
		}
		if i > 0 && compareBlocks(m.Blocks[i-1], *b) > 0 {
			return fmt.Errorf("block %s is out of order", b.ULID)
		}
	}
	return nil
}
