package manifest

import (
	"fmt"
	"strconv"
	"strings"
)

// versionDigits makes the order of the keys that of the versions; 20 digits hold any uint64.
const versionDigits = 20

// Prefix returns what the keys of all manifest versions of a tenant begin with.
func Prefix(tenantID string) string { return tenantID + "/duramen/manifest/" }

// Key returns the key of one manifest version.
func Key(tenantID string, version uint64) string {
	return fmt.Sprintf("%s%0*d", Prefix(tenantID), versionDigits, version)
}

// ParseKey returns the version that a key under Prefix is of; false for anything else that lies there.
func ParseKey(tenantID, key string) (uint64, bool) {
	name, ok := strings.CutPrefix(key, Prefix(tenantID))
	if !ok || len(name) != versionDigits {
		return 0, false
	}
	version, err := strconv.ParseUint(name, 10, 64)
	return version, err == nil && version > 0 && Key(tenantID, version) == key
}
