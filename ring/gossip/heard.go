package gossip

import (
	"sync"

	"github.com/cespare/xxhash/v2"
)

// maxHeard bounds the messages that are remembered. A large cluster has some dozen new ones each second, and they are
// gossiped for a few.
const maxHeard = 4096

// heard are hashes of messages that came before: those of late, and those before them. A message that was taken needs
// no second look: what it said is in the table, or was older than what is there. The zero value is ready.
type heard struct {
	mtx         sync.Mutex
	late, early map[uint64]struct{}
}

// again reports whether the message came before.
func (h *heard) again(msg []byte) bool {
	sum := xxhash.Sum64(msg)
	h.mtx.Lock()
	defer h.mtx.Unlock()
	_, late := h.late[sum]
	_, early := h.early[sum]
	if late || early {
		return true
	}
	if h.late == nil || len(h.late) >= maxHeard {
		h.early, h.late = h.late, map[uint64]struct{}{}
	}
	h.late[sum] = struct{}{}
	return false
}
