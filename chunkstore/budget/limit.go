package budget

import (
	"bufio"
	"bytes"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// assumedLimit is the memory limit where nothing says one.
const assumedLimit = 1 << 30

// noLimit is where numbers begin that mean none: cgroup v1 writes the largest multiple of a page, Go the largest int64.
const noLimit = math.MaxInt64 / 2

// MemoryLimit returns the bytes that the process may use and what says so: the smallest of the limits of its cgroups,
// version 1 or 2, its own and those above, of GOMEMLIMIT, and of the physical memory. Limits that cannot be read do not
// count. It is for the start of a process: a limit that changes later is not seen.
func MemoryLimit() (limit int64, source string) {
	return memoryLimit(os.DirFS("/"), debug.SetMemoryLimit(-1))
}

// SoftLimit returns what the Go runtime is to be told as its memory limit: nine tenths of the container's, so that garbage
// is collected more often, and the process not killed, when what it keeps and as much garbage would be too much. ok is
// false when there is no container with a limit, or GOMEMLIMIT says something else.
func SoftLimit() (limit int64, ok bool) {
	return softLimit(os.DirFS("/"), debug.SetMemoryLimit(-1))
}

func softLimit(root fs.FS, goLimit int64) (limit int64, ok bool) {
	if goLimit < noLimit {
		return 0, false
	}
	limit, _ = cgroupLimit(root)
	return limit / 10 * 9, limit > 0
}

// memoryLimit is MemoryLimit on a given file system with the soft limit of the Go runtime.
func memoryLimit(root fs.FS, goLimit int64) (limit int64, source string) {
	limit = math.MaxInt64
	take := func(n int64, from string) {
		if n > 0 && n < noLimit && n < limit {
			limit, source = n, from
		}
	}
	take(cgroupLimit(root))
	take(goLimit, "GOMEMLIMIT")
	take(physicalMemory(root), "physical memory")
	if source == "" {
		return assumedLimit, "no limit found"
	}
	return limit, source
}

// cgroupLimit returns the smallest limit on the way from the process's cgroup to the root, 0 for none.
func cgroupLimit(root fs.FS) (limit int64, source string) {
	data, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0, ""
	}
	for line := range strings.Lines(string(data)) {
		// hierarchy:controllers:path; version 2 has hierarchy 0 and no controllers.
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		n, from := int64(0), ""
		switch {
		case fields[0] == "0" && fields[1] == "":
			n, from = smallestAbove(root, "sys/fs/cgroup", fields[2], "memory.max"), "cgroup v2 memory.max"
		case hasController(fields[1], "memory"):
			n, from = smallestAbove(root, "sys/fs/cgroup/memory", fields[2], "memory.limit_in_bytes"),
				"cgroup v1 memory.limit_in_bytes"
		}
		if n > 0 && (limit == 0 || n < limit) {
			limit, source = n, from
		}
	}
	return limit, source
}

func hasController(list, name string) bool {
	for c := range strings.SplitSeq(list, ",") {
		if c == name {
			return true
		}
	}
	return false
}

// smallestAbove returns the smallest number in the files called name in the folder group below mount and in all folders
// between them, 0 when there is none. A group that is not visible here, as in a container that mounts only its own
// part, leaves the folders above it.
func smallestAbove(root fs.FS, mount, group, name string) int64 {
	smallest := int64(0)
	for dir := path.Clean("/" + group); ; dir = path.Dir(dir) {
		if data, err := fs.ReadFile(root, path.Join(mount, dir, name)); err == nil {
			n, err := strconv.ParseInt(string(bytes.TrimSpace(data)), 10, 64)
			if err == nil && n > 0 && n < noLimit && (smallest == 0 || n < smallest) { // "max" is no number
				smallest = n
			}
		}
		if dir == "/" {
			return smallest
		}
	}
}

// physicalMemory returns MemTotal, 0 when it cannot be read.
func physicalMemory(root fs.FS) int64 {
	data, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0
	}
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		rest, ok := strings.CutPrefix(s.Text(), "MemTotal:")
		if !ok {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil || kib > noLimit>>10 {
			return 0
		}
		return kib << 10
	}
	return 0
}
