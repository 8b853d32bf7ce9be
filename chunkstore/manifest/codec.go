package manifest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/internal/errkind"
)

// formatVersion is that of the bytes that are written; see docs/manifest.md. It rises with any new field, for a program
// that does not know a field would drop it from the next version. Formats from oldestFormat on are read.
const (
	formatVersion = 3
	oldestFormat  = 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Encode returns the bytes of the object that holds m: a header line with format, checksum and length, then JSON.
func Encode(m *Manifest) ([]byte, error) {
	payload, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode manifest %d of tenant %s: %w", m.Version, m.Tenant, err)
	}
	return append(header(formatVersion, payload), payload...), nil
}

func header(format int, payload []byte) []byte {
	return fmt.Appendf(nil, "duramen-manifest %d crc32c=%08x bytes=%d\n",
		format, crc32.Checksum(payload, castagnoli), len(payload))
}

// Decode reads what Encode wrote, be it of this format or an older one. It accepts no other bytes than those that were
// written, and nothing that it does not understand in full. The error is of kind Corrupt.
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
	format, err := headerFormat(head, payload)
	if err != nil {
		return nil, err
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
	if needs := m.format(); needs > format {
		return nil, fmt.Errorf("format is %d and fields are of format %d", format, needs)
	}
	m.normalise()
	return &m, m.validate()
}

// headerFormat returns the format that the header names. There is one way to write the header of a payload, so comparing
// it checks all of it, letter by letter.
func headerFormat(head, payload []byte) (int, error) {
	for format := oldestFormat; format <= formatVersion; format++ {
		if bytes.Equal(head, header(format, payload)) {
			return format, nil
		}
	}
	return 0, headerError(head, payload)
}

// format returns the oldest format that has all the fields that m uses.
func (m *Manifest) format() int {
	switch {
	case m.usesFormat3():
		return 3
	case m.usesFormat2():
		return 2
	default:
		return 1
	}
}

func (m *Manifest) usesFormat2() bool {
	dropped := func(r RemovedBlock) bool { return r.Dropped }
	return m.Lost != nil || slices.ContainsFunc(m.Removed, dropped) || slices.ContainsFunc(m.Blocks, func(b Block) bool {
		return b.SidecarBytes != 0 || b.DirectoryBytes != 0 || b.Labels != nil || b.Shard != "" || b.NoCompact != ""
	})
}

func (m *Manifest) usesFormat3() bool {
	return m.Deletions != nil || m.NextDeletion != 0 || m.Doomed != nil ||
		slices.ContainsFunc(m.Removed, func(r RemovedBlock) bool { return r.KeepUntil != 0 }) ||
		slices.ContainsFunc(m.Blocks, func(b Block) bool { return b.IndexBytes != 0 || b.Deleted != 0 })
}

// normalise leaves one way to say that there is nothing of a kind.
func (m *Manifest) normalise() {
	if len(m.Removed) == 0 {
		m.Removed = nil
	}
	if len(m.Lost) == 0 {
		m.Lost = nil
	}
	if len(m.Deletions) == 0 {
		m.Deletions = nil
	}
	for i := range m.Blocks {
		if len(m.Blocks[i].Labels) == 0 {
			m.Blocks[i].Labels = nil
		}
	}
}

// headerError finds words for a header that is not what it should be.
func headerError(head, payload []byte) error {
	var format, length int
	var sum uint32
	n, _ := fmt.Sscanf(string(head), "duramen-manifest %d crc32c=%08x bytes=%d\n", &format, &sum, &length)
	switch {
	case n >= 1 && (format < oldestFormat || format > formatVersion):
		return fmt.Errorf("format is %d; %d to %d are known", format, oldestFormat, formatVersion)
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
		if b.Deleted > 0 && b.Deleted >= m.NextDeletion {
			return fmt.Errorf("block %s has deletion %d worked in, which is yet to come", b.ULID, b.Deleted)
		}
		if i > 0 && compareBlocks(m.Blocks[i-1], *b) > 0 {
			return fmt.Errorf("block %s is out of order", b.ULID)
		}
	}
	for i, l := range m.Lost {
		if l.MinTime >= l.MaxTime {
			return fmt.Errorf("lost range from %d to %d is empty", l.MinTime, l.MaxTime)
		}
		if i > 0 && compareLost(m.Lost[i-1], l) >= 0 {
			return fmt.Errorf("lost range from %d to %d is out of order", l.MinTime, l.MaxTime)
		}
	}
	return errors.Join(m.validateDeletions(), m.Doomed.validate())
}

func (m *Manifest) validateDeletions() error {
	for i := range m.Deletions {
		d := &m.Deletions[i]
		if err := d.validate(); err != nil {
			return err
		}
		switch {
		case d.ID == 0 || d.ID >= m.NextDeletion:
			return fmt.Errorf("deletion %d of %d", d.ID, m.NextDeletion)
		case i > 0 && m.Deletions[i-1].ID >= d.ID:
			return fmt.Errorf("deletion %d is out of order", d.ID)
		}
	}
	return nil
}

func (d *TenantDeletion) validate() error {
	switch {
	case d == nil:
		return nil
	case d.RequestedAt <= 0 || d.GraceUntil < d.RequestedAt || d.FinishedAt != 0 && d.FinishedAt < d.RequestedAt:
		return fmt.Errorf("deletion of the tenant is requested at %d, taken back until %d and finished at %d",
			d.RequestedAt, d.GraceUntil, d.FinishedAt)
	case d.Blocks < 0 || d.Bytes < 0:
		return fmt.Errorf("deletion of the tenant took %d blocks of %d bytes", d.Blocks, d.Bytes)
	default:
		return nil
	}
}

// compareLost is the order of Manifest.Lost.
func compareLost(a, b LostRange) int {
	return cmp.Or(cmp.Compare(a.MinTime, b.MinTime), cmp.Compare(a.MaxTime, b.MaxTime), cmp.Compare(a.Reason, b.Reason))
}
