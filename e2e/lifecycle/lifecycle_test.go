package lifecycle

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/duramendb/duramen/internal/errkind"
)

// step is something that may happen to a world, as often as its weight says.
type step struct {
	weight int
	run    func(w *world)
}

var steps = []step{
	{20, (*world).pushNew},
	{10, (*world).pushLate},
	{5, (*world).pushAgain},
	{6, func(w *world) { w.flush(false) }},
	{6, func(w *world) { w.flush(true) }},
	{12, func(w *world) { w.advance(time.Duration(1+w.rnd.IntN(20)) * time.Minute) }},
	{6, func(w *world) { w.advance(time.Duration(1+w.rnd.IntN(4)) * time.Hour) }},
	{2, func(w *world) { w.advance(13 * time.Hour) }},
	{1, func(w *world) { w.advance(-time.Duration(1+w.rnd.IntN(90)) * time.Minute) }},
	{4, func(w *world) {
		if !w.down {
			w.deleteLocally()
		}
	}},
	{4, (*world).restart},
	{4, (*world).crash},
	{4, func(w *world) { w.setDown(!w.down); w.note("bucket down: %v", w.down) }},
	{6, (*world).queryWhilePlanned},
	{4, (*world).queryWhileOpened},
}

func (w *world) step() {
	total := 0
	for _, s := range steps {
		total += s.weight
	}
	n := w.rnd.IntN(total)
	for _, s := range steps {
		if n -= s.weight; n < 0 {
			s.run(w)
			return
		}
	}
}

// queryWhilePlanned lets the data move on between the pinning of the manifest and the opening of recent data.
func (w *world) queryWhilePlanned() {
	between := []func(){
		func() { w.flush(true) },
		func() { w.pushNew(); w.flush(false) },
		func() { w.pushLate(); w.flush(true) },
		func() { w.advance(2 * time.Hour) },
		func() {
			if !w.down {
				w.deleteLocally()
			}
		},
	}[w.rnd.IntN(5)]
	w.queryAround(between, nil)
}

// queryWhileOpened lets the data move on while recent data is open and the store is not. Cuts and deletions wait for
// open queriers, so they are left out here.
func (w *world) queryWhileOpened() {
	between := []func(){
		func() { w.pushNew() },
		func() { w.advance(13 * time.Hour) },
	}[w.rnd.IntN(2)]
	w.queryAround(nil, between)
}

func (w *world) queryAround(planned, opened func()) {
	w.note("query all, with this in its middle:")
	mint := w.nowMs() - w.rnd.Int64N(30*time.Hour.Milliseconds())
	w.hooks.set(planned, opened)
	defer w.hooks.set(nil, nil)
	err := w.query(mint, w.nowMs(), w.rnd.IntN(2) == 0)
	if w.down && errkind.Of(err) == errkind.Unavailable {
		return
	}
	require.NoError(w.t, err)
}

// TestEveryMoment lets random things happen one after the other and checks all answers after each.
func TestEveryMoment(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed)
			for range 80 {
				w.step()
				w.check()
			}
			w.setDown(false)
			w.deleteLocally()
			w.check()
		})
	}
}

// TestEveryMomentUnderQueries is the same with queries all the time, so that they meet cuts, uploads and deletions half
// way. The node itself stays.
func TestEveryMomentUnderQueries(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 100+seed)
			done := make(chan struct{})
			var wg sync.WaitGroup
			for i := range 2 {
				wg.Go(func() {
					for {
						select {
						case <-done:
							return
						default:
						}
						if err := w.query(0, w.nowMs()+time.Hour.Milliseconds(), i == 0); err != nil {
							t.Errorf("query: %v", err)
							return
						}
					}
				})
			}
			for range 25 {
				switch w.rnd.IntN(6) {
				case 0, 1:
					w.pushNew()
				case 2:
					w.pushLate()
				case 3:
					w.flush(w.rnd.IntN(2) == 0)
				case 4:
					w.advance(time.Duration(w.rnd.IntN(60)) * time.Minute)
				case 5:
					w.deleteLocally()
				}
			}
			close(done)
			wg.Wait()
			w.check()
		})
	}
}
