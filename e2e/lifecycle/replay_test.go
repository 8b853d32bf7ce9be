package lifecycle

import (
	"testing"
	"time"
)

// TestRestartKeepsOutOfOrderChunksOfARecreatedSeries: a series that left the head and came back has two references in
// the log. After a restart it goes on under the first one, and the next replay must not let the record of the second one
// replace the out-of-order chunks that were written since.
func TestRestartKeepsOutOfOrderChunksOfARecreatedSeries(t *testing.T) {
	w := newWorld(t, 0, inMemory(0))
	w.push([]point{{0, w.nowMs()}})
	w.flush(true) // the series leaves the head
	w.advance(time.Hour)
	w.push([]point{{0, w.nowMs()}}) // and gets a new reference
	w.restart()
	var late []point
	for i := range int64(40) { // a chunk of 32 is finished
		late = append(late, point{0, w.nowMs() - 1000*(i+1)})
	}
	w.push(late)
	w.check()
	w.restart()
	w.check()
	w.flush(true)
	w.restart()
	w.check()
}

// TestRestartKeepsNumbersOfChunksRising: out-of-order chunks of an earlier life are cut and their files go. What comes
// out of order then must not be taken for cut already because its file has a lower number.
func TestRestartKeepsNumbersOfChunksRising(t *testing.T) {
	w := newWorld(t, 0, inMemory(0))
	w.push([]point{{0, w.nowMs()}})
	late := func(n int64) (ps []point) {
		for i := range n {
			ps = append(ps, point{0, w.nowMs() - 1000*(i+1)})
		}
		return ps
	}
	w.push(late(33)) // one chunk is finished, one is begun
	w.flush(true)
	w.restart()
	w.flush(true)
	w.advance(time.Hour)
	w.push([]point{{0, w.nowMs()}})
	w.push(late(33))
	w.check()
	w.flush(true)
	w.check()
}

// TestLostDiskHidesNothingThatWasShipped: an ingester that starts on a new disk holds nothing of what it shipped before,
// and must not let queries believe that it does.
func TestLostDiskHidesNothingThatWasShipped(t *testing.T) {
	w := newWorld(t, 0, inMemory(0))
	w.push([]point{{0, w.nowMs() - 1000}, {1, w.nowMs()}})
	w.flush(true)
	w.advance(time.Minute)
	w.loseDisk()
	w.check()
	w.push([]point{{0, w.nowMs()}}) // the tenant's folder is made anew
	w.check()
	w.flush(true)
	w.check()
}
