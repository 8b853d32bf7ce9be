package bucket

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxKeyBytes is the limit of S3.
const maxKeyBytes = 1024

// ValidateKey says whether key may name an object on every backend: 1 to 1024 bytes of UTF-8 without control
// characters, segments separated by single slashes, none of them empty, "." or "..". The error wraps ErrInvalidKey.
func ValidateKey(key string) error {
	if key == "" {
		return fmt.Errorf("%w: it is empty", ErrInvalidKey)
	}
	if err := validateText(key); err != nil {
		return err
	}
	for segment := range strings.SplitSeq(key, "/") {
		if err := validateSegment(key, segment); err != nil {
			return err
		}
	}
	return nil
}

// validatePrefix is ValidateKey for the prefix of a listing, whose last segment may be empty or cut anywhere.
func validatePrefix(prefix string) error {
	if err := validateText(prefix); err != nil {
		return err
	}
	dir, _ := splitPrefix(prefix)
	if dir == "" {
		if strings.HasPrefix(prefix, "/") {
			return fmt.Errorf("%w %q: it begins with a slash", ErrInvalidKey, prefix)
		}
		return nil
	}
	return ValidateKey(dir)
}

// splitPrefix cuts a prefix at its last slash: the folder, without the slash, and the beginning of a name in it.
func splitPrefix(prefix string) (dir, name string) {
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		return prefix[:i], prefix[i+1:]
	}
	return "", prefix
}

func validateText(key string) error {
	if len(key) > maxKeyBytes {
		return fmt.Errorf("%w: it has %d bytes; at most %d are allowed", ErrInvalidKey, len(key), maxKeyBytes)
	}
	if !utf8.ValidString(key) {
		return fmt.Errorf("%w %q: it is not UTF-8", ErrInvalidKey, key)
	}
	for i := range len(key) {
		if key[i] < ' ' || key[i] == 0x7f {
			return fmt.Errorf("%w %q: it has a control character at byte %d", ErrInvalidKey, key, i)
		}
	}
	return nil
}

func validateSegment(key, segment string) error {
	switch segment {
	case "":
		return fmt.Errorf("%w %q: it has an empty segment", ErrInvalidKey, key)
	case ".", "..":
		return fmt.Errorf("%w %q: it has the segment %q", ErrInvalidKey, key, segment)
	default:
		return nil
	}
}
