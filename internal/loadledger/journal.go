package loadledger

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/duramendb/duramen/internal/loadplan"
)

// A journal is the line magic, then records: the length of the payload as uvarint, the CRC-32C of the payload in 4 bytes,
// the payload. The first byte of a payload is its kind, the rest are uvarints, but for the JSON of the first record.
//
//	'r' <loadplan.Config as JSON>           first record, once: the run
//	'c' <scrapes>                           claim: requests of scrapes below it may be under way from now on
//	'n' <tenant> <chunk> <scrape> <fate>    note: what became of a request
//	'e'                                     end: nothing is under way, claims are void
//
// A last record that is short or fails its CRC is the torn tail of a crash and counts as not written.
const magic = "duramen load ledger 1\n"

// The kinds of records.
const (
	kindRun   = 'r'
	kindClaim = 'c'
	kindNote  = 'n'
	kindEnd   = 'e'
)

// maxRecord bounds a record: the names of some ten thousand tenants.
const maxRecord = 1 << 20

// claimAhead is how many scrapes are claimed at once: a claim is an fsync.
const claimAhead = 64

// syncEvery is how often notes reach the disk. Those lost in a power cut are unknown, because their scrapes were claimed.
const syncEvery = time.Second

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ErrDamaged means that a journal is no journal, or damaged elsewhere than at its end. Nothing can be concluded from it.
var ErrDamaged = errors.New("not a ledger, or damaged")

// Journal appends to a ledger on disk. It is safe for concurrent use. A write that fails fails all that follow.
type Journal struct {
	mu      sync.Mutex
	file    *os.File
	claimed int
	limit   int // scrapes of the run
	// owed is set while an earlier sender, which did not end in order, may have sent what nobody has noted.
	owed   bool
	synced time.Time
	buf    []byte
	err    error
	now    func() time.Time
}

// Create begins the journal of a run in a new file.
func Create(path string, cfg loadplan.Config) (*Journal, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	run, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	if len(run) >= maxRecord {
		return nil, fmt.Errorf("the run takes %d bytes to describe: name fewer tenants", len(run))
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("create ledger: %w", err)
	}
	j := &Journal{file: file, limit: cfg.Scrapes, now: time.Now}
	_, err = file.WriteString(magic)
	if err = errors.Join(err, j.append(append([]byte{kindRun}, run...)), j.sync(), syncDir(path)); err != nil {
		return nil, errors.Join(fmt.Errorf("create ledger %s: %w", path, err), file.Close())
	}
	return j, nil
}

// Resume opens an existing journal to go on with its run. A torn tail is cut off.
func Resume(path string) (*Journal, *Ledger, error) {
	ledger, size, err := read(path)
	if err != nil {
		return nil, nil, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0o644)
	if err != nil {
		return nil, nil, fmt.Errorf("resume ledger: %w", err)
	}
	j := &Journal{file: file, claimed: ledger.claimed, limit: ledger.Config().Scrapes, now: time.Now}
	j.owed = ledger.claimed > 0
	_, err = file.Seek(size, io.SeekStart)
	if err = errors.Join(file.Truncate(size), err, j.sync()); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("resume ledger %s: %w", path, err), file.Close())
	}
	return j, ledger, nil
}

// Claim has to be called before a request of the scrape is sent: the disk then knows that it may have been.
func (j *Journal) Claim(scrape int) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if scrape < j.claimed || j.err != nil {
		return j.err
	}
	to := max(j.claimed, min(scrape+claimAhead, j.limit), scrape+1)
	if err := j.append(binary.AppendUvarint([]byte{kindClaim}, uint64(to))); err != nil {
		return err
	}
	j.claimed = to
	return j.sync()
}

// Note records what became of a request. It survives the end of this process at once, and a power cut a second later.
func (j *Journal) Note(tenant, chunk, scrape int, f Fate) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	payload := append(make([]byte, 0, 16), kindNote)
	for _, v := range []int{tenant, chunk, scrape, int(f)} {
		payload = binary.AppendUvarint(payload, uint64(v))
	}
	if err := j.append(payload); err != nil {
		return err
	}
	if j.now().Sub(j.synced) < syncEvery {
		return nil
	}
	return j.sync()
}

// Settle tells that the run has been sent to its end: whatever an earlier sender left open has been sent again and noted.
func (j *Journal) Settle() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.owed = false
}

// Close ends the journal in order: all that was sent has been noted. Behind a sender that did not end in order that is so
// only after Settle; without it the claims stand.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	var err error
	if !j.owed {
		err = j.append([]byte{kindEnd})
	}
	if err == nil {
		err = j.sync()
	}
	err = errors.Join(err, j.file.Close())
	j.file, j.err = nil, os.ErrClosed
	return err
}

func (j *Journal) append(payload []byte) error {
	if j.err != nil {
		return j.err
	}
	j.buf = binary.AppendUvarint(j.buf[:0], uint64(len(payload)))
	j.buf = binary.LittleEndian.AppendUint32(j.buf, crc32.Checksum(payload, castagnoli))
	j.buf = append(j.buf, payload...)
	if _, err := j.file.Write(j.buf); err != nil {
		j.err = fmt.Errorf("write ledger: %w", err)
	}
	return j.err
}

func (j *Journal) sync() error {
	if j.err == nil {
		if err := j.file.Sync(); err != nil {
			j.err = fmt.Errorf("sync ledger: %w", err)
		}
		j.synced = j.now()
	}
	return j.err
}

func syncDir(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// Read returns the content of a journal. A torn tail is left out.
func Read(path string) (*Ledger, error) {
	ledger, _, err := read(path)
	return ledger, err
}

// read also returns the size without the torn tail.
func read(path string) (*Ledger, int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, 0, fmt.Errorf("read ledger: %w", err)
	}
	ledger, size, err := decode(data)
	if err != nil {
		return nil, 0, fmt.Errorf("read ledger %s: %w", path, err)
	}
	return ledger, int64(size), nil
}

func decode(data []byte) (*Ledger, int, error) {
	if len(data) < len(magic) || string(data[:len(magic)]) != magic {
		return nil, 0, fmt.Errorf("%w: it does not begin with %q", ErrDamaged, magic)
	}
	var ledger *Ledger
	for at := len(magic); ; {
		payload, size, state := nextRecord(data[at:])
		switch {
		case state == damaged:
			return nil, 0, fmt.Errorf("%w: the record at byte %d", ErrDamaged, at)
		case state == torn && ledger == nil:
			return nil, 0, fmt.Errorf("%w: the run is missing", ErrDamaged)
		case state == torn:
			return ledger, at, nil
		}
		var err error
		if ledger == nil {
			ledger, err = decodeRun(payload)
		} else {
			err = ledger.apply(payload)
		}
		if err != nil {
			return nil, 0, fmt.Errorf("%w: the record at byte %d: %w", ErrDamaged, at, err)
		}
		at += size
	}
}

// state is what nextRecord found.
type state int

const (
	whole state = iota
	torn        // the end of the journal, or a record that was not written whole
	damaged
)

// nextRecord returns the first record of data and its size.
func nextRecord(data []byte) (payload []byte, size int, s state) {
	length, n := binary.Uvarint(data)
	switch {
	case n == 0:
		return nil, 0, torn // nothing, or less than a length
	case length == 0 && zeros(data):
		return nil, 0, torn
	case n < 0 || length == 0 || length > maxRecord:
		return nil, 0, damaged
	}
	end := n + 4 + int(length)
	if end > len(data) {
		return nil, 0, torn
	}
	payload = data[n+4 : end]
	if crc32.Checksum(payload, castagnoli) == binary.LittleEndian.Uint32(data[n:]) {
		return payload, end, whole
	}
	if zeros(data[end:]) {
		return nil, 0, torn
	}
	return nil, 0, damaged
}

// zeros reports whether nothing but zeros is there, which a power cut may leave where data was to come.
func zeros(data []byte) bool {
	for _, b := range data {
		if b != 0 {
			return false
		}
	}
	return true
}

func decodeRun(payload []byte) (*Ledger, error) {
	if payload[0] != kindRun {
		return nil, errors.New("the run has to come first")
	}
	var cfg loadplan.Config
	if err := json.Unmarshal(payload[1:], &cfg); err != nil {
		return nil, err
	}
	return newLedger(cfg)
}

func (l *Ledger) apply(payload []byte) error {
	kind, rest := payload[0], payload[1:]
	var v [4]uint64
	want := map[byte]int{kindClaim: 1, kindNote: 4, kindEnd: 0}
	fields, known := want[kind]
	if !known {
		return fmt.Errorf("kind %q is unknown", kind)
	}
	for i := range fields {
		n := 0
		if v[i], n = binary.Uvarint(rest); n <= 0 {
			return errors.New("it is too short")
		}
		rest = rest[n:]
	}
	if len(rest) > 0 {
		return errors.New("it is too long")
	}
	cfg := l.Config()
	switch kind {
	case kindClaim:
		if v[0] > uint64(cfg.Scrapes) {
			return fmt.Errorf("scrape %d is claimed of %d", v[0], cfg.Scrapes)
		}
		l.claimed, l.closed = max(l.claimed, int(v[0])), false
	case kindNote:
		if v[0] >= uint64(len(cfg.Tenants)) || v[1] >= uint64(l.layout.Chunks()) || v[2] >= uint64(cfg.Scrapes) ||
			v[3] == uint64(NeverSent) || v[3] > uint64(Acknowledged) {
			return fmt.Errorf("there is no tenant %d, chunk %d, scrape %d, fate %d", v[0], v[1], v[2], v[3])
		}
		l.closed = false
		return l.note(int(v[0]), int(v[1]), int(v[2]), Fate(v[3]))
	default:
		l.claimed, l.closed = 0, true
	}
	return nil
}
