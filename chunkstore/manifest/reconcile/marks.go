package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/chunkstore/manifest"
)

// deletionMark is a mark as all peers read it.
type deletionMark struct {
	ID           string `json:"id"`
	Version      int    `json:"version"`
	Details      string `json:"details,omitempty"`
	DeletionTime int64  `json:"deletion_time"` // in seconds since the Unix epoch
}

// noCompactMark is what is read of a mark.
type noCompactMark struct {
	ID      string `json:"id"`
	Version int    `json:"version"`
	Reason  string `json:"reason"`
	Details string `json:"details"`
}

const (
	markVersion = 1
	// maxMarkBytes bounds what is read of a mark, maxReasonBytes what of it goes into the manifest.
	maxMarkBytes   = 64 << 10
	maxReasonBytes = 200
)

// markDeleted writes the marks of a block that left the manifest. A mark that is there stays as it is.
func markDeleted(ctx context.Context, bkt bucket.Bucket, tenantID string, r manifest.RemovedBlock) error {
	data, err := json.Marshal(deletionMark{
		ID: r.ULID.String(), Version: markVersion, Details: "no longer in Duramen's manifest", DeletionTime: r.RemovedAt / 1000,
	})
	if err != nil {
		return err
	}
	for _, key := range deletionMarkKeys(tenantID, r.ULID) {
		if err := bkt.PutIfAbsent(ctx, key, data); err != nil && !errors.Is(err, bucket.ErrExists) {
			return fmt.Errorf("mark block %s as deleted: %w", r.ULID, unavailable(err))
		}
	}
	return nil
}

// noCompactReason reads why a peer does not want a block to be compacted. A mark that cannot be read is a reason too.
func noCompactReason(ctx context.Context, bkt bucket.Bucket, id ulid.ULID, f *folder) (string, error) {
	keys := make([]string, 0, len(f.noCompact))
	for key := range f.noCompact {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	var m noCompactMark
	if err := readMark(ctx, bkt, keys[0], &m); err != nil {
		return "", fmt.Errorf("no-compact mark of block %s: %w", id, err)
	}
	said := slices.DeleteFunc([]string{"marked by a peer", m.Reason, m.Details}, func(s string) bool { return s == "" })
	return cutText(strings.Join(said, ": "), maxReasonBytes), nil
}

// readMark decodes a mark into v, and leaves v as it is when the mark is no JSON.
func readMark(ctx context.Context, bkt bucket.Bucket, key string, v any) error {
	body, err := bkt.Get(ctx, key)
	if errors.Is(err, bucket.ErrNotFound) {
		return nil
	}
	if err != nil {
		return unavailable(err)
	}
	data, err := io.ReadAll(io.LimitReader(body, maxMarkBytes))
	if err := errors.Join(err, body.Close()); err != nil {
		return unavailable(err)
	}
	_ = json.Unmarshal(data, v) // that the mark is there says enough
	return nil
}

// cutText shortens a text to n bytes at most, in front of a character that does not fit.
func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
