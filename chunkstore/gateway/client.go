package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/duramendb/duramen/chunkstore/manifest"
	"github.com/duramendb/duramen/chunkstore/reader"
	"github.com/duramendb/duramen/internal/peerconn"
	"github.com/duramendb/duramen/internal/rpcframe"
	"github.com/duramendb/duramen/internal/tracing"
	"github.com/duramendb/duramen/tenant"
)

// Client is a reader.Source whose blocks store-gateways read. Which member is asked for a block decides where it is
// cached, and nothing else. Safe for concurrent use.
type Client struct {
	members Members
	log     *slog.Logger
	metrics *clientMetrics
	conns   *peerconn.Pool
}

var _ reader.Source = (*Client)(nil)

// NewClient returns a client of the members over connections of conns, which it does not close. It connects to nobody yet.
func NewClient(members Members, conns *peerconn.Pool, log *slog.Logger, reg prometheus.Registerer) *Client {
	return &Client{members: members, log: log, metrics: newClientMetrics(reg), conns: conns}
}

// MemberState is a member and what is known of the connection to it: idle, connecting, ready, failing, or none.
type MemberState struct {
	ID         string `json:"id"`
	Address    string `json:"address"`
	Connection string `json:"connection"`
}

// States returns the members of now.
func (c *Client) States() []MemberState {
	var states []MemberState
	for _, m := range c.members.StoreGateways() {
		states = append(states, MemberState{m.ID, m.Address, c.conns.State(m.Address)})
	}
	return states
}

// Session implements reader.Source. The members are those of now.
func (c *Client) Session(tenantID string, blocks []manifest.Block, mint, maxt int64) reader.Session {
	members := c.members.StoreGateways()
	s := &session{client: c, tenant: tenantID, members: members, blocks: blocks, mint: mint, maxt: maxt}
	if len(members) > 0 {
		s.chosen = spread(members, blockIDs(blocks))
	}
	return s
}

// session is a reader.Session over several members. Each Select and each question for labels has streams of its own.
type session struct {
	client     *Client
	tenant     string
	members    []Member
	blocks     []manifest.Block
	chosen     []int // by block, the member to ask first
	mint, maxt int64

	selects []*selecting
}

var _ reader.Session = (*session)(nil)

// Close implements reader.Session.
func (s *session) Close() error {
	for _, sel := range s.selects {
		sel.close()
	}
	s.selects = nil
	return nil
}

// task is blocks, by their numbers in the session, that are asked of one member.
type task struct {
	member int
	blocks []int
}

// asking remembers which members have failed for which block of one call.
type asking struct {
	s      *session
	failed map[int][]*failure // by block
}

// plan says whom to ask for each of blocks: its choice of the session, or the next in its preference that has not
// failed. A block for which nobody is left is an error.
func (a *asking) plan(blocks []int) ([]task, error) {
	byMember := map[int][]int{}
	for _, b := range blocks {
		m, ok := a.pick(b)
		if !ok {
			return nil, noneLeft(a.s.tenant, a.s.blocks[b].ULID.String(), a.failed[b])
		}
		byMember[m] = append(byMember[m], b)
	}
	tasks := make([]task, 0, len(byMember))
	for m, list := range byMember {
		tasks = append(tasks, task{m, list})
	}
	slices.SortFunc(tasks, func(x, y task) int { return x.blocks[0] - y.blocks[0] })
	return tasks, nil
}

func (a *asking) pick(block int) (member int, ok bool) {
	failures := a.failed[block]
	if len(a.s.members) == 0 || len(failures) >= len(a.s.members) {
		return 0, false
	}
	if len(failures) == 0 {
		return a.s.chosen[block], true
	}
	for _, m := range preference(a.s.members, a.s.blocks[block].ULID) {
		asked := slices.ContainsFunc(failures, func(f *failure) bool { return f.member == a.s.members[m] })
		if !asked {
			return m, true
		}
	}
	return 0, false
}

// note records that a member failed for blocks. The error is not nil when no other member is to be asked.
func (a *asking) note(blocks []int, err error) error {
	var f *failure
	if !errors.As(err, &f) {
		return err
	}
	if !f.another {
		return f
	}
	a.s.client.log.Debug("store-gateway failed", "tenant", a.s.tenant, "member", f.member.ID, "blocks", len(blocks),
		"err", f.err)
	for _, b := range blocks {
		a.failed[b] = append(a.failed[b], f)
	}
	return nil
}

// all asks for blocks, several members at a time, and goes on with others for those that failed, until each block has its
// answer. ask is called from several goroutines.
func (a *asking) all(blocks []int, ask func(t task) error) error {
	for len(blocks) > 0 {
		tasks, err := a.plan(blocks)
		if err != nil {
			return err
		}
		errs := make([]error, len(tasks))
		var wg sync.WaitGroup
		for i, t := range tasks {
			wg.Go(func() { errs[i] = ask(t) })
		}
		wg.Wait()
		blocks = nil
		for i, t := range tasks {
			if errs[i] == nil {
				continue
			}
			a.s.client.metrics.requests.WithLabelValues(outcomeFailed).Inc()
			if err := a.note(t.blocks, errs[i]); err != nil {
				return err
			}
			blocks = append(blocks, t.blocks...)
		}
	}
	return nil
}

func (s *session) everyBlock() []int {
	all := make([]int, len(s.blocks))
	for i := range all {
		all[i] = i
	}
	return all
}

func (s *session) request(blocks []int, matchers []*labels.Matcher) *request {
	list := make([]manifest.Block, len(blocks))
	for i, b := range blocks {
		list[i] = s.blocks[b]
	}
	return newRequest(list, s.mint, s.maxt, matchers)
}

// call opens a stream to a member, sends the request and waits until the member has said that it will answer for exactly
// its blocks. The stream ends with ctx; release is to be called then.
func (s *session) call(ctx context.Context, m Member, method string, r *request) (
	_ grpc.ClientStream, release func(), err error,
) {
	frame, err := jsonFrame(r)
	if err != nil {
		return nil, nil, err
	}
	conn, err := s.client.conns.Get(m.Address)
	if err != nil {
		return nil, nil, broken(ctx, m, err)
	}
	stream, err := s.begin(ctx, conn, m, method, r, frame)
	if err != nil {
		conn.Release()
		return nil, nil, err
	}
	s.client.metrics.requests.WithLabelValues(outcomeOpened).Inc()
	return stream, sync.OnceFunc(conn.Release), nil
}

func (s *session) begin(
	ctx context.Context, conn grpc.ClientConnInterface, m Member, method string, r *request, frame []byte,
) (grpc.ClientStream, error) {
	out := metadata.AppendToOutgoingContext(ctx, tenant.MetadataKey, s.tenant)
	if parent := tracing.Current(ctx).Traceparent(); parent != "" {
		out = metadata.AppendToOutgoingContext(out, tracing.MetadataKey, parent)
	}
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: method == methodSelect}
	stream, err := conn.NewStream(out, desc, "/"+serviceName+"/"+method)
	if err != nil {
		return nil, broken(ctx, m, err)
	}
	err = send(stream, frame) // of io.EOF, receiving tells the reason
	if method != methodSelect && err == nil {
		err = stream.CloseSend()
	}
	if err := s.opened(ctx, m, stream, r); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, broken(ctx, m, err)
	}
	return stream, nil
}

// opened waits for the first frame.
func (s *session) opened(ctx context.Context, m Member, stream grpc.ClientStream, r *request) error {
	frame, err := s.client.receive(ctx, m, stream)
	if err != nil {
		return err
	}
	if frame[0] != frameOpened {
		return broken(ctx, m, fmt.Errorf("frame %d in place of the first one", frame[0]))
	}
	ids, err := decodeOpened(frame[1:])
	if err != nil {
		return broken(ctx, m, err)
	}
	if !slices.Equal(ids, blockIDs(r.Blocks)) {
		return broken(ctx, m, fmt.Errorf("it answers for blocks %s and was asked for %s", names(ids), names(blockIDs(r.Blocks))))
	}
	return nil
}

// receive returns a frame with at least one byte. A frame that tells an error is that error.
func (c *Client) receive(ctx context.Context, m Member, stream grpc.ClientStream) ([]byte, error) {
	frame, err := receive(stream)
	if err != nil {
		return nil, broken(ctx, m, err)
	}
	c.metrics.received.Add(float64(len(frame)))
	if len(frame) == 0 {
		return nil, broken(ctx, m, rpcframe.ErrCut)
	}
	if frame[0] != frameError {
		return frame, nil
	}
	told, ok := decodeError(frame[1:])
	if !ok {
		return nil, broken(ctx, m, told)
	}
	return nil, answered(m, told)
}

func names(ids []ulid.ULID) []string {
	list := make([]string, len(ids))
	for i, id := range ids {
		list[i] = id.String()
	}
	return list
}

// LabelValues implements reader.Session.
func (s *session) LabelValues(
	ctx context.Context, name string, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, error) {
	return s.labels(ctx, hints, func(r *request) { r.LabelName = []byte(name) }, matchers)
}

// LabelNames implements reader.Session.
func (s *session) LabelNames(
	ctx context.Context, hints *storage.LabelHints, matchers ...*labels.Matcher,
) ([]string, error) {
	return s.labels(ctx, hints, func(r *request) { r.LabelNames = true }, matchers)
}

// labels asks all members and returns the union of their answers: as each gives its first ones up to the limit, the first
// ones of the union are those of all.
func (s *session) labels(
	ctx context.Context, hints *storage.LabelHints, ask func(*request), matchers []*labels.Matcher,
) ([]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var mu sync.Mutex
	var all []string
	a := asking{s: s, failed: map[int][]*failure{}}
	err := a.all(s.everyBlock(), func(t task) error {
		r := s.request(t.blocks, matchers)
		r.LabelHints = hints
		ask(r)
		values, err := s.labelsOf(ctx, s.members[t.member], r)
		mu.Lock()
		defer mu.Unlock()
		all = append(all, values...)
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if hints != nil && hints.Limit > 0 && len(all) > hints.Limit {
		all = all[:hints.Limit]
	}
	return all, nil
}

// labelsOf returns all that one member answers, or an error.
func (s *session) labelsOf(ctx context.Context, m Member, r *request) ([]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream in whatever state it is
	stream, release, err := s.call(ctx, m, methodLabels, r)
	if err != nil {
		return nil, err
	}
	defer release()
	var values []string
	for {
		frame, err := s.client.receive(ctx, m, stream)
		if err != nil {
			return nil, err
		}
		switch frame[0] {
		case frameValues:
			if values, err = decodeValues(values, frame[1:]); err != nil {
				return nil, broken(ctx, m, err)
			}
		case frameDone:
			d := rpcframe.NewDecoder(frame[1:])
			if count := d.Uvarint(); d.Err() != nil || count != uint64(len(values)) {
				return nil, broken(ctx, m, fmt.Errorf("%d values came of %d", len(values), count))
			}
			return values, nil
		default:
			return nil, broken(ctx, m, fmt.Errorf("frame %d among labels", frame[0]))
		}
	}
}
