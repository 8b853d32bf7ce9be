package structure

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// The limits are generous: 120 is the aim, a table, a help text or a URL may need more.
const (
	maxLine     = 160
	maxTestLine = 220
)

// maxFile is where a second idea has surely arrived.
const maxFile = 900

// files calls fn for every file that git would track, by its path from the root.
func files(t *testing.T, fn func(path string, data []byte)) {
	t.Helper()
	list := exec.Command("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
	list.Dir = root
	out, err := list.Output()
	var paths []string
	if err == nil {
		paths = strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	} else {
		paths = walk(t) // a source archive without git
	}
	for _, path := range paths {
		data, err := os.ReadFile(filepath.Join(root, path))
		if os.IsNotExist(err) {
			continue
		}
		require.NoError(t, err)
		fn(filepath.ToSlash(path), data)
	}
}

func walk(t *testing.T) []string {
	t.Helper()
	var paths []string
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if d.IsDir() && slices.Contains([]string{".git", "bin", "data", "dist"}, rel) {
			return fs.SkipDir
		}
		if !d.IsDir() {
			paths = append(paths, rel)
		}
		return err
	}))
	return paths
}

func generated(data []byte) bool {
	head := data[:min(len(data), 500)]
	return bytes.Contains(head, []byte("Code generated ")) && bytes.Contains(head, []byte("DO NOT EDIT."))
}

func TestLinesAndFilesStayShort(t *testing.T) {
	files(t, func(path string, data []byte) {
		if !strings.HasSuffix(path, ".go") || generated(data) {
			return
		}
		n, limit := 0, maxLine
		if strings.HasSuffix(path, "_test.go") {
			limit = maxTestLine
		}
		for line := range strings.Lines(string(data)) {
			n++
			width := utf8.RuneCountInString(strings.ReplaceAll(strings.TrimRight(line, "\n"), "\t", "    "))
			if width > limit {
				t.Errorf("%s:%d has %d characters; %d are enough", path, n, width, limit)
			}
		}
		if n > maxFile {
			t.Errorf("%s has %d lines; give its second idea a file", path, n)
		}
	})
}

// TestNothingRegistersItself: no init functions, no metrics or flags in a global registry. Whoever builds a component
// passes in what it registers with, so that two instances fit into one process.
func TestNothingRegistersItself(t *testing.T) {
	forbidden := map[string][]string{
		"prometheus": {"MustRegister", "Register", "DefaultRegisterer", "DefaultGatherer"},
		"flag":       {"Parse", "String", "Bool", "Int", "Duration", "StringVar", "BoolVar", "IntVar", "DurationVar", "Var", "CommandLine"},
		"slog":       {"SetDefault", "Default"},
		"http":       {"Handle", "HandleFunc", "DefaultServeMux"},
	}
	promauto := map[string]bool{
		"NewCounter": true, "NewCounterVec": true, "NewGauge": true, "NewGaugeVec": true, "NewHistogram": true,
		"NewHistogramVec": true, "NewGaugeFunc": true, "NewCounterFunc": true, "NewSummary": true,
	}
	files(t, func(path string, data []byte) {
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || generated(data) {
			return
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, data, parser.SkipObjectResolution)
		require.NoError(t, err)
		if file.Name.Name == "main" {
			return
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil && n.Name.Name == "init" {
					t.Errorf("%s: an init function", fset.Position(n.Pos()))
				}
			case *ast.SelectorExpr:
				pkg, ok := n.X.(*ast.Ident)
				if !ok {
					return true
				}
				global := slices.Contains(forbidden[pkg.Name], n.Sel.Name) || pkg.Name == "promauto" && promauto[n.Sel.Name]
				if global && imports(file, pkg.Name) {
					t.Errorf("%s: %s.%s is global", fset.Position(n.Pos()), pkg.Name, n.Sel.Name)
				}
			}
			return true
		})
	})
}

// imports reports whether name is an imported package in the file rather than a variable of that name.
func imports(file *ast.File, name string) bool {
	return slices.ContainsFunc(file.Imports, func(s *ast.ImportSpec) bool {
		path := strings.Trim(s.Path.Value, `"`)
		return s.Name == nil && path[strings.LastIndexByte(path, '/')+1:] == name
	})
}

// TestNoPathsOfOneMachine keeps the places where somebody worked out of the repository.
func TestNoPathsOfOneMachine(t *testing.T) {
	// Assembled, so that this file passes its own test.
	places := []string{"/wo" + "rk/", "/ro" + "ot/", "/ho" + "me/", "/Us" + "ers/"}
	files(t, func(path string, data []byte) {
		if !utf8.Valid(data) {
			return
		}
		for _, place := range places {
			for i := 0; ; {
				at := bytes.Index(data[i:], []byte(place))
				if at < 0 {
					break
				}
				i += at + len(place)
				// "…/network/" is a word, not a place.
				before := byte(' ')
				if i > len(place) {
					before = data[i-len(place)-1]
				}
				inner := before >= 'a' && before <= 'z' || before >= 'A' && before <= 'Z' || before >= '0' && before <= '9' ||
					strings.IndexByte("._-}/", before) >= 0
				if !inner {
					t.Errorf("%s names %s at byte %d", path, place, i-len(place))
				}
			}
		}
	})
}
