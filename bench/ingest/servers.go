package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/duramendb/duramen/e2e/client"
	"github.com/duramendb/duramen/e2e/process"
)

// server says how to start a server below a directory and how to talk to it.
type server struct {
	spec   func(dir string) (process.Spec, error)
	client func(url string) *client.Client
}

func serverNames() []string {
	return []string{"duramen", "prometheus", "debian-prometheus", "victoria-metrics"}
}

// find returns the server of that name; missing says why there is none on this machine.
func find(ctx context.Context, name string) (s server, missing string, err error) {
	switch name {
	case "duramen":
		binary, err := process.Build(ctx, false)
		return server{
			spec:   func(dir string) (process.Spec, error) { return process.Duramen(binary, dir, "-log.level=warn") },
			client: func(url string) *client.Client { return client.Duramen(url, "") },
		}, "", err
	case "prometheus":
		binary, err := process.Tool("prometheus")
		if err != nil {
			return server{}, err.Error(), nil
		}
		return prometheus(binary), "", nil
	case "debian-prometheus":
		binary, err := exec.LookPath("/usr/bin/prometheus")
		if err != nil {
			return server{}, "the Debian package prometheus is not installed", nil //nolint:nilerr // it is optional
		}
		return prometheus(binary), "", nil
	case "victoria-metrics":
		binary, err := exec.LookPath("victoria-metrics")
		if err != nil {
			return server{}, "the Debian package victoria-metrics is not installed", nil //nolint:nilerr // it is optional
		}
		return victoriaMetrics(binary), "", nil
	default:
		return server{}, "", fmt.Errorf("server %q is unknown; one of %v", name, slices.Sorted(slices.Values(serverNames())))
	}
}

func prometheus(binary string) server {
	return server{
		spec: func(dir string) (process.Spec, error) {
			return process.Prometheus(binary, dir, "global: {}\n", "--web.enable-remote-write-receiver", "--log.level=warn")
		},
		client: client.Prometheus,
	}
}

func victoriaMetrics(binary string) server {
	return server{
		spec: func(dir string) (process.Spec, error) {
			port, err := process.FreePort()
			address := "127.0.0.1:" + strconv.Itoa(port)
			return process.Spec{
				Name: "victoria-metrics", Binary: binary, Dir: dir, URL: "http://" + address, Ready: "/health",
				Args: []string{"-storageDataPath=" + filepath.Join(dir, "data"), "-httpListenAddr=" + address, "-search.latencyOffset=0s"},
			}, err
		},
		client: client.Prometheus,
	}
}
