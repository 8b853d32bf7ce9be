package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/golang/snappy"

	"github.com/duramendb/duramen/internal/seriesgen"
)

func cpu(pid int) float64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:]))
	u, _ := strconv.Atoi(f[11])
	s, _ := strconv.Atoi(f[12])
	return float64(u+s) / 100
}

func main() {
	bin := flag.String("bin", "/tmp/duramen", "")
	ver := flag.Int("v", 1, "")
	scrapes := flag.Int("scrapes", 40, "")
	series := flag.Int("series", 100000, "")
	flag.Parse()
	dir, _ := os.MkdirTemp("", "quick")
	defer os.RemoveAll(dir)
	t0 := time.Now()
	cmd := exec.Command(*bin, "-server.http-listen-address=127.0.0.1:19109", "-data-dir="+dir)
	cmd.Stderr = os.Stderr
	cmd.Start()
	base := "http://127.0.0.1:19109"
	for {
		r, err := http.Get(base + "/ready")
		if err == nil {
			r.Body.Close()
			if r.StatusCode == 200 {
				break
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	fmt.Println("ready after", time.Since(t0))
	heap := func() float64 {
		for range 2 {
			r, _ := http.Get(base + "/debug/pprof/heap?gc=1")
			io.Copy(io.Discard, r.Body)
			r.Body.Close()
		}
		r, _ := http.Get(base + "/metrics")
		b, _ := io.ReadAll(r.Body)
		r.Body.Close()
		for _, l := range strings.Split(string(b), "\n") {
			if strings.HasPrefix(l, "go_memstats_heap_alloc_bytes ") {
				f, _ := strconv.ParseFloat(strings.Fields(l)[1], 64)
				return f
			}
		}
		return 0
	}
	h0 := heap()
	g, err := seriesgen.New(seriesgen.Config{Seed: 1, Series: *series, Start: time.Now().Add(-time.Duration(*scrapes) * 15 * time.Second).UnixMilli(), Interval: 15 * time.Second})
	if err != nil {
		panic(err)
	}
	c0 := cpu(cmd.Process.Pid)
	t0 = time.Now()
	var bad atomic.Int64
	ct := "application/x-protobuf"
	if *ver == 2 {
		ct = "application/x-protobuf;proto=io.prometheus.write.v2.Request"
	}
	var wg sync.WaitGroup
	const conns = 4
	for c := range conns {
		wg.Add(1)
		go func() {
			defer wg.Done()
			cl := &http.Client{Transport: &http.Transport{}}
			var raw, comp []byte
			for s := range *scrapes {
				for from := c * 2000; from < *series; from += conns * 2000 {
					if *ver == 1 {
						raw = g.AppendRequest1(raw[:0], s, from, from+2000)
					} else {
						raw = g.AppendRequest2(raw[:0], s, from, from+2000)
					}
					comp = snappy.Encode(comp[:cap(comp)], raw)
					req, _ := http.NewRequest("POST", base+"/api/v1/push", bytes.NewReader(comp))
					req.Header.Set("Content-Type", ct)
					req.Header.Set("Content-Encoding", "snappy")
					r, err := cl.Do(req)
					if err != nil {
						panic(err)
					}
					b, _ := io.ReadAll(r.Body)
					r.Body.Close()
					if r.StatusCode/100 != 2 && bad.Add(1) < 3 {
						fmt.Println(r.StatusCode, string(b))
					}
				}
			}
		}()
	}
	wg.Wait()
	el := time.Since(t0)
	time.Sleep(5 * time.Second)
	n := float64(*series * *scrapes)
	fmt.Printf("v%d bad=%d samples/s=%.0f cpu-us/1000=%.0f\n", *ver, bad.Load(), n/el.Seconds(), (cpu(cmd.Process.Pid)-c0)*1e6/n*1000)
	fmt.Printf("heap B/series %.0f\n", (heap()-h0)/float64(*series))
	if p := os.Getenv("PROF"); p != "" {
		r, _ := http.Get(base + "/debug/pprof/heap?gc=1")
		b, _ := io.ReadAll(r.Body)
		os.WriteFile(p, b, 0o644)
	}
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	for _, l := range strings.Split(string(b), "\n") {
		if strings.HasPrefix(l, "VmHWM") {
			fmt.Println(l)
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	t0 = time.Now()
	cmd = exec.Command(*bin, "-server.http-listen-address=127.0.0.1:19109", "-data-dir="+dir)
	cmd.Start()
	for {
		r, err := http.Get(base + "/ready")
		if err == nil {
			r.Body.Close()
			if r.StatusCode == 200 {
				break
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	fmt.Println("restart ready after", time.Since(t0))
	cmd.Process.Kill()
	cmd.Wait()
}
