package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

func writeFile(t *testing.T, content string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "duramen.yaml")
	require.NoError(t, os.WriteFile(name, []byte(content), 0o600))
	return name
}

func TestWithoutAnythingTheDefaultsRun(t *testing.T) {
	cmd, err := Parse(nil, []string{"PATH=/bin", "DURAMEN_LOG_LEVEL="})
	require.NoError(t, err)
	require.Equal(t, Run, cmd.Action)
	require.Equal(t, DefaultConfig(), cmd.Config)
	require.Equal(t, "./data", cmd.Config.DataDir)
	require.Equal(t, ":9009", cmd.Config.Server.HTTPListenAddress)
	require.Equal(t, ":9095", cmd.Config.Server.GRPCListenAddress)
	require.Equal(t, "data/bucket", cmd.Config.bucketDir())
	require.Empty(t, cmd.Config.Bucket.Filesystem.Directory)
}

func TestPrecedence(t *testing.T) {
	file := writeFile(t, "log: {level: warn}\ndata_dir: from-file\n")
	for _, tc := range []struct {
		name, want string
		args, env  []string
	}{
		{"default", "info", nil, nil},
		{"file", "warn", []string{"-config.file", file}, nil},
		{"environment before file", "error", []string{"--config.file=" + file}, []string{"DURAMEN_LOG_LEVEL=error"}},
		{"flag before environment", "debug", []string{"-log.level", "debug"}, []string{"DURAMEN_LOG_LEVEL=error"}},
		{
			"flag before all", "debug",
			[]string{"-log.level=debug", "-config.file=" + file},
			[]string{"DURAMEN_LOG_LEVEL=error"},
		},
		{"file named by the environment", "warn", nil, []string{"DURAMEN_CONFIG_FILE=" + file}},
		{"a flag that says the default", "info", []string{"-log.level=info", "-config.file=" + file}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cmd, err := Parse(tc.args, tc.env)
			require.NoError(t, err)
			require.Equal(t, tc.want, cmd.Config.Log.Level)
		})
	}
}

// TestEverySettingHasThreeNames gives each setting a value in the file, in the environment and as a flag, and expects
// the same configuration.
func TestEverySettingHasThreeNames(t *testing.T) {
	special := map[string]string{
		"target": "all", "bucket.backend": "filesystem", "server.http_listen_address": "127.0.0.1:1",
		"server.grpc_listen_address": "127.0.0.1:2", "memberlist.bind_address": "127.0.0.1:3", "log.level": "debug",
		"log.format": "json", "ingester.wal_sync": "commit", "ingester.wal_compression": "zstd",
		"ingester.idle_timeout": "2h", "ingester.block_retention": "13h", "memberlist.join": "a:7946",
		"tracing.otlp_endpoint": "localhost:4317", "tracing.otlp_headers": "a=b", "tracing.sample_ratio": "0.5",
		"chunkstore.disk_cache.max_bytes": "16777216", "chunkstore.memory.directories_share": "0.06",
		"chunkstore.memory.pages_share": "0.06", "chunkstore.memory.chunks_share": "0.06", "chunkstore.memory.query_share": "0.06",
		"querier.store_gateway_addresses":    "a:1",
		"querier.memory_share":               "0.06",
		"memberlist.encryption_keys":         "MDEyMzQ1Njc4OWFiY2RlZg==",
		"ring.replication_factor":            "5",
		"ring.instance_addr":                 "a:9095",
		"grpc_client.silence_timeout":        "7s",
		"ingester_client.max_inflight_bytes": "2097152",
		"ingester_server.push_buffer_bytes":  "2097152",
		"replicate.push_timeout":             "7s",
		"compactor.max_index_bytes":          "2097152",
		"compactor.max_symbol_bytes":         "2097152",
	}
	values := map[string]string{
		"true, false or auto": "true", "duration": "77s", "number": "7.5", "true or false": "true", "text": "x", "secret text": "x",
		"whole number": "2049", // small enough for a port, large enough for a size
	}
	for _, s := range Settings() {
		t.Run(s.Path, func(t *testing.T) {
			require.NotEmpty(t, s.Help, "no flag -%s or no help", s.Flag)
			require.LessOrEqual(t, strings.ToLower(s.Flag), s.Flag)
			value, ok := special[s.Path]
			if !ok {
				value = values[s.Type]
			}
			if s.Path == "distributor.max_inflight_bytes" {
				value = "2097152"
			}
			if strings.Contains(s.Path, "tls.") {
				return // they go together: see TestSettingsOfTLS
			}
			path := strings.Split(s.Path, ".")
			content := strings.Repeat("}", len(path)-1)
			inFile := value
			if s.Type == "list" {
				inFile = "[" + value + "]"
			}
			content = strings.Join(path, ": {") + ": " + inFile + content
			var others []string
			if s.Path == "memberlist.join" || s.Path == "ring.replication_factor" {
				others = []string{"-bucket.filesystem.directory=shared"}
			}
			fromFile, err := Parse(append(others, "-config.file", writeFile(t, content)), nil)
			require.NoError(t, err)
			fromEnv, err := Parse(others, []string{s.Env + "=" + value})
			require.NoError(t, err)
			fromFlag, err := Parse(append(others, "-"+s.Flag+"="+value), nil)
			require.NoError(t, err)
			require.Equal(t, fromFile, fromEnv)
			require.Equal(t, fromFile, fromFlag)
			if s.Default != value {
				require.NotEqual(t, DefaultConfig(), fromFile.Config, "the value has no effect")
			}
		})
	}
}

func TestEveryFlagIsASetting(t *testing.T) {
	flags := map[string]bool{"config.file": true}
	for _, s := range Settings() {
		flags[s.Flag] = true
	}
	for _, name := range notSettings() {
		flags[name] = true
	}
	for _, name := range newLayers().flagNames() {
		require.True(t, flags[name], "-%s has no place in the configuration file", name)
	}
}

func TestNamesThatScriptsRelyOn(t *testing.T) {
	l := newLayers()
	for _, name := range []string{
		"config.file", "config.check", "config.print", "version", "target", "data-dir", "server.http-listen-address",
		"server.grpc-listen-address", "memberlist.bind-address", "memberlist.advertise-address", "memberlist.cluster-label", "ring.instance-id", "ring.instance-zone",
		"ring.replication-factor", "memberlist.join",
		"bucket.backend", "bucket.filesystem.directory", "bucket.single-writer", "bucket.s3.bucket-name",
		"bucket.s3.endpoint", "bucket.s3.access-key-id", "bucket.s3.secret-access-key", "log.level",
	} {
		require.NotNil(t, l.flags.Lookup(name), name)
	}
}

func TestWrongSettings(t *testing.T) {
	for _, tc := range []struct {
		name, file string
		args, env  []string
		want       []string
	}{
		{
			name: "unknown flag", args: []string{"-log.levle=info"},
			want: []string{"-log.levle: unknown flag; did you mean -log.level?"},
		},
		{
			name: "unknown flag with a value", args: []string{"-zzz", "7"},
			want: []string{"-zzz: unknown flag", "duramen -h"},
		},
		{
			name: "unknown setting", file: "server: {http_listen_adress: \":1\"}",
			want: []string{"line 1: server.http_listen_adress: unknown setting", `did you mean "http_listen_address"?`},
		},
		{
			name: "unknown variable", env: []string{"DURAMEN_LOG_LEVLE=info"},
			want: []string{"DURAMEN_LOG_LEVLE: unknown environment variable; did you mean DURAMEN_LOG_LEVEL?"},
		},
		{
			name: "flag not a number", args: []string{"-limits.max-series=many"},
			want: []string{`-limits.max-series is "many"; use a whole number`},
		},
		{
			name: "variable not a duration", env: []string{"DURAMEN_LIMITS_OUT_OF_ORDER_WINDOW=3"},
			want: []string{`DURAMEN_LIMITS_OUT_OF_ORDER_WINDOW is "3"; use a duration such as`},
		},
		{
			name: "file not a duration", file: "limits: {out_of_order_window: 3}",
			want: []string{`limits.out_of_order_window: "3" is not a duration`},
		},
		{
			name: "value missing", args: []string{"-data-dir"},
			want: []string{"-data-dir: a value is missing; use a text"},
		},
		{name: "argument", args: []string{"run"}, want: []string{`unexpected argument "run"`}},
		{name: "dash", args: []string{"--", "x"}, want: []string{`unexpected argument "--"`}},
		{
			name: "missing file", args: []string{"-config.file=/nowhere.yaml"},
			want: []string{"config.file: open /nowhere.yaml"},
		},
		{name: "all of them", args: []string{"-a", "-b"}, want: []string{"-a: ", "-b: "}},
		{
			name: "limit out of range", args: []string{"-limits.max-series=-1"},
			want: []string{"limits.max_series is -1; use"},
		},
		{
			name: "future", args: []string{"-limits.future-tolerance=31m"},
			want: []string{"limits.future_tolerance is 31m0s; use 0s to 30m"},
		},
		{
			name: "two sections", args: []string{"-limits.max-series=-1", "-log.level=loud", "-log.format=xml"},
			want: []string{
				"limits.max_series is -1", `log.level is "loud"; use debug`, `log.format is "xml"; use logfmt or json`,
			},
		},
		{
			name: "ingester", args: []string{"-ingester.block-retention=1h"},
			want: []string{"ingester.block-retention is 1h0m0s"},
		},
		{
			name: "distributor", args: []string{"-distributor.series-cache-bytes=-1"},
			want: []string{"distributor.series_cache_bytes is -1"},
		},
		{
			name: "a bucket for each member", args: []string{"-target=ingester"},
			want: []string{"bucket.filesystem.directory is empty", "all of them share"},
		},
		{name: "roles", args: []string{"-target=all,ruler"}, want: []string{"role ruler"}},
		{name: "no role", args: []string{"-target=storage"}, want: []string{`target is "storage"; use "all", or one or more`}},
		{
			name: "a gateway that asks another", args: []string{"-target=store-gateway", "-querier.store-gateway-addresses=a:1"},
			want: []string{"reads blocks itself"},
		},
		{
			name: "ring", args: []string{
				"-ring.instance-id=a b", "-ring.instance-zone=x/y", "-ring.instance-addr=0.0.0.0", "-ring.replication-factor=-1",
				"-ring.heartbeat-timeout=1ms",
			},
			want: []string{
				`ring.instance_id is "a b"`, `ring.instance_zone is "x/y"`, `ring.instance_addr is "0.0.0.0": it stands for`,
				"ring.replication-factor is -1, must be",
			},
		},
		{
			name: "addresses", args: []string{"-querier.store-gateway-addresses=a:1,b,:2,a:1"},
			want: []string{`has "b": missing port`, `has ":2": the host is missing`, `has "a:1": it is there twice`},
		},
		{
			name: "s3 without a place", args: []string{"-bucket.backend=s3", "-bucket.s3.sse=AES"},
			want: []string{
				"bucket.s3.bucket_name is empty", "bucket.s3.endpoint is empty", `bucket.s3.sse is "AES"; use none`,
			},
		},
		{
			name: "a printed secret", file: "bucket: {backend: s3, s3: {access_key_id: x, secret_access_key: <secret>}}",
			want: []string{`bucket.s3.secret_access_key is "<secret>"`},
		},
		{
			name: "wrong setting of s3", file: "bucket: {s3: {secret_acces_key: hunter2}}",
			want: []string{`did you mean "secret_access_key"?`},
		},
		{
			name: "no bucket", args: []string{"-bucket.backend=tape"},
			want: []string{`bucket.backend is "tape"; use "filesystem" or "s3"`},
		},
		{
			name: "bind address", args: []string{"-memberlist.bind-address=localhost"},
			want: []string{`memberlist.bind_address is "localhost"; use IP:port`},
		},
		{
			name: "no port", args: []string{"-server.http-listen-address=localhost"},
			want: []string{`server.http_listen_address is "localhost": missing port in address`},
		},
		{name: "bad port", args: []string{"-server.http-listen-address=:http"}, want: []string{"0 to 65535"}},
		{
			name: "same port", args: []string{"-server.http-listen-address=:9095"},
			want: []string{"grpc_listen_address", "another port"},
		},
		{
			name: "no time to stop", args: []string{"-server.shutdown-timeout=0s"},
			want: []string{"server.shutdown_timeout is 0s"},
		},
		{name: "no data", file: "data_dir: ''", want: []string{"data_dir is empty"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			args := tc.args
			if tc.file != "" {
				args = append(args, "-config.file="+writeFile(t, tc.file))
			}
			_, err := Parse(args, tc.env)
			for _, want := range tc.want {
				require.ErrorContains(t, err, want)
			}
		})
	}
}

// TestSettingsOfTLS: files of a pair go together, and have their three names as any other setting.
func TestSettingsOfTLS(t *testing.T) {
	for path, fields := range map[string][]string{
		"server.http_tls": {"cert_file", "key_file", "client_ca_file"},
		"server.grpc_tls": {"cert_file", "key_file", "client_ca_file"},
		"grpc_client.tls": {"cert_file", "key_file", "ca_file", "server_name"},
	} {
		section, sub, _ := strings.Cut(path, ".")
		var args, env []string
		content := section + ": {" + sub + ": {"
		if section == "grpc_client" {
			args, content = append(args, "-grpc-client.tls.enabled"), content+"enabled: true, "
			env = append(env, "DURAMEN_GRPC_CLIENT_TLS_ENABLED=true")
		}
		for _, field := range fields {
			name := strings.ReplaceAll(path+"."+field, "_", "-")
			args, env = append(args, "-"+name+"="+field), append(env, envName(name)+"="+field)
			content += field + ": " + field + ", "
		}
		fromFile, err := Parse([]string{"-config.file", writeFile(t, content+"}}")}, nil)
		require.NoError(t, err)
		fromFlags, err := Parse(args, nil)
		require.NoError(t, err)
		fromEnv, err := Parse(nil, env)
		require.NoError(t, err)
		require.Equal(t, fromFile, fromFlags)
		require.Equal(t, fromFile, fromEnv)
		require.NotEqual(t, DefaultConfig(), fromFile.Config)
		_, err = Parse([]string{"-" + strings.ReplaceAll(path, "_", "-") + ".key-file=x"}, nil)
		require.ErrorContains(t, err, path)
		require.ErrorContains(t, err, "cert_file")
	}
}

func TestServiceLinksOfKubernetesAreNoSettings(t *testing.T) {
	_, err := Parse(nil, []string{
		"DURAMEN_SERVICE_HOST=10.0.0.1", "DURAMEN_SERVICE_PORT=9009", "DURAMEN_SERVICE_PORT_HTTP=9009",
		"DURAMEN_PORT=tcp://10.0.0.1:9009", "DURAMEN_PORT_9009_TCP_ADDR=10.0.0.1", "DURAMEN_QUERY_PORT_9009_TCP_PORT=9009",
	})
	require.NoError(t, err)
}

func TestListsAddUpWithinALayerOnly(t *testing.T) {
	l := newLayers()
	require.NoError(t, l.applyFile(writeFile(t, "memberlist: {join: [file]}")))
	require.Equal(t, []string{"file"}, l.cfg.Memberlist.Join)
	require.NoError(t, l.applyEnvironment([]string{"DURAMEN_MEMBERLIST_JOIN=e1, e2"}))
	require.Equal(t, []string{"e1", "e2"}, l.cfg.Memberlist.Join)
	require.NoError(t, l.applyArgs([]string{"-memberlist.join=f1", "-memberlist.join=f2"}))
	require.Equal(t, []string{"f1", "f2"}, l.cfg.Memberlist.Join)
}

func TestWhatIsPrintedParsesToTheSame(t *testing.T) {
	cmd, err := Parse([]string{
		"-config.print", "-data-dir=/x", "-limits.max-series=7", "-limits.out-of-order-window=90m", "-log.format=json",
		"-ingester.wal-sync=commit", "-bucket.filesystem.directory=/y", "-querier.timeout=3m",
	}, nil)
	require.NoError(t, err)
	require.Equal(t, Print, cmd.Action)
	text, err := yaml.Marshal(cmd.Config)
	require.NoError(t, err)
	again, err := Parse([]string{"-config.file=" + writeFile(t, string(text))}, nil)
	require.NoError(t, err)
	require.Equal(t, cmd.Config, again.Config)
	require.Equal(t, 90*time.Minute, again.Config.Limits.OutOfOrderWindow)
}

func TestActions(t *testing.T) {
	for arg, want := range map[string]Action{
		"-h": Help, "--help": Help, "-version": Version, "-config.check": Check, "-config.print": Print,
		"-config.reference": Reference, "-metrics.reference": MetricsReference, "-config.check=false": Run,
	} {
		cmd, err := Parse([]string{arg}, nil)
		require.NoError(t, err, arg)
		require.Equal(t, want, cmd.Action, arg)
	}
	// A wrong setting is said before anything else, but help is had all the same.
	_, err := Parse([]string{"-config.check", "-target=x"}, nil)
	require.Error(t, err)
	_, err = Parse([]string{"-h", "-target=x"}, nil)
	require.NoError(t, err)
}

func TestReferenceIsFresh(t *testing.T) {
	const file = "../../../docs/configuration.md"
	var want strings.Builder
	require.NoError(t, WriteReference(&want))
	have, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, want.String(), string(have), "%s is stale: run go generate ./cmd/duramen/app", file)
}

func TestHelpNamesEverySetting(t *testing.T) {
	var help strings.Builder
	require.NoError(t, WriteHelp(&help))
	for _, s := range Settings() {
		require.Contains(t, help.String(), "  -"+s.Flag+"  (")
	}
}

// TestEveryRoleHasItsParts: what nothing else needs is named by a role, or it would not be built at all.
func TestEveryRoleHasItsParts(t *testing.T) {
	for target, want := range map[string][]string{
		roleAll:          {"reconciler", "ingester", "store", "querier", "distributor", "tracing"},
		roleStoreGateway: {"store", "grpc server"},
		roleDistributor:  {"replicator", "distributor", "peers", "membership"},
		roleIngester:     {"ingester", "grpc server", "membership"},
		roleQuerier:      {"fan-out", "querier", "store-gateways", "membership"},
		roleCompactor:    {"reconciler", "membership"},
		roleRead:         {"querier", "fan-out", "store", "store gateway", "grpc server"},
	} {
		var names []string
		for _, p := range wiring(Config{Target: target}) {
			names = append(names, p.name)
		}
		require.Subset(t, names, want, target)
	}
}

func TestTargets(t *testing.T) {
	for target, want := range map[string]string{
		"all":                       "distributor ingester querier compactor",
		"store-gateway":             "store-gateway",
		"all,store-gateway":         "distributor ingester querier store-gateway compactor",
		"write":                     "distributor ingester",
		"read":                      "querier store-gateway",
		"backend":                   "store-gateway compactor",
		"backend,read":              "querier store-gateway compactor",
		"compactor,distributor,all": "distributor ingester querier store-gateway compactor",
	} {
		cfg := DefaultConfig()
		cfg.Target = target
		require.Equal(t, want, strings.Join(cfg.roles(), " "), target)
		alone := target == "all" || target == "store-gateway" || target == "all,store-gateway"
		require.Equal(t, !alone, cfg.clustered(), target)
		require.Equal(t, !alone, cfg.headerRequired(), target)
	}
	cfg := DefaultConfig()
	require.Equal(t, 1, cfg.replicationFactor())
	cfg.Memberlist.Join = []string{"a:7946"}
	require.True(t, cfg.clustered())
	require.True(t, cfg.plays(roleStoreGateway), "of a cluster, all reads for others, too")
	require.Equal(t, 3, cfg.replicationFactor())
	require.NoError(t, cfg.Tenancy.HeaderRequired.Set("false"))
	require.False(t, cfg.headerRequired(), "what is said goes before what is derived")
	cfg.Querier.StoreGatewayAddresses = []string{"b:9095"}
	require.False(t, cfg.plays(roleStoreGateway))
	cfg = DefaultConfig()
	cfg.Ring.ReplicationFactor = 3
	require.True(t, cfg.clustered())
	cfg.Ring.ReplicationFactor = 1
	require.False(t, cfg.clustered())
}
