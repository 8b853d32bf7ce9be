package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/duramendb/duramen/e2e/process"
)

// address is where a server shall listen. It implements flag.Value.
type address struct {
	host   string // with port
	chosen bool   // by the flag
}

func (a *address) String() string { return a.host }

func (a *address) Set(v string) error {
	if _, _, err := net.SplitHostPort(v); err != nil {
		return err
	}
	a.host, a.chosen = v, true
	return nil
}

// settle makes sure that nobody listens there. A default that is taken is replaced, a choice is not.
func (a *address) settle(server string, out io.Writer) error {
	err := tryListen(a.host)
	if err == nil {
		return nil
	}
	if a.chosen {
		return fmt.Errorf("%s cannot listen: %w", server, err)
	}
	port, err := process.FreePort()
	if err != nil {
		return err
	}
	taken := a.host
	a.host = "127.0.0.1:" + strconv.Itoa(port)
	fmt.Fprintf(out, "%s is taken by another process, %s uses %s.\n", taken, server, a.host)
	return nil
}

func tryListen(host string) error {
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", host)
	if err != nil {
		return err
	}
	return l.Close()
}
