package app

import (
	_ "embed" // for the reference's introduction
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/duramendb/duramen/internal/secret"
)

// Setting is one thing that an operator may set, under its three names.
type Setting struct {
	Path, Flag, Env string
	Type, Default   string
	Help            string
}

// Settings lists every setting in the order of the configuration file.
func Settings() []Setting {
	l := newLayers()
	var settings []Setting
	walkSettings(reflect.ValueOf(l.cfg), "", func(path string, v reflect.Value) {
		name := strings.ReplaceAll(path, "_", "-")
		s := Setting{Path: path, Flag: name, Env: envName(name), Type: typeName(v), Default: defaultText(v)}
		if f := l.flags.Lookup(name); f != nil {
			s.Help = f.Usage
		}
		settings = append(settings, s)
	})
	return settings
}

// walkSettings calls fn for each field of v that is a setting, with its YAML path.
func walkSettings(v reflect.Value, path string, fn func(path string, v reflect.Value)) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
		if path != "" && options != "inline" {
			name = path + "." + name
		}
		switch {
		case strings.HasSuffix(name, "-"):
		case options == "inline":
			walkSettings(v.Field(i), path, fn)
		case field.Type.Kind() == reflect.Struct && field.Type != reflect.TypeFor[autoBool]():
			walkSettings(v.Field(i), name, fn)
		default:
			fn(name, v.Field(i))
		}
	}
}

func typeName(v reflect.Value) string {
	switch v.Type() {
	case reflect.TypeFor[time.Duration]():
		return "duration"
	case reflect.TypeFor[secret.Text]():
		return "secret text"
	case reflect.TypeFor[autoBool]():
		return "true, false or auto"
	}
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "list"
	case reflect.String:
		return "text"
	case reflect.Float64:
		return "number"
	default:
		return "whole number"
	}
}

func defaultText(v reflect.Value) string {
	switch {
	case v.Kind() == reflect.Slice || v.Type() == reflect.TypeFor[autoBool]():
		return fmt.Sprint(v.Interface())
	case v.Kind() == reflect.String && v.Len() == 0:
		return `""`
	case v.Type() == reflect.TypeFor[time.Duration]():
		return shortDuration(v.Interface().(time.Duration))
	default:
		return fmt.Sprint(v.Interface())
	}
}

// shortDuration drops the zeros that time.Duration prints: 3h, not 3h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// WriteHelp writes what -h answers.
func WriteHelp(w io.Writer) error {
	var b strings.Builder
	b.WriteString("Duramen stores Prometheus metrics for years, for many tenants, on object storage.\n\n" +
		"Usage: duramen [flags]\n\nWithout flags it runs everything in one process, on port 9009, with its data in " +
		"./data.\nA setting may be given as a flag, as an environment variable or in a YAML file, in this order of " +
		"precedence.\n\n")
	l := newLayers()
	for _, name := range append([]string{"config.file"}, notSettings()...) {
		if name == "help" {
			continue
		}
		fmt.Fprintf(&b, "  -%s\n        %s\n", name, l.flags.Lookup(name).Usage)
	}
	b.WriteByte('\n')
	for _, s := range Settings() {
		fmt.Fprintf(&b, "  -%s  (%s, default %s)\n        %s\n", s.Flag, s.Type, s.Default, s.Help)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteReference writes docs/configuration.md.
func WriteReference(w io.Writer) error {
	var b strings.Builder
	b.WriteString(referenceIntro)
	l := newLayers()
	for _, name := range append([]string{"config.file"}, notSettings()...) {
		if !slices.Contains([]string{"help", "config.reference", "metrics.reference"}, name) {
			fmt.Fprintf(&b, "| `-%s` | %s |\n", name, l.flags.Lookup(name).Usage)
		}
	}
	section := "\x00"
	for _, s := range Settings() {
		if next := sectionOf(s.Path); next != section {
			section = next
			writeSectionHead(&b, section)
		}
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s |\n", s.Path, s.Type, s.Default, escapeCell(s.Help))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

//go:embed reference.md
var referenceIntro string

func sectionOf(path string) string {
	section, _, nested := strings.Cut(path, ".")
	if !nested {
		return ""
	}
	return section
}

func writeSectionHead(b *strings.Builder, section string) {
	title := "`" + section + "`"
	if section == "" {
		title = "Top level"
	}
	fmt.Fprintf(b, "\n## %s\n\n| setting | type | default | meaning |\n|---|---|---|---|\n", title)
}

func escapeCell(s string) string {
	return strings.NewReplacer("|", `\|`, "<", "&lt;", ">", "&gt;").Replace(s)
}
