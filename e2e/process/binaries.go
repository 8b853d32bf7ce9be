package process

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/duramendb/duramen/internal/checkout"
)

// Build builds cmd/duramen into bin/e2e and returns the binary's path. Go does nothing when it is up to date.
func Build(ctx context.Context, race bool) (string, error) { return BuildCommand(ctx, "duramen", race) }

// BuildCommand is Build for any folder of cmd.
func BuildCommand(ctx context.Context, name string, race bool) (string, error) {
	root, err := checkout.Top()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(root, "bin", "e2e", name)
	args := []string{"build"}
	if race {
		binary += "-race"
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "-o", binary, "./cmd/"+name)...)
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build cmd/%s: %w\n%s", name, err, out)
	}
	return binary, nil
}

// Tool returns the path of a tool that `make tools` has built.
func Tool(name string) (string, error) {
	root, err := checkout.Top()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, "bin", name)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: run `make tools`", err)
	}
	return path, nil
}

// Duramen is one node on a free port of loopback, with its data below dir. Later arguments win over earlier ones.
func Duramen(binary, dir string, args ...string) (Spec, error) {
	port, err := FreePort()
	if err != nil {
		return Spec{}, err
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	return Spec{
		Name: "duramen", Binary: binary, Dir: dir, URL: "http://" + address, Ready: "/ready",
		Args: append([]string{
			"-data-dir=" + filepath.Join(dir, "data"), "-server.http-listen-address=" + address,
			"-server.grpc-listen-address=127.0.0.1:0",
		}, args...),
	}, nil
}

// Self stands for the server's own host:port in the configuration of Prometheus.
const Self = "SELF_ADDRESS"

// Prometheus is a Prometheus server on a free port of loopback, with its data below dir and the given configuration.
func Prometheus(binary, dir, config string, args ...string) (Spec, error) {
	port, err := FreePort()
	if err != nil {
		return Spec{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Spec{}, err
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(config, Self, address)), 0o644); err != nil {
		return Spec{}, err
	}
	return Spec{
		Name: "prometheus", Binary: binary, Dir: dir, URL: "http://" + address, Ready: "/-/ready",
		Args: append([]string{
			"--config.file=" + file, "--storage.tsdb.path=" + filepath.Join(dir, "data"), "--web.listen-address=" + address,
		}, args...),
	}, nil
}
