package strictyaml

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

type inner struct {
	Window  time.Duration `yaml:"window"`
	Enabled bool          `yaml:"enabled"`
}

type shared struct {
	MaxSeries int `yaml:"max_series"`
}

type settings struct {
	shared `yaml:"-"`
	Shared shared               `yaml:",inline"`
	Inner  inner                `yaml:"inner"`
	Rate   float64              `yaml:"rate"`
	Names  []string             `yaml:"names"`
	Raw    map[string]yaml.Node `yaml:"raw"`
	Hidden int                  `yaml:"-"`
}

func TestDecodeKeepsWhatTheDocumentLeavesOut(t *testing.T) {
	s := settings{Rate: 2, Inner: inner{Enabled: true}}
	require.NoError(t, Decode([]byte("max_series: 7\ninner:\n  window: 3h\nnames: [a, b]\nraw: {t: {x: 1}}\n"), &s))
	require.Equal(t, 7, s.Shared.MaxSeries)
	require.Equal(t, 3*time.Hour, s.Inner.Window)
	require.True(t, s.Inner.Enabled)
	require.InDelta(t, 2.0, s.Rate, 0)
	require.Equal(t, []string{"a", "b"}, s.Names)
	require.Contains(t, s.Raw, "t")

	require.NoError(t, Decode([]byte("inner: {window: 0}"), &settings{}), "a bare 0 is a duration, as in a flag")
	for _, empty := range []string{"", "# nothing\n", "inner:\n", "---\n"} {
		require.NoError(t, Decode([]byte(empty), &s), "%q", empty)
	}
	require.Equal(t, 3*time.Hour, s.Inner.Window)
}

func TestDecodeSaysWhatIsWrongAndWhatWouldBeRight(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"unknown key", "max_serie: 7", `line 1: max_serie: unknown setting; did you mean "max_series"?`},
		{"dashes", "max-series: 7", `did you mean "max_series"?`},
		{"far from all", "inner: {zzz: 1}", "line 1: inner.zzz: unknown setting; known here: window, enabled"},
		{"hidden field", "hidden: 1", "unknown setting"},
		{"text for a number", "rate: 1\nmax_series: many", `line 2: max_series: "many" is not a whole number`},
		{"fraction for a whole number", "max_series: 1.5", `"1.5" is not a whole number`},
		{"number for a duration", "inner: {window: 3}", `inner.window: "3" is not a duration such as 30s, 5m or 3h`},
		{"text for a switch", "inner: {enabled: perhaps}", `inner.enabled: "perhaps" is not true or false`},
		{"value for a section", "inner: 3h", `inner: "3h" is not a section`},
		{"list for a number", "rate: [1]", "rate: a list is not a number"},
		{"value for a map", "raw: 3", `raw: "3" is not a mapping`},
		{"twice", "rate: 1\nrate: 2", "line 2: rate: given twice"},
		{"twice in a map", "raw: {a: {}, a: {}}", "raw.a: given twice"},
		{"no mapping at all", "just words", `document: "just words" is not a section`},
		{"broken", "inner: {", "parse YAML: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.ErrorContains(t, Decode([]byte(tc.in), &settings{}), tc.want)
		})
	}
}

func TestDecodeReportsAllFaults(t *testing.T) {
	err := Decode([]byte("rate: x\nmax_series: y\n"), &settings{})
	require.ErrorContains(t, err, "rate")
	require.ErrorContains(t, err, "max_series")
}

func TestNearest(t *testing.T) {
	names := []string{"http_listen_address", "grpc_listen_address", "target"}
	require.Equal(t, "http_listen_address", Nearest("http_listen_adress", names))
	require.Equal(t, "target", Nearest("Targets", names))
	require.Empty(t, Nearest("bucket", names))
	require.Empty(t, Nearest("", names))
}

// FuzzDecode: whatever a person writes, the answer is a value or an error.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{"max_series: 7", "a: &a {b: *a}", "inner: *x", "? [a]\n: b", "raw: {a: 1}", "<<: {rate: 1}"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(_ *testing.T, data []byte) { _ = Decode(data, &settings{}) })
}

func TestDecodeRefusesASecondDocument(t *testing.T) {
	var into struct {
		A string `yaml:"a"`
	}
	for text, want := range map[string]string{
		"a: x\n---\na: y\n": "line 2: a second document begins",
		"a: x\n---\na: [\n": "parse YAML",
		"---\na: x\n":       "",
		"a: x\n...\n":       "",
		"":                  "",
		"# nothing\n":       "",
	} {
		err := Decode([]byte(text), &into)
		if want == "" {
			require.NoError(t, err, text)
			continue
		}
		require.ErrorContains(t, err, want)
	}
}
