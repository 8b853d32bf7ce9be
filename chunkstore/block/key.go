package block

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/oklog/ulid/v2"
)

// The names of a block's objects, as in the block's folder on disk.
const (
	MetaName   = "meta.json"
	IndexName  = "index"
	chunksName = "chunks"
)

// Key returns the key of one object of a block: <tenant>/<ulid>/<name>.
func Key(tenant string, id ulid.ULID, name string) string { return Prefix(tenant, id) + name }

// Prefix returns what the keys of all objects of a block begin with: <tenant>/<ulid>/.
func Prefix(tenant string, id ulid.ULID) string { return tenant + "/" + id.String() + "/" }

// SegmentName returns the name of the n-th file of chunks, counted from 1: chunks/000001.
func SegmentName(n int) string { return fmt.Sprintf("%s/%06d", chunksName, n) }

// ParseKey takes a key apart that Key has made. It reports false for keys that are not of a block.
func ParseKey(key string) (tenant string, id ulid.ULID, name string, ok bool) {
	tenant, rest, ok := strings.Cut(key, "/")
	folder, name, found := strings.Cut(rest, "/")
	if !ok || !found || tenant == "" || name == "" {
		return "", ulid.ULID{}, "", false
	}
	id, err := ulid.ParseStrict(folder)
	if err != nil || id.String() != folder {
		return "", ulid.ULID{}, "", false
	}
	return tenant, id, name, true
}

// ParseSegmentName reports whether name, relative to the block, is a file of chunks, and which one, counted from 1.
func ParseSegmentName(name string) (int, bool) {
	dir, file := path.Split(name)
	n, err := strconv.ParseUint(file, 10, 31)
	return int(n), err == nil && dir == chunksName+"/" && n > 0 && SegmentName(int(n)) == name
}
