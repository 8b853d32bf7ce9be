package ingestrpc

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/duramendb/duramen/duramenpb"
	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/peerconn"
)

// Client reaches ingesters by their addresses. Safe for concurrent use.
type Client struct {
	cfg   ClientConfig
	conns *peerconn.Pool
}

// NewClient returns a client over the connections of conns, which it does not close. It starts nothing.
func NewClient(cfg ClientConfig, conns *peerconn.Pool, log *slog.Logger, reg prometheus.Registerer) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Client{cfg: cfg, conns: conns}, nil
}

// Peer returns the peer at address: always the same one, until Keep forgets it.
func (c *Client) Peer(address string) *Peer { return &Peer{} }

// Keep ends the streams to addresses for which keep is false.
func (c *Client) Keep(keep func(address string) bool) {}

// Close ends all streams and waits: every section that was sent has its answer, at last Unavailable.
func (c *Client) Close() error { return nil }

// Peer is an ingester in another process.
type Peer struct{}

// Send sends a section of tenantID, which a duramenpb.SectionEncoder wrote for that tenant, and calls done once with the
// ingester's verdict or an error: maybe before Send returns, else from a goroutine that other answers wait for. done may
// send. The verdict is valid in done only. The section belongs to the peer until done is called.
//
// Send never waits. It refuses at once with Unavailable when the peer fails, when more bytes are in flight than the cap, or
// when ctx is over. Later only the deadline of ctx counts: when it passes, done is called with an error, and whether the
// section is stored is unknown. Errors of the ingester have its kind; those of the way are Unavailable.
func (p *Peer) Send(ctx context.Context, tenantID string, section []byte, done func(*duramenpb.PushResult, error)) {
	done(nil, errkind.New(errkind.Unavailable, "no peer is reachable in this build"))
}

// Failing reports, without a call, that sections would be refused for the peer's sake.
func (p *Peer) Failing() bool { return false }
