// Package faultbucket owns a bucket that fails on demand: before or after the effect, by standing still, with bodies
// that end early, and with listings that lag behind. It refuses to be used outside tests. Read package buckettest for
// what a bucket does when it does not fail.
package faultbucket

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

// ErrInjected is in every error that a fault makes.
var ErrInjected = errors.New("injected fault")

// Fault is what happens to one operation.
type Fault uint8

// The faults.
const (
	// None lets the operation through.
	None Fault = iota
	// Before fails without any effect.
	Before
	// After has its full effect and fails nevertheless, as when the answer is lost.
	After
	// Stall has no effect and does not return until the context ends.
	Stall
	// StallAfter has its full effect and does not return until the context ends.
	StallAfter
	// Truncate gives a body that ends early, without an error: a Get yields the first half of the object, a Put stores
	// the first half and reports success. Operations without a body are let through.
	Truncate
	// BreakOff gives a body that fails behind its first half. Operations without a body in the answer are let through.
	BreakOff
	// Flip gives a body with one bit changed, without an error. Operations without a body in the answer are let through.
	Flip
	// Missing says that there is no such object. Operations that read no object are let through.
	Missing
)

var faultNames = [...]string{
	"none", "before", "after", "stall", "stall after", "truncate", "break off", "flip", "missing",
}

// String returns the fault's name.
func (f Fault) String() string { return faultNames[f] }

// Op is one operation.
type Op struct {
	// N counts the operations of a bucket from 0, those before SetPlan included.
	N int
	// Method is the name of the method of bucket.Bucket.
	Method string
	// Key is the key, the prefix of a List, or the keys of a Delete joined by blanks.
	Key string
}

// Plan decides on the fault of each operation. It may be called concurrently.
type Plan func(Op) Fault

// Bucket is a bucket with a plan.
type Bucket struct {
	bkt bucket.Bucket

	mu   sync.Mutex
	plan Plan
	ops  []Op
	lag  int            // how many listings miss a new object
	late map[string]int // by key: how many listings still miss it
}

// New returns b with faults as planned; a nil plan has none.
func New(b bucket.Bucket, plan Plan) *Bucket {
	return &Bucket{bkt: b, plan: plan, late: map[string]int{}}
}

// SetPlan replaces the plan; nil ends all faults.
func (b *Bucket) SetPlan(plan Plan) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.plan = plan
}

// DelayListings makes each object that is new from now on missing in the next n listings that should show it.
func (b *Bucket) DelayListings(n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lag = n
}

// Ops returns the operations so far in the order in which they began.
func (b *Bucket) Ops() []Op {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.ops)
}

// Name implements bucket.Bucket.
func (b *Bucket) Name() string { return "faulty " + b.bkt.Name() }

// Get implements bucket.Bucket.
func (b *Bucket) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	return b.open(ctx, "Get", key, func() (io.ReadCloser, error) { return b.bkt.Get(ctx, key) })
}

// GetRange implements bucket.Bucket.
func (b *Bucket) GetRange(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	return b.open(ctx, "GetRange", key, func() (io.ReadCloser, error) { return b.bkt.GetRange(ctx, key, off, length) })
}

// Stat implements bucket.Bucket.
func (b *Bucket) Stat(ctx context.Context, key string) (o bucket.Object, _ error) {
	err := b.do(ctx, "Stat", key, func(Fault) (err error) {
		o, err = b.bkt.Stat(ctx, key)
		return err
	})
	if err != nil {
		return bucket.Object{}, err
	}
	return o, nil
}

// Put implements bucket.Bucket.
func (b *Bucket) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	return b.do(ctx, "Put", key, func(f Fault) error {
		if f == Truncate {
			r, size = io.LimitReader(r, size/2), size/2
		}
		return b.written(key, func() error { return b.bkt.Put(ctx, key, r, size) })
	})
}

// PutIfAbsent implements bucket.Bucket.
func (b *Bucket) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	return b.do(ctx, "PutIfAbsent", key, func(Fault) error {
		return b.written(key, func() error { return b.bkt.PutIfAbsent(ctx, key, data) })
	})
}

// List implements bucket.Bucket. Objects that are late are left out, and so are common prefixes of nothing else.
func (b *Bucket) List(ctx context.Context, prefix string, recursive bool, fn func(bucket.Object) error) error {
	return b.do(ctx, "List", prefix, func(Fault) error {
		missing := b.takeLate(prefix)
		if len(missing) == 0 {
			return b.bkt.List(ctx, prefix, recursive, fn)
		}
		last := ""
		return b.bkt.List(ctx, prefix, true, func(o bucket.Object) error {
			if slices.Contains(missing, o.Key) {
				return nil
			}
			if i := strings.IndexByte(o.Key[len(prefix):], '/'); i >= 0 && !recursive {
				o = bucket.Object{Key: o.Key[:len(prefix)+i+1]}
				if o.Key == last {
					return nil
				}
				last = o.Key
			}
			return fn(o)
		})
	})
}

// Delete implements bucket.Bucket.
func (b *Bucket) Delete(ctx context.Context, keys ...string) error {
	return b.do(ctx, "Delete", strings.Join(keys, " "), func(Fault) error {
		b.mu.Lock()
		for _, key := range keys {
			delete(b.late, key)
		}
		b.mu.Unlock()
		return b.bkt.Delete(ctx, keys...)
	})
}

// written marks the object as late before anybody can list it.
func (b *Bucket) written(key string, put func() error) error {
	b.mu.Lock()
	if b.lag > 0 {
		b.late[key] = b.lag
	}
	b.mu.Unlock()
	err := put()
	if errors.Is(err, bucket.ErrExists) {
		b.mu.Lock()
		delete(b.late, key)
		b.mu.Unlock()
	}
	return err
}

// takeLate returns the objects that the listing of prefix misses, and counts that.
func (b *Bucket) takeLate(prefix string) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var missing []string
	for key := range b.late {
		if !strings.HasPrefix(key, prefix) {
			continue
		}
		missing = append(missing, key)
		if b.late[key]--; b.late[key] == 0 {
			delete(b.late, key)
		}
	}
	return missing
}

// begin records an operation and decides on its fault.
func (b *Bucket) begin(method, key string) (Op, Fault) {
	b.mu.Lock()
	op := Op{N: len(b.ops), Method: method, Key: key}
	b.ops = append(b.ops, op)
	plan := b.plan
	b.mu.Unlock()
	if plan == nil {
		return op, None
	}
	return op, plan(op)
}

// do runs an operation without a body in the answer.
func (b *Bucket) do(ctx context.Context, method, key string, fn func(Fault) error) error {
	op, fault := b.begin(method, key)
	switch {
	case fault == Before, fault == Stall, fault == Missing && method == "Stat":
		return op.fail(ctx, fault)
	}
	err := fn(fault)
	if fault == After || fault == StallAfter {
		return op.fail(ctx, fault)
	}
	return err
}

func (b *Bucket) open(
	ctx context.Context, method, key string, fn func() (io.ReadCloser, error),
) (io.ReadCloser, error) {
	op, fault := b.begin(method, key)
	switch fault {
	case None, Truncate, BreakOff, Flip:
	default:
		return nil, op.fail(ctx, fault)
	}
	body, err := fn()
	if err != nil || fault == None {
		return body, err
	}
	data, err := io.ReadAll(body)
	if err := errors.Join(err, body.Close()); err != nil {
		return nil, err
	}
	half := bytes.NewReader(data[:len(data)/2])
	switch fault {
	case Truncate:
		return io.NopCloser(half), nil
	case BreakOff:
		return io.NopCloser(io.MultiReader(half, brokenReader{op.fail(ctx, fault)})), nil
	default:
		if len(data) > 0 {
			// Which bit depends on the object and on how much of it was read: all places have their turn.
			bit := xxhash.Sum64String(fmt.Sprint(key, len(data), op.N)) % uint64(8*len(data))
			data[bit/8] ^= 1 << (bit % 8)
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	}
}

// brokenReader fails.
type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }

// fail returns the error of an operation, at once or when ctx ends.
func (op Op) fail(ctx context.Context, f Fault) error {
	if f == Stall || f == StallAfter {
		<-ctx.Done()
		return fmt.Errorf("%s %s: %w (%s): %w", op.Method, op.Key, ErrInjected, f, ctx.Err())
	}
	if f == Missing {
		return fmt.Errorf("%s %s: %w (%s): %w", op.Method, op.Key, ErrInjected, f, bucket.ErrNotFound)
	}
	return fmt.Errorf("%s %s: %w (%s)", op.Method, op.Key, ErrInjected, f)
}
