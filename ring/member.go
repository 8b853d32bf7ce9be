package ring

import "slices"

// Role is a part that a process plays.
type Role string

// The roles that members announce.
const (
	RoleDistributor  Role = "distributor"
	RoleIngester     Role = "ingester"
	RoleQuerier      Role = "querier"
	RoleStoreGateway Role = "store-gateway"
	RoleCompactor    Role = "compactor"
)

// NoOrdinal is the ordinal of an ingester that has claimed none yet, and of members that are no ingesters.
const NoOrdinal = -1

// Member is what an instance announces of itself. Times are milliseconds since the Unix epoch.
type Member struct {
	// ID names the instance over restarts and over new disks.
	ID    string `json:"id"`
	Roles []Role `json:"roles"`
	// Zone is where it runs; "" when zones are not configured, and then the ordinal decides.
	Zone string `json:"zone"`
	// Ordinal is its number among the ingesters of its zone, or NoOrdinal.
	Ordinal int `json:"ordinal"`
	// StorageID names its data directory. Another one under the same ID is a new disk.
	StorageID string `json:"storage_id,omitempty"`
	// Address is where its gRPC listens, host:port; HTTPAddress the same for its pages.
	Address     string `json:"address,omitempty"`
	HTTPAddress string `json:"http_address,omitempty"`
	State       State  `json:"state"`
	// Fresh says that this storage has never been ACTIVE: a Joining member that is Fresh holds nothing.
	Fresh bool `json:"fresh,omitempty"`
	// Epoch counts its starts, Counter its announcements within one. Together they order its entries.
	Epoch   uint64 `json:"epoch"`
	Counter uint64 `json:"counter"`
	// Heartbeat is when it announced this, by its own clock. It is shown and compared with other clocks, and never
	// decides which of two entries is newer.
	Heartbeat int64 `json:"heartbeat"`
	// Registered is the first start of this storage. Of two with one ordinal the one that registered first keeps it.
	Registered int64 `json:"registered,omitempty"`
	// ShippedUpTo: of all that it has accepted so far nothing with a timestamp below is outside the bucket.
	ShippedUpTo int64 `json:"shipped_up_to,omitempty"`
	// LostBefore: an earlier disk of this instance had accepted samples with timestamps below and lost them before
	// they were in the bucket. 0 is none.
	LostBefore int64 `json:"lost_before,omitempty"`
	// Floor: what earlier lives of this instance accepted with timestamps below is in the bucket, and may be nowhere else.
	// Of one that has Left that is everything. 0 is none.
	Floor    int64  `json:"floor,omitempty"`
	Version  string `json:"version,omitempty"`
	Protocol int    `json:"protocol,omitempty"`
	// ReplicationFactor is what this member places and reads by, 0 when it does not say. It has to be the same everywhere.
	ReplicationFactor int `json:"replication_factor,omitempty"`

	// BucketID is the identity of the bucket that this member uses, or has to use while another one is in its place; "" when it
	// is not known or does not say.
	BucketID string `json:"bucket_id,omitempty"`

	// Seen is when this process saw the member's entry advance, by its own clock. It is not gossiped. Of an entry
	// seen for the first time it is the heartbeat, when that is not in the future.
	Seen int64 `json:"-"`
}

// Has reports whether the member plays a role.
func (m *Member) Has(role Role) bool { return slices.Contains(m.Roles, role) }

// Writable reports whether the member takes new samples, by its own word.
func (m *Member) Writable() bool { return m.State == Active && m.Ordinal >= 0 }

// HoldsData reports whether the member may hold samples that are nowhere else: all but those that never took any, and
// those that brought everything to the bucket.
func (m *Member) HoldsData() bool {
	switch m.State {
	case Left:
		return false
	case Joining:
		return !m.Fresh
	default:
		return true
	}
}
