// Package strictyaml decodes YAML that a person wrote into a struct of settings: a key that does not exist, a value
// that does not fit and a key given twice are errors that name the key's path, the line, the value and what would be
// right. It refuses nothing else; ranges are the business of whoever owns the struct. Read package tenant, limits.go,
// and cmd/duramen/app, config.go, for the two files that are read with it.
package strictyaml

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Decode reads one YAML document into the struct that into points to. Keys that the document does not have keep their
// values. All faults are returned together, joined, one line each.
func Decode(data []byte, into any) error {
	var doc, second yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("parse YAML: %w", err)
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		return fmt.Errorf("line %d: a second document begins, which would be ignored; keep one", second.Line)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("parse YAML: %w", err)
	}
	if len(doc.Content) == 0 {
		return nil
	}
	return DecodeNode(doc.Content[0], "", into)
}

// DecodeNode is Decode for a part of a document; path is where the part stands, such as "overrides.team-a".
func DecodeNode(node *yaml.Node, path string, into any) error {
	d := decoder{}
	d.value(node, path, reflect.ValueOf(into).Elem())
	return errors.Join(d.errs...)
}

type decoder struct{ errs []error }

func (d *decoder) fail(node *yaml.Node, path, format string, args ...any) {
	if path == "" {
		path = "document"
	}
	at := ""
	if node.Line > 0 { // else it was made and not read, as of a URL
		at = fmt.Sprintf("line %d: ", node.Line)
	}
	d.errs = append(d.errs, fmt.Errorf("%s%s: %w", at, path, fmt.Errorf(format, args...)))
}

func (d *decoder) value(node *yaml.Node, path string, v reflect.Value) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Tag == "!!null" { // "server:" with nothing below it: the defaults stand
		return
	}
	switch {
	case decodesItself(v):
		d.leaf(node, path, v)
	case v.Kind() == reflect.Struct:
		d.mapping(node, path, structFields(v))
	case v.Kind() == reflect.Map && v.Type().Elem().Kind() == reflect.Struct:
		d.entries(node, path, v)
	default:
		d.leaf(node, path, v)
	}
}

// decodesItself reports whether the type has its own way to read YAML.
func decodesItself(v reflect.Value) bool {
	switch v.Addr().Interface().(type) {
	case yaml.Unmarshaler, encoding.TextUnmarshaler, *yaml.Node:
		return true
	default:
		return false
	}
}

func (d *decoder) mapping(node *yaml.Node, path string, fields []field) {
	if node.Kind != yaml.MappingNode {
		d.fail(node, path, "%s is not a section; write its settings below it, as \"key: value\"", describe(node))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		at := join(path, key.Value)
		if seen[key.Value] {
			d.fail(key, at, "given twice; keep one")
			continue
		}
		seen[key.Value] = true
		if f, ok := lookup(fields, key.Value); ok {
			d.value(value, at, f)
			continue
		}
		d.fail(key, at, "unknown setting; %s", suggestion(key.Value, fields))
	}
}

func (d *decoder) entries(node *yaml.Node, path string, v reflect.Value) {
	if node.Kind != yaml.MappingNode {
		d.fail(node, path, "%s is not a mapping; write \"name: …\" below it", describe(node))
		return
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		at := join(path, key.Value)
		name := reflect.ValueOf(key.Value)
		if v.MapIndex(name).IsValid() {
			d.fail(key, at, "given twice; keep one")
			continue
		}
		entry := reflect.New(v.Type().Elem()).Elem()
		d.value(value, at, entry)
		v.SetMapIndex(name, entry)
	}
}

func (d *decoder) leaf(node *yaml.Node, path string, v reflect.Value) {
	fresh := reflect.New(v.Type())
	err := node.Decode(fresh.Interface())
	switch {
	case v.Type() == reflect.TypeFor[time.Duration]() && node.Kind == yaml.ScalarNode:
		var duration time.Duration // as flags read it, where a bare 0 is one
		duration, err = time.ParseDuration(node.Value)
		fresh.Elem().SetInt(int64(duration))
	case err == nil && v.CanInt() && node.ShortTag() == "!!float":
		err = errors.New("has a fraction or an exponent") // the YAML library would cut the fraction off
	}
	if err != nil {
		d.fail(node, path, "%s is not %s", describe(node), expected(v, err))
		return
	}
	v.Set(fresh.Elem())
}

// expected says in words what a value of v's type looks like.
func expected(v reflect.Value, err error) string {
	if v.Type() == reflect.TypeFor[time.Duration]() {
		return "a duration such as 30s, 5m or 3h"
	}
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number that is not negative"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.String:
		return "a text"
	case reflect.Slice:
		return "a list"
	default:
		return "right here: " + err.Error()
	}
}

// describe names the value as it stands in the file.
func describe(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "a section"
	case yaml.SequenceNode:
		return "a list"
	default:
		return fmt.Sprintf("%q", node.Value)
	}
}

type field struct {
	name  string
	value reflect.Value
}

// structFields lists the settings of a struct under their YAML names; those of inlined structs stand among them.
func structFields(v reflect.Value) []field {
	var fields []field
	for i := range v.NumField() {
		sf := v.Type().Field(i)
		name, options, _ := strings.Cut(sf.Tag.Get("yaml"), ",")
		switch {
		case !sf.IsExported() || name == "-":
		case options == "inline":
			fields = append(fields, structFields(v.Field(i))...)
		case name == "":
			fields = append(fields, field{strings.ToLower(sf.Name), v.Field(i)})
		default:
			fields = append(fields, field{name, v.Field(i)})
		}
	}
	return fields
}

func lookup(fields []field, name string) (reflect.Value, bool) {
	for _, f := range fields {
		if f.name == name {
			return f.value, true
		}
	}
	return reflect.Value{}, false
}

func suggestion(wrong string, fields []field) string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	if near := Nearest(wrong, names); near != "" {
		return fmt.Sprintf("did you mean %q?", near)
	}
	return "known here: " + strings.Join(names, ", ")
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
