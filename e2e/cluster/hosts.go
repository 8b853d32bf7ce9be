package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// Network is a set of hosts with cables that can be cut. It lives in the network namespace of the calling process, which
// has to be one made for it: see Alone. Nothing outside of it is touched, and all of it ends with the process.
type Network struct {
	hosts []*Host
}

// Host is a network namespace with an address of its own.
type Host struct {
	// Address is where other hosts reach it, over a cable that can be cut.
	Address string
	// Service is where the calling process reaches it, always.
	Service string

	cable  string
	holder *exec.Cmd
}

// The two switches. A network that is whole has all cables in the first.
const (
	firstSwitch  = "switch0"
	secondSwitch = "switch1"
)

// aloneVariable tells a process that it lives in a network namespace of its own.
const aloneVariable = "E2E_CLUSTER_ALONE"

// ErrNoNamespaces means that this machine lets nobody make network namespaces, or lacks the tools.
var ErrNoNamespaces = errors.New("network namespaces cannot be made here")

// Alone reports whether this process was started by the command of InNamespace.
func Alone() bool { return os.Getenv(aloneVariable) != "" }

// InNamespace prepares a command to run in a network namespace of its own: as root, or as the root of a user namespace.
func InNamespace(cmd *exec.Cmd) error {
	for _, tool := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w: %w", ErrNoNamespaces, err)
		}
	}
	cmd.Env = append(os.Environ(), aloneVariable+"=1")
	cmd.SysProcAttr = namespace(os.Getuid() != 0)
	probe := exec.CommandContext(context.Background(), "ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1")
	probe.SysProcAttr = namespace(os.Getuid() != 0)
	if out, err := probe.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %w %s", ErrNoNamespaces, err, out)
	}
	return nil
}

func namespace(user bool) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWNET}
	if user {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// NewNetwork makes n hosts that reach one another. Close ends it.
func NewNetwork(n int) (*Network, error) {
	w := &Network{}
	if err := w.build(n); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (w *Network) build(n int) error {
	if err := ip("link", "set", "lo", "up"); err != nil {
		return err
	}
	for _, name := range []string{firstSwitch, secondSwitch} {
		if err := ip("link", "add", name, "type", "bridge"); err != nil {
			return err
		}
		if err := ip("link", "set", name, "up"); err != nil {
			return err
		}
	}
	for i := 1; i <= n; i++ {
		h := &Host{
			Address: fmt.Sprintf("10.200.0.%d", i), Service: fmt.Sprintf("10.201.%d.2", i), cable: fmt.Sprintf("cable%d", i),
			holder: exec.CommandContext(context.Background(), "sleep", "infinity"),
		}
		h.holder.SysProcAttr = namespace(false)
		if err := h.holder.Start(); err != nil {
			return fmt.Errorf("hold a namespace: %w", err)
		}
		w.hosts = append(w.hosts, h)
		if err := h.connect(i, n); err != nil {
			return err
		}
	}
	return nil
}

// connect gives a host its two cables. Who has which hardware address is told beforehand: behind a cut cable nobody would
// answer that question, and a sender would learn that nobody is there, which is what a silent host must not tell.
func (h *Host) connect(i, n int) error {
	hardware := func(i int) string { return fmt.Sprintf("02:00:00:00:00:%02x", i) }
	pid, service := strconv.Itoa(h.holder.Process.Pid), fmt.Sprintf("service%d", i)
	outside := [][]string{
		{"link", "add", h.cable, "type", "veth", "peer", "name", "eth0", "address", hardware(i), "netns", pid},
		{"link", "set", h.cable, "master", firstSwitch, "up"},
		{"link", "add", service, "type", "veth", "peer", "name", "eth1", "netns", pid},
		{"addr", "add", fmt.Sprintf("10.201.%d.1/30", i), "dev", service},
		{"link", "set", service, "up"},
	}
	inside := [][]string{
		{"link", "set", "lo", "up"},
		{"addr", "add", h.Address + "/24", "dev", "eth0"},
		{"link", "set", "eth0", "up"},
		{"addr", "add", h.Service + "/30", "dev", "eth1"},
		{"link", "set", "eth1", "up"},
	}
	for j := 1; j <= n; j++ {
		if j != i {
			inside = append(inside, []string{
				"neigh", "add", fmt.Sprintf("10.200.0.%d", j), "lladdr", hardware(j), "dev", "eth0", "nud", "permanent",
			})
		}
	}
	for _, args := range outside {
		if err := ip(args...); err != nil {
			return err
		}
	}
	for _, args := range inside {
		binary, wrapped := h.wrap("ip", args)
		if err := run(binary, wrapped...); err != nil {
			return err
		}
	}
	return nil
}

// Host returns the i-th host, from 0.
func (w *Network) Host(i int) *Host { return w.hosts[i] }

// Silence cuts the cable between the host and all others: packets vanish, both ways, and nobody is told.
func (h *Host) Silence() error { return ip("link", "set", h.cable, "nomaster") }

// Reconnect connects the host with all that are in the first switch.
func (h *Host) Reconnect() error { return ip("link", "set", h.cable, "master", firstSwitch) }

// Apart connects the host with those only that are apart as well.
func (h *Host) Apart() error { return ip("link", "set", h.cable, "master", secondSwitch) }

// wrap returns the command that runs another on the host.
func (h *Host) wrap(binary string, args []string) (string, []string) {
	return "nsenter", append([]string{"--net=/proc/" + strconv.Itoa(h.holder.Process.Pid) + "/ns/net", "--", binary}, args...)
}

// Close ends the hosts. What runs on them has to be ended before.
func (w *Network) Close() {
	for _, h := range w.hosts {
		_ = h.holder.Process.Kill()
		_ = h.holder.Wait()
		_ = ip("link", "del", h.cable)
	}
	for _, name := range []string{firstSwitch, secondSwitch} {
		_ = ip("link", "del", name)
	}
}

func ip(args ...string) error { return run("ip", args...) }

func run(binary string, args ...string) error {
	if out, err := exec.CommandContext(context.Background(), binary, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w %s", binary, strings.Join(args, " "), err, out)
	}
	return nil
}
