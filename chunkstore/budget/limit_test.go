package budget

import (
	"flag"
	"math"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func TestMemoryLimitIsTheSmallest(t *testing.T) {
	const meminfo = "MemFree: 1 kB\nMemTotal:       2097152 kB\nMemAvailable: 2 kB\n"
	for _, c := range []struct {
		name    string
		files   map[string]string
		goLimit int64
		want    int64
		source  string
	}{
		{"nothing", nil, math.MaxInt64, assumedLimit, "no limit found"},
		{"physical", map[string]string{"proc/meminfo": meminfo}, math.MaxInt64, 2 << 30, "physical memory"},
		{"GOMEMLIMIT", map[string]string{"proc/meminfo": meminfo}, 1 << 20, 1 << 20, "GOMEMLIMIT"},
		{"v2, own group has none", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b/c\n", "sys/fs/cgroup/a/b/c/memory.max": "max\n",
			"sys/fs/cgroup/a/b/memory.max": "1000000\n", "sys/fs/cgroup/a/memory.max": "2000000\n",
		}, math.MaxInt64, 1_000_000, "cgroup v2 memory.max"},
		{"v2, a parent has less", map[string]string{
			"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "3000000\n",
			"sys/fs/cgroup/a/memory.max": "2000000\n",
		}, math.MaxInt64, 2_000_000, "cgroup v2 memory.max"},
		{"v2 in a container with a view of its own", map[string]string{
			"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "536870912\n",
		}, math.MaxInt64, 512 << 20, "cgroup v2 memory.max"},
		{"v2, the group is not visible here", map[string]string{
			"proc/self/cgroup": "0::/kubepods/pod1/x\n", "sys/fs/cgroup/memory.max": "536870912\n",
		}, math.MaxInt64, 512 << 20, "cgroup v2 memory.max"},
		{"v1", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "12:cpu,cpuacct:/x\n5:memory:/docker/id\n0::/system.slice\n",
			"sys/fs/cgroup/memory/docker/id/memory.limit_in_bytes": "123456789\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":           "9223372036854771712\n",
		}, math.MaxInt64, 123_456_789, "cgroup v1 memory.limit_in_bytes"},
		{"v1 without a limit", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "5:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, math.MaxInt64, 2 << 30, "physical memory"},
		{"nonsense", map[string]string{
			"proc/meminfo": "MemTotal: lots\n", "proc/self/cgroup": "x\n0::\n0::/../../..\n", "sys/fs/cgroup/memory.max": "-5",
		}, math.MaxInt64, assumedLimit, "no limit found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := fstest.MapFS{}
			for name, data := range c.files {
				root[name] = &fstest.MapFile{Data: []byte(data)}
			}
			limit, source := memoryLimit(root, c.goLimit)
			require.Equal(t, c.want, limit)
			require.Equal(t, c.source, source)
		})
	}
}

func TestSoftLimitIsOfAContainerOnly(t *testing.T) {
	container := fstest.MapFS{
		"proc/self/cgroup": {Data: []byte("0::/\n")}, "sys/fs/cgroup/memory.max": {Data: []byte("1000000000\n")},
		"proc/meminfo": {Data: []byte("MemTotal: 100 kB\n")},
	}
	limit, ok := softLimit(container, math.MaxInt64)
	require.True(t, ok)
	require.EqualValues(t, 900_000_000, limit)
	_, ok = softLimit(container, 5<<30)
	require.False(t, ok, "GOMEMLIMIT is set")
	_, ok = softLimit(fstest.MapFS{"proc/meminfo": container["proc/meminfo"]}, math.MaxInt64)
	require.False(t, ok, "a machine is shared with others anyway")
}

func TestThisMachineHasALimit(t *testing.T) {
	limit, source := MemoryLimit()
	require.Greater(t, limit, int64(64<<20))
	require.NotEqual(t, "no limit found", source)
}

func defaultConfig() Config {
	var c Config
	c.RegisterFlags(flag.NewFlagSet("", flag.ContinueOnError))
	return c
}

func TestBudgetsAreSharesOfTheLimit(t *testing.T) {
	c := defaultConfig()
	require.NoError(t, c.Validate())
	c.LimitBytes = 1 << 30
	b := c.Budgets()
	require.Equal(t, int64(1<<30), b.Limit)
	require.InDelta(t, 0.05*(1<<30), float64(b.Directories), 1)
	require.InDelta(t, 0.10*(1<<30), float64(b.Pages), 1)
	require.InDelta(t, 0.25*(1<<30), float64(b.Pool.Bytes), 1)
	require.InDelta(t, 0.25*0.25*(1<<30), float64(b.Pool.QueryBytes), 1)

	c.LimitBytes = 1 << 20
	require.Equal(t, int64(minPoolBytes), c.Budgets().Pool.Bytes, "a window has to fit")

	c.LimitBytes = 0
	limit, source := MemoryLimit()
	require.Equal(t, limit, c.Budgets().Limit)
	require.Equal(t, source, c.Budgets().Source)
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"limit_bytes":       func(c *Config) { c.LimitBytes = -1 },
		"directories_share": func(c *Config) { c.DirectoriesShare = -0.1 },
		"pages_share":       func(c *Config) { c.PagesShare = math.NaN() },
		"chunks_share":      func(c *Config) { c.ChunksShare = 0 },
		"query_share":       func(c *Config) { c.QueryShare = 1.5 },
		"together":          func(c *Config) { c.PagesShare = 0.7 },
		"max_wait":          func(c *Config) { c.MaxWait = -1 },
	} {
		c := defaultConfig()
		change(&c)
		require.ErrorContains(t, c.Validate(), name)
	}
}
