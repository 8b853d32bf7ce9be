package app

import (
	"bytes"
	_ "embed" // for the page's template
	"fmt"
	"html/template"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/duramendb/duramen/ingester"
	"github.com/duramendb/duramen/internal/secret"
)

//go:embed index.html
var indexHTML string

// indexPage is what the template sees.
type indexPage struct {
	Build    string
	Uptime   time.Duration
	NotReady string // empty when ready
	Routes   []indexRoute
	Roles    string
	Writes   bool // samples are taken here
	Tenants  []ingester.TenantStats
	Required bool
}

type indexRoute struct {
	Path, Methods, About string
	Link                 bool
}

// serveIndex answers / with a page that needs nothing but itself.
func (a *App) serveIndex(w http.ResponseWriter, r *http.Request) {
	page := indexPage{
		Build: a.build.Line("duramen"), Uptime: time.Since(a.began).Truncate(time.Second), Required: a.cfg.headerRequired(),
		Roles: strings.Join(a.cfg.roles(), ", "), Writes: a.distributor != nil,
	}
	if err := a.notReady(r.Context()); err != nil {
		page.NotReady = err.Error()
	}
	if a.ingester != nil && a.started.Load() {
		page.Tenants = a.ingester.TenantStats()
	}
	for _, route := range a.table {
		if route.about == "" {
			continue
		}
		page.Routes = append(page.Routes, indexRoute{
			Path: route.path, Methods: strings.Join(route.methods, ", "), About: route.about,
			Link: route.methods[0] == http.MethodGet && !route.tenanted,
		})
	}
	var b bytes.Buffer
	if err := indexTemplate(time.Now()).Execute(&b, page); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	_, _ = b.WriteTo(w) // the client is gone when this fails
}

func indexTemplate(now time.Time) *template.Template {
	return template.Must(template.New("index").Funcs(template.FuncMap{
		"ago": func(t time.Time) string {
			if t.IsZero() {
				return "–"
			}
			return max(0, now.Sub(t)).Truncate(time.Second).String() + " ago"
		},
		"time": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	}).Parse(indexHTML))
}

func (a *App) serveConfig(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_ = writeConfig(w, a.cfg) // the client is gone when this fails
}

// serveCmdline answers what pprof.Cmdline does, the arguments separated by zero bytes, without the secrets among them.
func serveCmdline(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	_, _ = io.WriteString(w, strings.Join(maskArgs(os.Args), "\x00")) // the client is gone when this fails
}

// maskArgs returns args with the value of each flag that is a secret replaced.
func maskArgs(args []string) []string {
	flags := newLayers().flags
	args = slices.Clone(args)
	for i, arg := range args {
		name, _, hasValue := strings.Cut(arg, "=")
		f := flags.Lookup(strings.TrimLeft(name, "-"))
		if f == nil || !strings.HasPrefix(name, "-") {
			continue
		}
		if _, isSecret := f.Value.(*secret.Text); !isSecret {
			continue
		}
		switch {
		case hasValue:
			args[i] = name + "=" + secret.Masked
		case i+1 < len(args):
			args[i+1] = secret.Masked
		}
	}
	return args
}

// serveLogLevel shows the level, or sets it to the parameter level.
func (a *App) serveLogLevel(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost || r.Method == http.MethodPut {
		level, err := parseLevel(r.FormValue("level"))
		if err != nil {
			http.Error(w, fmt.Sprintf("parameter level is %v", err), http.StatusBadRequest)
			return
		}
		if old := a.level.Level(); old != level {
			a.level.Set(level)
			a.log.Warn("log level changed", "from", levelName(old), "to", levelName(level))
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprintln(w, levelName(a.level.Level()))
}
