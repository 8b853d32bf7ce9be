package merge

import "sync/atomic"

// Progress is what a job has done so far. It may be read while the job runs; a nil one is told nothing.
type Progress struct {
	phase                       atomic.Int32
	bytesTotal, bytesRead       atomic.Int64
	bytesWritten, bytesVerified atomic.Int64
	series, samples             atomic.Uint64
}

// Phase is what a job is at.
type Phase int32

// The phases, in their order.
const (
	// PhaseWaiting is before the job began.
	PhaseWaiting Phase = iota
	// PhaseSymbols reads the strings of the inputs.
	PhaseSymbols
	// PhaseSeries reads series and chunks, and writes chunks.
	PhaseSeries
	// PhaseIndex writes index and sidecar.
	PhaseIndex
	// PhaseVerify reads the output back.
	PhaseVerify
	// PhaseDone is after it ended.
	PhaseDone
)

var phaseNames = [...]string{"waiting", "symbols", "series", "index", "verify", "done"}

// String returns the name of the phase as pages show it.
func (p Phase) String() string { return phaseNames[p] }

// Snapshot is a Progress at one moment.
type Snapshot struct {
	Phase string `json:"phase"`
	// BytesRead of BytesTotal of the inputs were read. The parts that are not needed are not counted in either.
	BytesTotal int64 `json:"bytes_total"`
	BytesRead  int64 `json:"bytes_read"`
	// BytesWritten were put, BytesVerified read back.
	BytesWritten  int64 `json:"bytes_written"`
	BytesVerified int64 `json:"bytes_verified"`
	// Series and Samples are those of the output.
	Series  uint64 `json:"series"`
	Samples uint64 `json:"samples"`
}

// Snapshot returns what was done so far. It may be called at any time; the numbers need not be of one moment.
func (p *Progress) Snapshot() Snapshot {
	if p == nil {
		return Snapshot{Phase: PhaseWaiting.String()}
	}
	return Snapshot{
		Phase:      Phase(p.phase.Load()).String(),
		BytesTotal: p.bytesTotal.Load(), BytesRead: p.bytesRead.Load(),
		BytesWritten: p.bytesWritten.Load(), BytesVerified: p.bytesVerified.Load(),
		Series: p.series.Load(), Samples: p.samples.Load(),
	}
}

func (p *Progress) at(phase Phase) {
	if p != nil {
		p.phase.Store(int32(phase))
	}
}

func (p *Progress) expect(bytes int64) {
	if p != nil {
		p.bytesTotal.Store(bytes)
	}
}

func (p *Progress) readBytes(n int64) {
	if p != nil {
		p.bytesRead.Add(n)
	}
}

func (p *Progress) sentBytes(n int64) {
	if p != nil {
		p.bytesWritten.Add(n)
	}
}

func (p *Progress) verifiedBytes(n int64) {
	if p != nil {
		p.bytesVerified.Add(n)
	}
}

func (p *Progress) wrote(series, samples uint64) {
	if p != nil {
		p.series.Store(series)
		p.samples.Store(samples)
	}
}
