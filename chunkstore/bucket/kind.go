package bucket

import "strings"

// kind is what an object is for, as far as its key tells. It stands in metrics only.
type kind uint8

// The kinds. Their names are the values of the label kind.
const (
	kindMeta     kind = iota // meta.json of a block
	kindIndex                // index of a block
	kindChunks               // a segment of chunks
	kindManifest             // a version of a manifest
	kindSidecar              // duramen.idx of a block
	kindMarker               // a mark that a block or tenant is to be deleted or left alone, ours or a peer's
	kindOther
	numKinds
)

var kindNames = [numKinds]string{"meta", "index", "chunks", "manifest", "sidecar", "marker", "other"}

// classify returns the tenant to which a key, or the prefix of a listing, belongs, empty for none, and its kind. The
// tenant is a part of key. It allocates nothing.
func classify(key string) (tenantID string, _ kind) {
	tenantID, rest, found := strings.Cut(key, "/")
	switch {
	case !found, strings.HasPrefix(tenantID, "~"): // what belongs to no tenant
		return "", kindOther
	case tenantID == "__markers__": // where Cortex and Mimir mark tenants
		tenantID, _, _ = strings.Cut(rest, "/")
		return tenantID, kindMarker
	}
	folder, name, _ := strings.Cut(rest, "/")
	switch {
	case folder == "markers", strings.HasSuffix(name, "-mark.json"):
		return tenantID, kindMarker
	case folder == "duramen" && strings.HasPrefix(name, "manifest/"):
		return tenantID, kindManifest
	case name == "meta.json":
		return tenantID, kindMeta
	case name == "index":
		return tenantID, kindIndex
	case name == "duramen.idx":
		return tenantID, kindSidecar
	case strings.HasPrefix(name, "chunks/"):
		return tenantID, kindChunks
	default:
		return tenantID, kindOther
	}
}

// classifyAll is classify of several keys: tenant and kind are those that all have, none and other when they differ.
func classifyAll(keys []string) (tenantID string, k kind) {
	if len(keys) == 0 {
		return "", kindOther
	}
	tenantID, k = classify(keys[0])
	for _, key := range keys[1:] {
		t, other := classify(key)
		if t != tenantID {
			tenantID = ""
		}
		if other != k {
			k = kindOther
		}
	}
	return tenantID, k
}
