// Package loadledger keeps on disk what became of every request of a run of load: stored, refused, or not known. It
// outlives the sender, whatever ends it, and never claims more than is certain: what may have been sent is not called
// "never sent", and what is not certainly acknowledged is not called so. Read package loadverify next for who relies
// on it.
package loadledger

import (
	"fmt"

	"github.com/duramendb/duramen/internal/loadplan"
)

// Fate is what is known of the samples of one request.
type Fate uint8

// The fates.
const (
	// NeverSent: the samples must not be there.
	NeverSent Fate = iota
	// Unknown: no answer came, or one that says "not now". The samples may be there or not.
	Unknown
	// Refused: an answer refused at least one of the samples for ever. Each may be there or not.
	Refused
	// Acknowledged: the samples must be there, each once.
	Acknowledged
)

// String returns the fate in words.
func (f Fate) String() string {
	return [...]string{"never sent", "unknown", "refused", "acknowledged"}[f&3]
}

// Ledger is the content of a journal: the fate of each request of one run.
type Ledger struct {
	layout  *loadplan.Layout
	rows    map[place]*row
	claimed int // scrapes below it may have been sent though nothing was noted
	closed  bool
}

// place names a chunk of a tenant.
type place struct{ tenant, chunk int }

// row is what was noted of a chunk: one fate for each scrape from the first on, without gaps.
type row struct {
	first int
	fates []Fate
}

func newLedger(cfg loadplan.Config) (*Ledger, error) {
	layout, err := loadplan.NewLayout(cfg)
	if err != nil {
		return nil, err
	}
	return &Ledger{layout: layout, rows: map[place]*row{}}, nil
}

// Config returns which run this is.
func (l *Ledger) Config() loadplan.Config { return l.layout.Config() }

// Closed reports whether the sender ended in order. If not, the fate of its last requests is Unknown at best.
func (l *Ledger) Closed() bool { return l.closed }

// Noted returns how many requests have a fate of their own.
func (l *Ledger) Noted() int {
	n := 0
	for _, r := range l.rows {
		n += len(r.fates)
	}
	return n
}

// Fate returns the fate of a request.
func (l *Ledger) Fate(tenant, chunk, scrape int) Fate {
	if r := l.rows[place{tenant, chunk}]; r != nil && scrape >= r.first && scrape < r.first+len(r.fates) {
		return r.fates[scrape-r.first]
	}
	if scrape < l.claimed {
		return Unknown
	}
	return NeverSent
}

// Next returns the scrape at which a sender that goes on has to begin with a chunk: behind the last one that was noted, or
// at it when its fate is unknown, because sending again is safe and may settle it.
func (l *Ledger) Next(tenant, chunk int) int {
	r := l.rows[place{tenant, chunk}]
	if r == nil {
		return 0
	}
	next := r.first + len(r.fates)
	if r.fates[len(r.fates)-1] == Unknown {
		next--
	}
	return next
}

// note sets a fate. The later one counts, but nothing takes an acknowledgement back. Each chunk is sent in the order of its
// scrapes, so that a gap is a fault of the journal.
func (l *Ledger) note(tenant, chunk, scrape int, f Fate) error {
	r := l.rows[place{tenant, chunk}]
	if r == nil {
		r = &row{first: scrape}
		l.rows[place{tenant, chunk}] = r
	}
	switch at := scrape - r.first; {
	case at < 0 || at > len(r.fates):
		return fmt.Errorf("scrape %d is noted, %d to %d were", scrape, r.first, r.first+len(r.fates)-1)
	case at == len(r.fates):
		r.fates = append(r.fates, f)
	case r.fates[at] != Acknowledged:
		r.fates[at] = f
	}
	return nil
}
