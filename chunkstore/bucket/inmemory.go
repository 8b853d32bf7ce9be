package bucket

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"
)

// InMemory is a Bucket for tests and experiments: it forgets everything with the process.
type InMemory struct {
	now func() time.Time

	mu      sync.RWMutex
	objects map[string]memoryObject
}

type memoryObject struct {
	data     []byte // never changed in place
	modified time.Time
}

// NewInMemory returns an empty bucket.
func NewInMemory() *InMemory { return NewInMemoryWithClock(time.Now) }

// NewInMemoryWithClock returns an empty bucket whose times of modification come from now.
func NewInMemoryWithClock(now func() time.Time) *InMemory {
	return &InMemory{now: now, objects: map[string]memoryObject{}}
}

// Name implements Bucket.
func (b *InMemory) Name() string { return "in-memory" }

// Get implements Bucket.
func (b *InMemory) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	o, err := b.find(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return newBody(ctx, bytes.NewReader(o.data), io.NopCloser(nil)), nil
}

// GetRange implements Bucket.
func (b *InMemory) GetRange(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	o, err := b.find(ctx, key)
	if err == nil {
		err = checkRange(off, length)
	}
	if err != nil {
		return nil, fmt.Errorf("get range of %s: %w", key, err)
	}
	return newBody(ctx, io.NewSectionReader(bytes.NewReader(o.data), off, length), io.NopCloser(nil)), nil
}

// Stat implements Bucket.
func (b *InMemory) Stat(ctx context.Context, key string) (Object, error) {
	o, err := b.find(ctx, key)
	if err != nil {
		return Object{}, fmt.Errorf("stat %s: %w", key, err)
	}
	return o.entry(key), nil
}

// Put implements Bucket.
func (b *InMemory) Put(ctx context.Context, key string, r io.Reader, size int64) error {
	if err := ValidateKey(key); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	var data bytes.Buffer
	if err := copyExactly(ctx, &data, r, size); err != nil {
		return fmt.Errorf("put %s: %w", key, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.objects[key] = memoryObject{data.Bytes(), b.now()}
	return nil
}

// PutIfAbsent implements Bucket.
func (b *InMemory) PutIfAbsent(ctx context.Context, key string, data []byte) error {
	if err := ValidateKey(key); err != nil {
		return fmt.Errorf("put if absent: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("put %s if absent: %w", key, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.objects[key]; ok {
		return fmt.Errorf("put %s if absent: %w", key, ErrExists)
	}
	b.objects[key] = memoryObject{bytes.Clone(data), b.now()}
	return nil
}

// List implements Bucket. It reports what was there when it began.
func (b *InMemory) List(ctx context.Context, prefix string, recursive bool, fn func(Object) error) error {
	if err := validatePrefix(prefix); err != nil {
		return fmt.Errorf("list: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("list %s: %w", cmp.Or(prefix, "everything"), err)
	}
	for _, o := range b.snapshot(prefix, recursive) {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("list %s: %w", cmp.Or(prefix, "everything"), err)
		}
		if err := fn(o); err != nil {
			return err
		}
	}
	return nil
}

// Delete implements Bucket.
func (b *InMemory) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := ValidateKey(key); err != nil {
			return fmt.Errorf("delete: %w", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, key := range keys {
		delete(b.objects, key)
	}
	return nil
}

func (b *InMemory) find(ctx context.Context, key string) (memoryObject, error) {
	if err := ValidateKey(key); err != nil {
		return memoryObject{}, err
	}
	if err := ctx.Err(); err != nil {
		return memoryObject{}, err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	o, ok := b.objects[key]
	if !ok {
		return memoryObject{}, ErrNotFound
	}
	return o, nil
}

// snapshot returns the entries of a listing, sorted. A common prefix occurs once.
func (b *InMemory) snapshot(prefix string, recursive bool) []Object {
	b.mu.RLock()
	defer b.mu.RUnlock()
	var entries []Object
	for key, o := range b.objects {
		rest, ok := strings.CutPrefix(key, prefix)
		if !ok {
			continue
		}
		if slash := strings.IndexByte(rest, '/'); slash >= 0 && !recursive {
			entries = append(entries, Object{Key: prefix + rest[:slash+1]})
			continue
		}
		entries = append(entries, o.entry(key))
	}
	slices.SortFunc(entries, func(a, b Object) int { return strings.Compare(a.Key, b.Key) })
	return slices.CompactFunc(entries, func(a, b Object) bool { return a.Key == b.Key })
}

func (o memoryObject) entry(key string) Object {
	return Object{Key: key, Size: int64(len(o.data)), LastModified: o.modified}
}
