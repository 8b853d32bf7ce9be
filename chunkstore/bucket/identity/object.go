package identity

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/duramendb/duramen/chunkstore/bucket"
)

// Key is where a bucket's identity lies: in the folder of what belongs to no tenant, whose name no tenant can have.
const Key = "~duramen/identity.json"

// Bounds of what is read. What is written has about 80 bytes, 26 of them the ID.
const (
	maxObjectBytes = 4 << 10
	maxIDBytes     = 64
)

// object is what lies under Key. Fields that are not known are passed over.
type object struct {
	ID string `json:"id"`
	// CreatedAt is for people, in milliseconds since the Unix epoch.
	CreatedAt int64 `json:"created_at"`
}

func encode(id string, at time.Time) []byte {
	data, _ := json.Marshal(object{ID: id, CreatedAt: at.UnixMilli()}) // of a string and a number, which cannot fail
	return append(data, '\n')
}

// decode returns the ID that an object holds. It is letters, digits and dashes.
func decode(data []byte) (string, error) {
	var o object
	if err := json.Unmarshal(data, &o); err != nil {
		return "", fmt.Errorf("decode %s: %w", Key, err)
	}
	if !valid(o.ID) {
		return "", fmt.Errorf("decode %s: its id has to be 1 to %d letters, digits and dashes", Key, maxIDBytes)
	}
	return o.ID, nil
}

func valid(id string) bool {
	for _, c := range []byte(id) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return id != "" && len(id) <= maxIDBytes
}

// Find returns the identity of a bucket, "" when it has none. It costs one request.
func Find(ctx context.Context, bkt bucket.Bucket) (string, error) {
	data, err := read(ctx, bkt)
	if errors.Is(err, bucket.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return decode(data)
}

func read(ctx context.Context, bkt bucket.Bucket) ([]byte, error) {
	body, err := bkt.Get(ctx, Key)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(body, maxObjectBytes))
	if err := errors.Join(err, body.Close()); err != nil {
		return nil, fmt.Errorf("read %s: %w", Key, err)
	}
	return data, nil
}

// Create gives a bucket an identity and returns it: a new one, or the one that somebody else has given it first.
func Create(ctx context.Context, bkt bucket.Bucket, now time.Time) (string, error) {
	id := rand.Text()
	put := bkt.PutIfAbsent(ctx, Key, encode(id, now))
	if put == nil {
		return id, nil
	}
	// Whatever the answer was, the object decides: it may be this one.
	found, err := Find(ctx, bkt)
	if err == nil && found == "" {
		return "", put
	}
	if err != nil {
		return "", errors.Join(put, err)
	}
	return found, nil
}

// Copy gives dst the identity of src, byte by byte, so that it can take its place. One that dst has already stays. It
// returns both; they are equal, or src has none, or dst is a bucket of its own.
func Copy(ctx context.Context, src, dst bucket.Bucket) (from, to string, err error) {
	data, err := read(ctx, src)
	if errors.Is(err, bucket.ErrNotFound) {
		to, err = Find(ctx, dst)
		return "", to, err
	}
	if err == nil {
		from, err = decode(data)
	}
	if err != nil {
		return "", "", fmt.Errorf("source: %w", err)
	}
	put := dst.PutIfAbsent(ctx, Key, data)
	if to, err = Find(ctx, dst); err != nil || to == "" {
		return from, "", fmt.Errorf("destination: %w", errors.Join(put, err))
	}
	return from, to, nil
}
