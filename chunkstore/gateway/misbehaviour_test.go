package gateway

import (
	"net"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/duramendb/duramen/internal/errkind"
	"github.com/duramendb/duramen/internal/rpcframe"
)

// misbehave is a client whose only member answers each call with the given frames, and then ends it with success.
func misbehave(t *testing.T, answer func(r *request) [][]byte) *Client {
	t.Helper()
	server := grpc.NewServer(grpc.ForceServerCodecV2(rpcframe.Codec{}), grpc.WaitForHandlers(true),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			frame, err := receive(stream)
			if err != nil {
				return err
			}
			r, _, err := decodeRequest(frame)
			if err != nil {
				return err
			}
			for _, frame := range answer(r) {
				for asked := false; len(frame) > 0 && frame[0] == frameChunks && !asked; {
					command, err := receive(stream)
					if err != nil {
						return err
					}
					asked = command[0] == frameRead
				}
				if err := send(stream, frame); err != nil {
					return err
				}
			}
			return nil
		}))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Stop(); served.Wait() })
	return newClient(t, Static{l.Addr().String()})
}

// TestAnAnswerThatIsNotWholeIsAnError, whatever is missing of it, although the call ends well.
func TestAnAnswerThatIsNotWholeIsAnError(t *testing.T) {
	opened := func(r *request) []byte { return openedFrame(blockIDs(r.Blocks)) }
	series := func(items ...byte) []byte { return append([]byte{frameSeries}, items...) }
	a := append([]byte{itemFound}, append(appendLabels(nil, labels.FromStrings("a", "b")), 1, 0)...)
	turn := []byte{itemTurn, 1, 0}
	end := func(n byte) []byte { return []byte{itemEnd, 0, n} }
	for name, answer := range map[string]func(r *request) [][]byte{
		"nothing":           func(*request) [][]byte { return nil },
		"an empty frame":    func(*request) [][]byte { return [][]byte{{}} },
		"another frame":     func(*request) [][]byte { return [][]byte{{99}} },
		"one block fewer":   func(r *request) [][]byte { return [][]byte{openedFrame(blockIDs(r.Blocks[1:]))} },
		"other blocks":      func(*request) [][]byte { return [][]byte{openedFrame(blockIDs(blockList(9)[7:]))} },
		"opened only":       func(r *request) [][]byte { return [][]byte{opened(r)} },
		"no end of series":  func(r *request) [][]byte { return [][]byte{opened(r), series(append(a, turn...)...)} },
		"a series too few":  func(r *request) [][]byte { return [][]byte{opened(r), series(append(a, end(2)...)...)} },
		"a series too many": func(r *request) [][]byte { return [][]byte{opened(r), series(append(a, end(0)...)...)} },
		"a series twice":    func(r *request) [][]byte { return [][]byte{opened(r), series(append(a, a...)...)} },
		"a turn of nothing": func(r *request) [][]byte { return [][]byte{opened(r), series(turn...)} },
		"one end of two":    func(r *request) [][]byte { return [][]byte{opened(r), series(end(0)...)} },
		"no chunks": func(r *request) [][]byte {
			return [][]byte{opened(r), series(append(append(a, turn...), 2, 0, 1, 2, 1, 0)...)}
		},
		"cut in a series": func(r *request) [][]byte { return [][]byte{opened(r), series(a[:3]...)} },
	} {
		t.Run(name, func(t *testing.T) {
			session := misbehave(t, answer).Session("t", blockList(2), 0, 1<<40)
			defer session.Close()
			sets, err := session.Select(t.Context(), nil, nameMatcher())
			if err == nil {
				_, err = readMerged(sets, true)
			}
			isKind(t, err, errkind.Unavailable)
			require.ErrorContains(t, err, "store-gateway 127.0.0.1:")
		})
	}
}

// TestChunksThatAreNotWholeAreAnError, although all series came.
func TestChunksThatAreNotWholeAreAnError(t *testing.T) {
	m := chunk(5, 6, 4, 7)
	one := appendChunk(nil, m, m.Chunk.Bytes())
	for name, items := range map[string][]byte{
		"none":             nil,
		"no end":           append([]byte{itemRun, 0, 0}, one...),
		"one too few":      append(append([]byte{itemRun, 0, 0}, one...), itemEntryEnd, 2, 4),
		"a byte too few":   append(append([]byte{itemRun, 0, 0}, one...), itemEntryEnd, 1, 5),
		"another entry":    append(append([]byte{itemRun, 1, 0}, one...), itemEntryEnd, 1, 4),
		"the second only":  append(append([]byte{itemRun, 0, 1}, one...), itemEntryEnd, 2, 4),
		"no entry":         one,
		"an end of none":   {itemEntryEnd, 0, 0},
		"cut in a chunk":   append([]byte{itemRun, 0, 0}, one[:len(one)-1]...),
		"impossible times": append([]byte{itemRun, 0, 0, itemChunk, 0}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 1, 0),
		"unknown encoding": append([]byte{itemRun, 0, 0, itemChunk, 0, 0}, 200, 0),
	} {
		t.Run(name, func(t *testing.T) {
			session := misbehave(t, func(r *request) [][]byte {
				lset := appendLabels(nil, labels.FromStrings("a", "b"))
				series := append(append([]byte{frameSeries, itemFound}, lset...), 1, 0, itemTurn, 1, 0, itemEnd, 0, 1)
				return [][]byte{openedFrame(blockIDs(r.Blocks)), series, append([]byte{frameChunks, 1}, items...)}
			}).Session("t", blockList(1), 0, 1<<40)
			defer session.Close()
			sets, err := session.Select(t.Context(), nil, nameMatcher())
			require.NoError(t, err)
			got, err := readMerged(sets, true)
			require.Error(t, err, "%v", got)
			if name != "none" && name != "no end" {
				require.NotContains(t, err.Error(), errShort.Error(), "the frame itself is wrong")
			}
		})
	}
}

func TestLabelsThatAreNotWholeAreAnError(t *testing.T) {
	for name, frames := range map[string][][]byte{
		"no end":        {valuesOf("a", "b")},
		"one too few":   {valuesOf("a"), doneFrame(2)},
		"cut":           {{frameValues, 5, 'a'}},
		"another frame": {{frameSeries}},
	} {
		t.Run(name, func(t *testing.T) {
			session := misbehave(t, func(r *request) [][]byte {
				return append([][]byte{openedFrame(blockIDs(r.Blocks))}, frames...)
			}).Session("t", blockList(1), 0, 1<<40)
			defer session.Close()
			_, err := session.LabelValues(t.Context(), "a", &storage.LabelHints{})
			isKind(t, err, errkind.Unavailable)
		})
	}
}

func valuesOf(values ...string) []byte {
	frame, _ := valuesFrame(values)
	return frame
}
