package gateway

import "fmt"

// Member is a store-gateway.
type Member struct {
	// ID is for ever the same for the same caches; it decides which blocks are asked of it.
	ID string
	// Address is host:port.
	Address string
}

// String returns how errors name the member.
func (m Member) String() string {
	if m.ID == m.Address {
		return m.ID
	}
	return fmt.Sprintf("%s (%s)", m.ID, m.Address)
}

// Members says which store-gateways there are at the moment. The list must not be changed afterwards.
type Members interface{ StoreGateways() []Member }

// Static is a list that does not change: each address is its own ID.
type Static []string

// StoreGateways implements Members.
func (s Static) StoreGateways() []Member {
	members := make([]Member, len(s))
	for i, address := range s {
		members[i] = Member{ID: address, Address: address}
	}
	return members
}
