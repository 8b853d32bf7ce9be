package bucketcopy

import "errors"

// ErrDiverged means that the destination has manifest versions that the source never had: somebody writes there. Stop
// that writer, and copy with Options.ReplaceDiverged if the source is to win.
var ErrDiverged = errors.New("the destination has a history of its own")

// ErrIncomplete means that a block in the source lacks objects that it should have. The tenant's manifest is not copied,
// unless Options.AcceptIncomplete is set.
var ErrIncomplete = errors.New("the block is not complete in the source")

// ErrDiffers means that source and destination hold an object of one name with different bytes. One of the two is
// damaged: check both blocks, delete the bad object, copy again.
var ErrDiffers = errors.New("source and destination differ")

// ErrManifest means that a manifest in the source or in the destination cannot be read for what is in it. It stays so until
// somebody restores or deletes it; nothing of the tenant is copied when it is the newest one.
var ErrManifest = errors.New("the manifest is damaged")

// errMoved means that what is being copied has left the newest manifest of the source. The tenant begins again.
var errMoved = errors.New("the source has changed")
