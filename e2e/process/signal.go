package process

import (
	"syscall"

	"github.com/duramendb/duramen/internal/procstat"
)

// Pause stops the process with SIGSTOP: it holds its connections and its memory, and does nothing.
func (p *Process) Pause() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (p *Process) Resume() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// SignalKill sends SIGKILL and does not wait, so that several processes end at the same moment. Kill has to follow.
func (p *Process) SignalKill() { _ = p.cmd.Process.Kill() }

// RSS returns the memory that the process holds resident, in bytes.
func (p *Process) RSS() (int64, error) { return procstat.RSS(p.PID()) }
