package merge

import (
	"fmt"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/internal/errkind"
)

// Damaged means that an input cannot be read: its bytes are there and are not what they should be, or an object of it
// is missing. The bytes were read twice. Salvage the block, or leave it out. It is of kind Corrupt.
type Damaged struct {
	ULID ulid.ULID
	// File is the object, relative to the block, such as chunks/000001.
	File string
	// Offset is the byte in File, -1 where the fault is the file's as a whole.
	Offset int64
	Err    error
}

func (e *Damaged) Error() string {
	if e.Offset < 0 {
		return fmt.Sprintf("block %s is damaged: %s: %v", e.ULID, e.File, e.Err)
	}
	return fmt.Sprintf("block %s is damaged: %s at byte %d: %v", e.ULID, e.File, e.Offset, e.Err)
}

// Unwrap gives the error its kind.
func (e *Damaged) Unwrap() error { return errkind.Wrap(errkind.Corrupt, e.Err) }

// Disputed means that an input seemed to be damaged while it was merged, and that a check of all of it found nothing: mostly
// its bytes came damaged the first time, and trying again helps. When it does not, this program disagrees with itself about
// what a block may be, and somebody has to look. It is of kind Unavailable.
type Disputed struct {
	// Seen is what the merge met.
	Seen *Damaged
}

func (e *Disputed) Error() string {
	return fmt.Sprintf("what was read is not what was read again: %v", e.Seen)
}

// Unwrap gives the error its kind.
func (e *Disputed) Unwrap() error {
	return errkind.New(errkind.Unavailable, "a second look finds no damage")
}

// Gone means that nothing of an input is in the bucket: the job is of an older manifest, or the block was deleted by
// somebody else. Look at the newest manifest; when that lists the block, it is lost. It is of kind Corrupt.
type Gone struct{ ULID ulid.ULID }

func (e *Gone) Error() string { return fmt.Sprintf("block %s is not in the bucket", e.ULID) }

// Unwrap gives the error its kind.
func (e *Gone) Unwrap() error { return errkind.New(errkind.Corrupt, "no object of it") }

// TooLarge means that the output would be larger than an index may be. Nothing of it can be used; merge fewer blocks.
// It is of kind Unprocessable.
type TooLarge struct {
	// What is too large, and how much of it there is and may be, in bytes.
	What       string
	Bytes, Max int64
	Err        error // may be nil
}

func (e *TooLarge) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("output is too large: %s: %v", e.What, e.Err)
	}
	return fmt.Sprintf("output is too large: %s has %d bytes, and may have %d", e.What, e.Bytes, e.Max)
}

// Unwrap gives the error its kind.
func (e *TooLarge) Unwrap() error { return errkind.New(errkind.Unprocessable, "too large") }

// Lost means that what was read back of the output is not what the inputs should have given, although each input could
// be read: a fault of this program or of the machine. The output was discarded. Do not repeat the job blindly;
// somebody has to look. It is of kind Internal.
type Lost struct {
	// Reasons say what differs, the most telling first.
	Reasons []string
}

func (e *Lost) Error() string {
	if len(e.Reasons) == 0 {
		return "output is not what its inputs should give"
	}
	return fmt.Sprintf("output is not what its inputs should give: %s (and %d more)", e.Reasons[0], len(e.Reasons)-1)
}

// Unwrap gives the error its kind.
func (e *Lost) Unwrap() error { return errkind.New(errkind.Internal, "samples are not accounted for") }
