package app

import (
	"encoding/json"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"github.com/duramendb/duramen/chunkstore/gateway"
	"github.com/duramendb/duramen/chunkstore/reader"
	"github.com/duramendb/duramen/internal/peerconn"
	"github.com/duramendb/duramen/internal/service"
)

// buildGateways is the querier's side: blocks are read by others.
func buildGateways(a *App) (*service.Service, error) {
	var members gateway.Members = gateway.Static(a.cfg.Querier.StoreGatewayAddresses)
	if a.ring != nil && len(a.cfg.Querier.StoreGatewayAddresses) == 0 {
		members = ringGateways{a.ring}
	}
	if a.peers == nil { // of a list that is fixed
		var err error
		if a.peers, err = peerconn.New(a.cfg.GRPCClient, a.logger("peers"), a.reg); err != nil {
			return nil, err
		}
		a.onClose(a.peers.Close)
	}
	a.gateways = gateway.NewClient(members, a.peers, a.logger("gateway"), a.reg)
	var err error
	a.reader, err = reader.New(reader.Config{}, a.gateways, a.logger("gateway"), a.reg)
	return nil, err
}

// buildGateway is the other side: blocks are read for others.
func buildGateway(a *App) (*service.Service, error) {
	a.gateway = gateway.NewServer(a.store.Source, time.Now, a.logger("gateway"), a.reg)
	a.keepToBudgets()
	return nil, nil
}

const (
	// overBudgets is how much more memory than its budgets a store-gateway is meant to take, in all.
	overBudgets = 1.2
	// notTheRuntimes is memory of the process that Go's runtime does not count: the program itself.
	notTheRuntimes = 32 << 20
)

// keepToBudgets makes the garbage collector work harder before the process grows far beyond its budgets, where it would
// otherwise let garbage grow to the size of what is in use. The environment variable GOMEMLIMIT goes before it. Beside
// another role, whose memory no budget knows, the collector is left alone.
func (a *App) keepToBudgets() {
	if !a.cfg.onlyReadsBlocks() || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	b := a.cfg.Chunkstore.Memory.Budgets()
	limit := int64(overBudgets*float64(b.Directories+b.Pages+b.Pool.Bytes)) - notTheRuntimes
	before := debug.SetMemoryLimit(max(limit, 2*notTheRuntimes))
	a.onClose(func() error {
		debug.SetMemoryLimit(before)
		return nil
	})
}

// serveGateway shows both sides, as far as this process has them.
func (a *App) serveGateway(w http.ResponseWriter, _ *http.Request) {
	var answer struct {
		// Calls are those that are open here.
		Calls []gateway.Call `json:"calls,omitempty"`
		// Members are the store-gateways that this process asks.
		Members []gateway.MemberState `json:"members,omitempty"`
		// Local says that queries of this process read blocks here, and ask no store-gateway.
		Local bool `json:"local,omitempty"`
	}
	if a.gateway != nil {
		answer.Calls = a.gateway.Calls()
	}
	if a.gateways != nil {
		answer.Members = a.gateways.States()
	}
	answer.Local = a.gateways == nil && a.cfg.plays(roleQuerier)
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(answer) // the client is gone when this fails
}
