package block

import "errors"

// ErrNoMeta means that the bucket has no meta.json of the block: it is not there, or not completely. Upload it again.
var ErrNoMeta = errors.New("block has no meta.json")

// ErrIncomplete means that an object named by meta.json is missing or has another size. Upload the block again from
// where it came; when nobody has it any more, it is lost.
var ErrIncomplete = errors.New("block is incomplete")

// ErrNoSidecar means that the bucket has no sidecar of the block, or one that is damaged, of a format that is not known, or of
// another block. Build one from the block's index.
var ErrNoSidecar = errors.New("block has no sidecar")

// ErrDiffers means that the bucket holds a complete block of the same ULID with other files, times or counts than the local one. Neither
// is touched: a ULID names one content for ever, so one of the two is damaged. Keep both and look.
var ErrDiffers = errors.New("block differs from the complete one in the bucket")
