package structure

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/duramendb/duramen"

// root is the repository's top folder as seen from this package, in which go test runs.
const root = "../.."

// goPackage is what `go list -json` says of a package.
type goPackage struct {
	ImportPath   string
	Dir          string
	Name         string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// path is the import path below the module, "" for the module itself.
func (p *goPackage) path() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

func ownPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	require.NoError(t, err, stderr.String())
	var packages []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		packages = append(packages, p)
	}
	require.NotEmpty(t, packages)
	return packages
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	for _, p := range ownPackages(t) {
		if len(p.GoFiles) == 0 {
			continue // tests only: nobody imports it
		}
		doc := packageDoc(t, p)
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command " + filepath.Base(p.Dir) + " "
		}
		if !strings.HasPrefix(doc, want) {
			t.Errorf("%s: the doc comment begins with %q", p.ImportPath, want)
		}
		if strings.Count(doc+" ", ". ") < 2 || len(doc) < 120 {
			t.Errorf("%s: say what it owns, what it refuses and what to read next: %s", p.ImportPath, doc)
		}
	}
}

// packageDoc returns the package's doc comment in one line. go list gives its first sentence only.
func packageDoc(t *testing.T, p goPackage) string {
	t.Helper()
	var doc strings.Builder
	for _, name := range p.GoFiles {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.PackageClauseOnly|parser.ParseComments)
		require.NoError(t, err)
		doc.WriteString(file.Doc.Text())
	}
	return strings.Join(strings.Fields(doc.String()), " ")
}

// services do not import one another; they meet through duramenpb and small interfaces.
var services = []string{"distributor", "ingester", "querier", "frontend", "compactor", "ruler", "chunkstore/gateway"}

// layers are the folders from top to bottom. A package imports only from its own folder and from lower layers.
var layers = [][]string{
	{"bench", "deploy"},
	{"e2e"},
	{"cmd"},
	services,
	{"ring", "chunkstore"},
	{"tenant"},
	{"internal"},
	{"duramenpb"},
}

// place returns the layer of a package and its folder in it.
func place(path string) (layer int, folder string, ok bool) {
	best := -1
	for i, folders := range layers {
		for _, f := range folders {
			if (path == f || strings.HasPrefix(path, f+"/")) && len(f) > best {
				best, layer, folder, ok = len(f), i, f, true
			}
		}
	}
	return layer, folder, ok
}

func TestImportsPointDownward(t *testing.T) {
	for _, p := range ownPackages(t) {
		layer, folder, ok := place(p.path())
		require.True(t, ok, "%s is in no layer: add its folder to the layers of this test", p.ImportPath)
		for _, imported := range p.Imports {
			if !strings.HasPrefix(imported, module+"/") {
				continue
			}
			below, other, known := place(strings.TrimPrefix(imported, module+"/"))
			require.True(t, known, "%s imports %s, which is in no layer", p.ImportPath, imported)
			if layer >= below && folder != other {
				t.Errorf("%s imports %s: imports point downward, and services do not import one another", p.ImportPath, imported)
			}
		}
	}
}

// TestTestsImportNoOtherService: a component's tests use real neighbours below it and fakes beside it; what needs two
// services is a story for cmd or e2e.
func TestTestsImportNoOtherService(t *testing.T) {
	for _, p := range ownPackages(t) {
		_, folder, _ := place(p.path())
		if !slices.Contains(services, folder) {
			continue
		}
		for _, imported := range slices.Concat(p.TestImports, p.XTestImports) {
			_, other, known := place(strings.TrimPrefix(imported, module+"/"))
			if known && strings.HasPrefix(imported, module+"/") && slices.Contains(services, other) {
				if folder != other {
					t.Errorf("tests of %s import %s", p.ImportPath, imported)
				}
			}
		}
	}
}

func TestModuleHasNoReplace(t *testing.T) {
	for _, name := range []string{"go.mod", "tools/go.mod"} {
		data, err := os.ReadFile(filepath.Join(root, name))
		require.NoError(t, err)
		for line := range strings.Lines(string(data)) {
			require.False(t, strings.HasPrefix(line, "replace"), "%s: %s: `go install` refuses such modules", name, line)
		}
	}
}
