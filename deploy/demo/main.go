// Command demo shows Duramen at work: it starts a node and a real Prometheus that scrapes both and writes to it, waits until
// a query finds the samples, says where to look, and stops both on Ctrl-C. It needs nothing but what `make demo` builds, and
// leaves nothing behind. Read docs/getting-started.md next for how to run Duramen without it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/duramendb/duramen/internal/checkout"
)

const sameSignal = time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the demo at once, and the kernel ends its servers with it. One that comes with the first is the
	// same, sent to the process and to its group.
	context.AfterFunc(ctx, func() { time.AfterFunc(sameSignal, stop) })
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// settings are the flags.
type settings struct {
	root, binaries      string
	duramen, prometheus address
	dir                 string
}

func parse(args []string) (settings, error) {
	s := settings{
		duramen: address{host: "127.0.0.1:9009"}, prometheus: address{host: "127.0.0.1:9090"},
	}
	root, err := checkout.Top()
	if err != nil {
		return s, err
	}
	s.root = root
	f := flag.NewFlagSet("demo", flag.ContinueOnError)
	f.StringVar(&s.binaries, "bin", root+"/bin", "folder of the binaries duramen and prometheus")
	f.Var(&s.duramen, "duramen", "host:port of Duramen; without the flag a taken port is replaced by a free one")
	f.Var(&s.prometheus, "prometheus", "host:port of Prometheus; without the flag a taken port is replaced by a free one")
	f.StringVar(&s.dir, "dir", "", "folder for the data, which stays; without the flag it is a temporary one that goes at the end")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	if f.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	return s, nil
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	s, err := parse(args)
	if err != nil {
		return err
	}
	for _, a := range []struct {
		of   string
		what *address
	}{{"Duramen", &s.duramen}, {"Prometheus", &s.prometheus}} {
		if err := a.what.settle(a.of, out); err != nil {
			return err
		}
	}
	kept := s.dir != ""
	if !kept {
		if s.dir, err = os.MkdirTemp("", "duramen-demo-*"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(s.dir)) }()
	}
	d := &demo{settings: s, out: out}
	defer func() { err = errors.Join(err, d.stop()) }() // before the folder goes
	if err := d.start(ctx); err != nil {
		return interrupted(ctx, err)
	}
	if err := d.show(ctx, kept); err != nil {
		return interrupted(ctx, err)
	}
	return d.wait(ctx)
}

// interrupted returns nil instead of an error that is due to the signal.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
