package ingester

import (
	"errors"
	"fmt"
	"time"

	"github.com/duramendb/duramen/internal/errkind"
)

var (
	// errStarting means that logs are still being replayed: ask again.
	errStarting = errors.New("ingester is replaying its write logs")
	// errStopping means that the process shuts down: ask another ingester, or this one after its restart.
	errStopping = errors.New("ingester is shutting down")
	// errReadOnly means that the ingester brings what it has to the bucket and takes nothing more: ask another one.
	errReadOnly = errors.New("ingester is read-only: it is being drained")
	// errReopening means that the tenant's write log failed and its TSDB is being opened again: ask again.
	errReopening = errors.New("tenant is being reopened after a failed write")
	// errHidden means that stock's truncation raised the head's lower bound above samples just appended. A replay brings
	// them back.
	errHidden = errors.New("truncation passed over samples that were appended meanwhile")
	// errWBL means that stock could not write to the out-of-order log, which it only logs.
	errWBL = errors.New("out-of-order write log: a write failed")
	// errVanished means that a by-reference series was collected between two of its samples: send again.
	errVanished = errors.New("series was collected while it was written")
)

// seriesLimitError refuses the creation of a series.
type seriesLimitError struct{ limit, have uint64 }

func (e *seriesLimitError) Error() string {
	return fmt.Sprintf("series limit is %d, tenant has %d series in memory", e.limit, e.have)
}

func unavailable(err error, retryAfter time.Duration) error {
	return &errkind.Error{Kind: errkind.Unavailable, RetryAfter: retryAfter, Err: err}
}
