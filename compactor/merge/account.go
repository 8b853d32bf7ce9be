package merge

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/duramendb/duramen/chunkstore/blockcheck"
)

// account is what a block holds. One is made of the inputs while they are merged, another of the output when it is read
// back from the bucket; the order in which chunks are added does not matter.
type account struct {
	series, chunks, samples uint64
	// sum is of the series, times, numbers of samples and checksums of all chunks.
	sum uint64
}

func (a *account) chunk(series uint64, mint, maxt int64, samples uint64, sum uint32) {
	a.chunks++
	a.samples += samples
	h := mix(series)
	h = mix(h ^ uint64(mint)) //nolint:gosec // bits
	h = mix(h ^ uint64(maxt)) //nolint:gosec // bits
	h = mix(h ^ samples<<32 ^ uint64(sum))
	a.sum += h
}

// mix scatters the bits of a number, so that sums of it are as good as sums of random numbers (the finalizer of
// splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// differences says where what was found is not what is due.
func (a *account) differences(found account) (reasons []string) {
	compare := func(what string, due, found uint64) {
		if due != found {
			reasons = append(reasons, fmt.Sprintf("the output has %d %s, and should have %d", found, what, due))
		}
	}
	compare("samples", a.samples, found.samples)
	compare("chunks", a.chunks, found.chunks)
	compare("series", a.series, found.series)
	if len(reasons) == 0 && a.sum != found.sum {
		reasons = append(reasons, "chunks of the output are not those that were merged, or are of other series")
	}
	return reasons
}

// tally makes the account of a block that is read back.
type tally struct {
	account

	lset  labels.Labels
	hash  uint64
	began bool
}

func (t *tally) chunk(c blockcheck.Chunk) {
	if !t.began || !labels.Equal(t.lset, c.Series) {
		t.lset.CopyFrom(c.Series)
		t.hash, t.began = labels.StableHash(t.lset), true
		t.series++
	}
	t.account.chunk(t.hash, c.MinTime, c.MaxTime, c.Samples, c.Sum)
}
