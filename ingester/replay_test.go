package ingester

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/stretchr/testify/require"
)

// The load of the replay test: 3 h of scrapes each 30 s, and 30 % of the series replaced each hour, as in a cluster
// that rolls its deployments.
const (
	churnSeries     = 20_000
	churnRounds     = 3 * 120
	churnShare      = 0.3
	churnRoundMs    = 30_000
	churnHourRounds = 120
)

// churn runs the load and returns the peak of the process's memory.
func churn(t *testing.T, dir string) string {
	o := openForReplay(t, dir)
	lsets := make([]labels.Labels, churnSeries)
	made := 0
	newSeries := func() labels.Labels {
		made++
		return labels.FromStrings(labels.MetricName, "http_requests_total", "cluster", "eu-1", "namespace", "shop",
			"pod", fmt.Sprintf("frontend-%08x-%05d", made*2654435761, made%100_000), "instance", fmt.Sprintf("10.0.%d.%d:8080",
				made/250%250, made%250), "code", strconv.Itoa(200+made%5), "method", "GET", "job", "frontend")
	}
	for i := range lsets {
		lsets[i] = newSeries()
	}
	perRound := int(churnShare * churnSeries / churnHourRounds)
	oldest := 0
	for round := range churnRounds {
		for range perRound {
			lsets[oldest] = newSeries()
			oldest = (oldest + 1) % len(lsets)
		}
		app := o.DB.Appender(context.Background())
		for i, lset := range lsets {
			_, err := app.Append(0, lset, diskStart+int64(round)*churnRoundMs, float64(round*i%1000))
			require.NoError(t, err)
		}
		require.NoError(t, app.Commit())
		if round%2 == 0 {
			o.DB.ForceHeadMMap() // stock does it once a minute
		}
	}
	// The first block is cut when the second is half full; the kill comes right then, when the log is longest.
	head := o.DB.Head()
	require.NoError(t, o.DB.CompactHead(tsdb.NewRangeHead(head, head.MinTime(), diskStart+7_200_000-1)))
	return peakMemory(t)
}

// replayAndMeasure opens the folder and returns the peak of the process's memory.
func replayAndMeasure(t *testing.T, dir string) string {
	o := openForReplay(t, dir)
	require.True(t, o.Report.Unclean)
	require.Positive(t, o.DB.Head().NumSeries())
	return peakMemory(t)
}

func openForReplay(t *testing.T, dir string) *openedTSDB {
	options := diskOptions()
	options.WALSegmentSize = 0 // stock's size, as in production
	o, err := openTSDB(context.Background(), openOptions{Dir: dir, TSDB: options, Log: discardLog()})
	require.NoError(t, err)
	o.DB.DisableCompactions()
	return o
}

// memoryFigures are in KiB.
type memoryFigures struct{ Peak, Now, Mapped int64 }

// peakMemory returns the highest resident memory so far, and the present one with the part mapped from files.
func peakMemory(t *testing.T) string {
	debug.FreeOSMemory()
	f, err := os.Open("/proc/self/status")
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	var m memoryFigures
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "VmHWM:":
			m.Peak = n
		case "VmRSS:":
			m.Now = n
		case "RssFile:":
			m.Mapped = n
		}
	}
	out, err := json.Marshal(m)
	require.NoError(t, err)
	return string(out)
}

func TestReplayNeedsNoMoreThanHalfAgainOfTheMemory(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("takes half a minute, and the race detector's own memory would be measured")
	}
	if _, err := os.Stat("/proc/self/status"); err != nil {
		t.Skip("memory is read from /proc")
	}
	dir := filepath.Join(t.TempDir(), "tenant")
	measure := func(task string) (m memoryFigures) {
		out, err := runDiskChild(t, task, dir)
		require.NoError(t, err, out)
		require.NoError(t, json.Unmarshal([]byte(out), &m))
		return m
	}
	before := measure("churn")
	after := measure("replay")
	t.Logf("peak before the kill %d KiB, during replay %d KiB, ratio %.2f (after: %+v, before: %+v)", before.Peak,
		after.Peak, float64(after.Peak)/float64(before.Peak), after, before)
	require.LessOrEqual(t, float64(after.Peak), 1.5*float64(before.Peak))
}
