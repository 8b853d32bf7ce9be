package lifecycle

import (
	"flag"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
		if w.state != down {
			w.deleteLocally()
		}
	}},
	{4, (*world).restart},
	{4, (*world).crash},
	{6, func(w *world) { w.setStore([]storeState{healthy, down, faulty, faulty}[w.rnd.IntN(4)]) }},
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
			if w.state != down {
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
	if err == nil || w.excused(err) {
		return
	}
	require.NoError(w.t, err)
}

// live lets random things happen one after the other and checks all answers after each.
func (w *world) live(steps int) {
	for range steps {
		w.step()
		w.check()
	}
}

// end lets the bucket work again, and checks what is in it when all has arrived.
func (w *world) end() {
	w.setStore(healthy)
	w.check()
	w.deleteLocally()
	w.check()
	w.flush(true)
	w.checkStore()
}

// TestEveryMoment lets random things happen one after the other and checks all answers after each.
func TestEveryMoment(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, seed, inMemory(seed))
			w.live(80)
			w.end()
		})
	}
}

// TestEveryMomentUnderQueries is the same with queries all the time, so that they meet cuts, uploads and deletions half
// way. The node itself stays.
func TestEveryMomentUnderQueries(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 100+seed, inMemory(seed))
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

// Named as those of package e2e, for make chaos.
var (
	seedFlag = flag.Uint64("e2e.seed", 0, "seed of the first life on an S3 server; the others follow it")
	duration = flag.Duration("e2e.duration", 0, "how long lives on an S3 server go on, one after the other; 0 means a few")
)

// TestEveryMomentOnS3 is TestEveryMoment with a real S3 server, and every kind of fault on the way to it.
func TestEveryMomentOnS3(t *testing.T) {
	if *duration > 0 {
		for seed, end := *seedFlag, time.Now().Add(*duration); time.Now().Before(end); seed++ {
			t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { lifeOnS3(t, seed, 120) })
		}
		return
	}
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			lifeOnS3(t, *seedFlag+seed, 50)
		})
	}
}

func lifeOnS3(t *testing.T, seed uint64, steps int) {
	s, proxy := onS3(t, seed)
	w := newWorld(t, 1000+seed, s)
	w.setStore(faulty)
	w.live(steps)
	w.end()
	t.Logf("%d requests, %d of %d queries failed, faults: %v", proxy.Total(), w.failed, w.asked, proxy.Faults())
	require.Less(t, w.failed, w.asked/2, "most queries get an answer, or this shows nothing")
}
