package faultbucket

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/cespare/xxhash/v2"
)

// seedVariable is the environment variable that repeats the faults of an earlier run.
const seedVariable = "DURAMEN_FAULT_SEED"

// Seed returns a random seed, or that of the environment variable DURAMEN_FAULT_SEED, and prints how to repeat it when
// the test fails.
func Seed(t testing.TB) uint64 {
	t.Helper()
	seed := rand.Uint64()
	if s := os.Getenv(seedVariable); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("parse %s: %v", seedVariable, err)
		}
	}
	t.Logf("faults as with %s=%d", seedVariable, seed)
	return seed
}

// At gives the n-th operation a fault.
func At(n int, f Fault) Plan {
	return func(op Op) Fault {
		if op.N == n {
			return f
		}
		return None
	}
}

// On gives every operation of a method a fault.
func On(method string, f Fault) Plan {
	return func(op Op) Fault {
		if op.Method == method {
			return f
		}
		return None
	}
}

// Seeded gives the share p of all operations one of the faults. What befalls the n-th operation depends on the seed
// alone.
func Seeded(seed uint64, p float64, faults ...Fault) Plan {
	return func(op Op) Fault {
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:8], seed)
		binary.LittleEndian.PutUint64(b[8:], uint64(op.N))
		r := rand.New(rand.NewPCG(seed, xxhash.Sum64(b[:])))
		if r.Float64() >= p {
			return None
		}
		return faults[r.IntN(len(faults))]
	}
}
