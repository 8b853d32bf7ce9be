package gossip

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed" // for the templates
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/ring"
)

//go:embed ring.html
var ringHTML string

//go:embed memberlist.html
var memberlistHTML string

// RingPage is what /ring shows, and answers as JSON.
type RingPage struct {
	// Self is the instance ID of who answers.
	Self              string       `json:"self"`
	Version           string       `json:"version"`
	ReplicationFactor int          `json:"replication_factor"`
	Quorum            int          `json:"quorum"`
	Problems          []string     `json:"problems"`
	Members           []RingMember `json:"members"`
	Forgotten         []RingGrave  `json:"forgotten"`
}

// RingMember is a member with what follows from the ring as a whole.
type RingMember struct {
	ring.Member

	// EffectiveZone is the zone that counts when none is configured.
	EffectiveZone string `json:"effective_zone,omitempty"`
	Alive         bool   `json:"alive"`
	// HeartbeatAge is the time since it was last heard of, in seconds.
	HeartbeatAge float64 `json:"heartbeat_age_seconds"`
	// Share of all series that it has a copy of, 0 to 1.
	Share float64 `json:"share"`
	// ClockSkew is how far its clock is ahead of that of who answers, in seconds; 0 when it is close.
	ClockSkew float64 `json:"clock_skew_seconds"`
	// NotForgotten says why a member that does not answer is kept.
	NotForgotten []string `json:"not_forgotten,omitempty"`
}

// RingGrave is a member that is forgotten.
type RingGrave struct {
	ID string `json:"id"`
	ring.Tombstone
}

// RingPage describes the cluster as this member sees it.
func (n *Node) RingPage() RingPage {
	now, r := n.now(), n.Ring()
	page := RingPage{
		Self: n.self.ID, Version: fmt.Sprintf("%016x", r.Version()), ReplicationFactor: r.RF(), Quorum: r.Quorum(),
		Problems: append([]string{}, n.Problems()...), Members: []RingMember{}, Forgotten: []RingGrave{},
	}
	skews := map[string]time.Duration{}
	n.mtx.Lock()
	for id, c := range n.clocks {
		skews[id] = c.skew()
	}
	n.mtx.Unlock()
	for _, e := range r.All() {
		if e.Forgotten != nil {
			page.Forgotten = append(page.Forgotten, RingGrave{ID: e.ID(), Tombstone: *e.Forgotten})
			continue
		}
		m := RingMember{
			Member: e.Member, EffectiveZone: r.ZoneOf(e.Member), Alive: r.Alive(e.Member, now),
			HeartbeatAge: max(0, now.Sub(time.UnixMilli(e.Member.Seen)).Seconds()), ClockSkew: skews[e.ID()].Seconds(),
		}
		if m.Has(ring.RoleIngester) && m.State != ring.Left {
			m.Share = r.Share(m.ID)
			if !m.Alive {
				_, m.NotForgotten = r.Forget(m.ID, now)
			}
		}
		page.Members = append(page.Members, m)
	}
	return page
}

// ServeRing answers GET /ring, in HTML or, with ?format=json or when the client accepts it, as JSON.
func (n *Node) ServeRing(w http.ResponseWriter, r *http.Request) {
	n.serve(w, r, ringHTML, n.RingPage())
}

// MemberlistPage is what /memberlist shows: the layer below the ring.
type MemberlistPage struct {
	Name         string             `json:"name"`
	Address      string             `json:"address"`
	ClusterLabel string             `json:"cluster_label"`
	HealthScore  int                `json:"health_score"`
	QueueLength  int                `json:"queue_length"`
	Join         []string           `json:"join"`
	Keys         []MemberlistKey    `json:"encryption_keys"`
	Members      []MemberlistMember `json:"members"`
	// Missing are addresses at which members ought to be, and are not seen.
	Missing []MemberlistMember `json:"missing"`
}

// MemberlistKey is an encryption key that does not show itself.
type MemberlistKey struct {
	// Fingerprint is the beginning of the key's SHA-256.
	Fingerprint string `json:"fingerprint"`
	// Encrypts is set for the one key that outgoing gossip is encrypted with.
	Encrypts bool `json:"encrypts"`
}

// MemberlistMember is one life of an instance.
type MemberlistMember struct {
	Name     string `json:"name"`
	Instance string `json:"instance"`
	Address  string `json:"address"`
	Self     bool   `json:"self"`
}

// MemberlistPage describes the gossip as this member sees it.
func (n *Node) MemberlistPage() MemberlistPage {
	page := MemberlistPage{
		Name: n.name, ClusterLabel: n.cfg.ClusterLabel, QueueLength: n.queue.NumQueued(),
		Join: append([]string{}, n.cfg.Join...), Keys: []MemberlistKey{}, Members: []MemberlistMember{},
		Missing: []MemberlistMember{},
	}
	list := n.list.Load()
	if list == nil {
		return page
	}
	page.HealthScore, page.Address = list.GetHealthScore(), list.LocalNode().Address()
	seen := map[string]bool{}
	for _, node := range list.Members() {
		seen[node.Address()] = true
		page.Members = append(page.Members, MemberlistMember{
			Name: node.Name, Instance: instanceOf(node.Name), Address: node.Address(), Self: node.Name == n.name,
		})
	}
	slices.SortFunc(page.Members, func(a, b MemberlistMember) int { return cmp.Compare(a.Name, b.Name) })
	n.mtx.Lock()
	for _, id := range slices.Sorted(maps.Keys(n.peers)) {
		if at := n.peers[id]; !seen[at] {
			page.Missing = append(page.Missing, MemberlistMember{Instance: id, Address: at})
		}
	}
	for i, key := range n.keys {
		sum := sha256.Sum256(key)
		page.Keys = append(page.Keys, MemberlistKey{Fingerprint: hex.EncodeToString(sum[:4]), Encrypts: i == 0})
	}
	n.mtx.Unlock()
	return page
}

// ServeMemberlist answers GET /memberlist as ServeRing does.
func (n *Node) ServeMemberlist(w http.ResponseWriter, r *http.Request) {
	n.serve(w, r, memberlistHTML, n.MemberlistPage())
}

// ServeForget answers POST /ring/forget?instance=ID, with data-loss=accept when there is no proof that the member's
// samples are in the bucket.
func (n *Node) ServeForget(w http.ResponseWriter, r *http.Request) {
	id, loss := r.FormValue("instance"), r.FormValue("data-loss")
	var err error
	switch {
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "use POST", http.StatusMethodNotAllowed)
		return
	case id == "":
		err = errkind.New(errkind.Invalid, "parameter instance is missing: say which member to forget")
	case loss != "" && loss != "accept":
		err = errkind.New(errkind.Invalid, "parameter data-loss is %q; use accept, or leave it out", loss)
	default:
		err = n.Forget(r.Context(), id, loss == "accept")
	}
	if err != nil {
		http.Error(w, err.Error(), errkind.Of(err).HTTPStatus())
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintf(w, "member %q is forgotten\n", id)
}

func (n *Node) serve(w http.ResponseWriter, r *http.Request, page string, data any) {
	var b bytes.Buffer
	var err error
	if wantsJSON(r) {
		w.Header().Set("Content-Type", "application/json")
		err = json.NewEncoder(&b).Encode(data)
	} else {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		var t *template.Template
		if t, err = template.New("page").Funcs(pageFuncs(n.now())).Parse(page); err == nil {
			err = t.Execute(&b, data)
		}
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = b.WriteTo(w) // the client is gone when this fails
}

func wantsJSON(r *http.Request) bool {
	if format := r.FormValue("format"); format != "" {
		return format == "json"
	}
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "application/json") && !strings.Contains(accept, "text/html")
}

func pageFuncs(now time.Time) template.FuncMap {
	return template.FuncMap{
		"time": func(ms int64) string {
			if ms <= 0 {
				return "–"
			}
			return time.UnixMilli(ms).UTC().Format(time.RFC3339)
		},
		"ago": func(ms int64) string {
			if ms <= 0 {
				return "–"
			}
			return now.Sub(time.UnixMilli(ms)).Truncate(time.Second).String() + " ago"
		},
		"percent": func(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) },
		"roles": func(roles []ring.Role) string {
			names := make([]string, len(roles))
			for i, role := range roles {
				names[i] = string(role)
			}
			return strings.Join(names, ", ")
		},
	}
}
