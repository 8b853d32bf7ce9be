package secret

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func TestASecretDoesNotShowItself(t *testing.T) {
	cfg := struct {
		Password Text `yaml:"password"`
		Unset    Text `yaml:"unset"`
	}{Password: "hunter2"}
	var out bytes.Buffer
	fmt.Fprintf(&out, "%v %+v %#v %s %q %x", cfg, cfg, cfg, cfg.Password, cfg.Password, cfg.Password)
	fmt.Fprintf(&out, "%d %t %X %10.3s", cfg.Password, cfg.Password, cfg.Password, cfg.Password)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("configuration", "secret", cfg.Password, "config", cfg)
	slog.New(slog.NewTextHandler(&out, nil)).Info("configuration", "secret", cfg.Password, "config", cfg)
	j, err := json.Marshal(cfg)
	require.NoError(t, err)
	y, err := yaml.Marshal(cfg)
	require.NoError(t, err)
	out.Write(j)
	out.Write(y)
	require.NotContains(t, out.String(), "hunter2")
	require.NotContains(t, out.String(), fmt.Sprintf("%x", "hunter2"))
	require.Contains(t, string(y), "password: "+Masked)
	require.Contains(t, string(y), `unset: ""`, "what is not set does not look as if it were")
}
