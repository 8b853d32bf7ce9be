package block

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"strings"
)

// beyond returns the fields of the JSON object data, at any depth, that do not come out of known again. Arrays are
// taken as a whole.
func beyond(data []byte, known any) (map[string]any, error) {
	all, err := parseTree(data)
	if err != nil {
		return nil, err
	}
	ours, err := tree(known)
	if err != nil {
		return nil, err
	}
	return subtract(all, ours), nil
}

// tree returns v as json encodes it, decoded into maps.
func tree(v any) (map[string]any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	return parseTree(data)
}

func parseTree(data []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber() // a float64 would round the timestamps of others
	var t map[string]any
	if err := d.Decode(&t); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return t, nil
}

func subtract(all, known map[string]any) map[string]any {
	rest := map[string]any{}
	for name, v := range all {
		k, found := known[name]
		if !found {
			if !holdsFold(known, name) {
				rest[name] = v
			}
			continue
		}
		inner, ok := v.(map[string]any)
		innerKnown, okKnown := k.(map[string]any)
		if !ok || !okKnown {
			continue
		}
		if r := subtract(inner, innerKnown); len(r) > 0 {
			rest[name] = r
		}
	}
	return rest
}

// holdsFold reports whether a name was read as one of t's in spite of another case, as encoding/json does.
func holdsFold(t map[string]any, name string) bool {
	for k := range t {
		if strings.EqualFold(k, name) {
			return true
		}
	}
	return false
}

// merge lays known over unknown.
func merge(known, unknown map[string]any) map[string]any {
	merged := maps.Clone(known)
	for name, u := range unknown {
		k, found := merged[name]
		if !found {
			merged[name] = u
			continue
		}
		inner, ok := u.(map[string]any)
		innerKnown, okKnown := k.(map[string]any)
		if ok && okKnown {
			merged[name] = merge(innerKnown, inner)
		}
	}
	return merged
}
