package distributor

import (
	"testing"

	"github.com/golang/snappy"
)

// FuzzHandler: whatever the bytes are, the answer is a success or the sender's fault, and nothing stays reserved.
func FuzzHandler(f *testing.F) {
	w := scrape(3, 0)
	f.Add(snappy.Encode(nil, marshal1(f, w)), true)
	f.Add(marshal1(f, w), false)
	f.Add(marshal2(f, toFormat2(w)), false)
	f.Add([]byte("\x0a\x00\x0a\x02\x12\x00"), false)
	f.Fuzz(func(t *testing.T, body []byte, compressed bool) {
		l := openLimits()
		l.requestBytes = 1 << 20
		d, _ := newTest(t, pusherFunc(acceptAll), l)
		if !compressed {
			body = snappy.Encode(nil, body)
		}
		for _, contentType := range []string{"", type2, ""} { // The third meets what the first left in the cache.
			if code := postRaw(t, d, contentType, body).Code; code >= 500 {
				t.Errorf("status %d for format %q", code, contentType)
			}
		}
		if n := d.inflight.Load(); n != 0 {
			t.Errorf("%d bytes stay reserved", n)
		}
	})
}
