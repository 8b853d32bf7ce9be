package gossip

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hashicorp/memberlist"

	"github.com/duramendb/duramen/ring"
)

// retransmitMult is how often each member passes news on: this times the number of digits of the cluster's size.
const retransmitMult = 4

// packetOverhead bounds what memberlist puts around a message besides the label: encryption and the compound header.
const packetOverhead = 64

// format begins each message. Another one is dropped, so a newer version that needs a new one has to speak both for a
// release.
const format = 1

// delegate is the node as memberlist calls it. Everything that it is given came over the network.
type delegate struct{ n *Node }

var _ memberlist.Delegate = (*delegate)(nil)

// NodeMeta implements memberlist.Delegate. Nothing is told that way: it is limited in size, and no news by itself.
func (d *delegate) NodeMeta(int) []byte { return nil }

// NotifyMsg takes one entry. msg is memberlist's, and is not kept. The same one comes from several members, for that is
// how it gets around; only the first is looked into.
func (d *delegate) NotifyMsg(msg []byte) {
	if d.n.heard.again(msg) {
		return
	}
	e, err := decodeMessage(msg)
	if err != nil {
		d.n.drop("packet", err)
		return
	}
	d.n.receive(true, e)
}

// GetBroadcasts returns news that fit into a packet.
func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.n.queue.GetBroadcasts(overhead, limit)
}

// LocalState returns the whole table.
func (d *delegate) LocalState(bool) []byte {
	d.n.mtx.Lock()
	entries := d.n.table.Entries()
	d.n.mtx.Unlock()
	state, err := encodeState(entries)
	if err != nil {
		d.n.log.Error("list of members not encoded", "err", err)
		return nil
	}
	return state
}

// MergeRemoteState takes the whole table of another member.
func (d *delegate) MergeRemoteState(state []byte, _ bool) {
	entries, err := decodeState(state)
	if err != nil {
		d.n.drop("state", err)
	}
	d.n.receive(false, entries...)
}

// drop counts what cannot be understood. It is somebody else's fault, or a newer version's, and no reason to stop.
func (n *Node) drop(what string, err error) {
	n.metrics.dropped.WithLabelValues(reasonMalformed).Inc()
	n.log.Debug("gossip dropped", "what", what, "err", err)
}

// encodeMessage returns an entry as it is gossiped.
func encodeMessage(e ring.Entry) ([]byte, error) {
	data, err := e.MarshalJSON()
	if err != nil {
		return nil, err
	}
	return append([]byte{format}, data...), nil
}

func decodeMessage(msg []byte) (ring.Entry, error) {
	var e ring.Entry
	if len(msg) == 0 || msg[0] != format {
		return e, errFormat
	}
	err := e.UnmarshalJSON(msg[1:])
	return e, err
}

var errFormat = errors.New("the format is not known")

// encodeState returns entries as they are exchanged in full: a JSON array behind the format.
func encodeState(entries []ring.Entry) ([]byte, error) {
	data, err := json.Marshal(entries)
	if err != nil {
		return nil, err
	}
	return append([]byte{format}, data...), nil
}

// decodeState returns the entries that can be read. The error tells of those that cannot.
func decodeState(state []byte) ([]ring.Entry, error) {
	if len(state) == 0 {
		return nil, nil // a member that has not started yet
	}
	if state[0] != format {
		return nil, errFormat
	}
	var raw []json.RawMessage
	if err := json.NewDecoder(bytes.NewReader(state[1:])).Decode(&raw); err != nil {
		return nil, fmt.Errorf("decode members: %w", err)
	}
	var errs []error
	entries := make([]ring.Entry, 0, len(raw))
	for _, r := range raw {
		var e ring.Entry
		if err := e.UnmarshalJSON(r); err != nil {
			errs = append(errs, err)
			continue
		}
		entries = append(entries, e)
	}
	return entries, errors.Join(errs...)
}

// receive merges what others say. packet is set for news, which is young, unlike a full exchange.
func (n *Node) receive(packet bool, entries ...ring.Entry) {
	n.mtx.Lock()
	defer n.mtx.Unlock()
	if n.stopped {
		return
	}
	now := n.now()
	for _, e := range entries {
		if e.ID() == n.self.ID {
			n.aboutSelf(&e)
		} else if ring.Expired(e, now) {
			continue
		}
		if packet {
			n.noteClock(&e, now)
		}
		n.merge(e)
	}
}

// broadcast queues an entry to be passed on. The caller holds the mutex.
func (n *Node) broadcast(e ring.Entry) {
	msg, err := encodeMessage(e)
	if err != nil {
		n.log.Error("entry not encoded", "member", e.ID(), "err", err)
		return
	}
	if len(msg) > n.cfg.MaxPacketBytes-len(n.cfg.ClusterLabel)-packetOverhead {
		// It still travels with full exchanges.
		n.metrics.dropped.WithLabelValues(reasonTooLarge).Inc()
		return
	}
	n.queue.QueueBroadcast(&broadcast{name: e.ID(), msg: msg})
}

// broadcast is one entry in the queue. A newer one about the same member replaces it.
type broadcast struct {
	name string
	msg  []byte
}

var _ memberlist.NamedBroadcast = (*broadcast)(nil)

// Name implements memberlist.NamedBroadcast.
func (b *broadcast) Name() string { return b.name }

// Message implements memberlist.Broadcast.
func (b *broadcast) Message() []byte { return b.msg }

// Finished implements memberlist.Broadcast.
func (b *broadcast) Finished() {}

// Invalidates implements memberlist.Broadcast.
func (b *broadcast) Invalidates(other memberlist.Broadcast) bool {
	o, ok := other.(*broadcast)
	return ok && o.name == b.name
}
