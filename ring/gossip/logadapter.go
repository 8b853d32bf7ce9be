package gossip

import (
	"context"
	"log"
	"log/slog"
	"strings"
)

// logAdapter takes memberlist's lines as an io.Writer. It is also where strangers are noticed: memberlist drops their
// packets before any delegate sees them, and says so in its log only. TestStrangersAreKeptOut fails when the words
// change.
type logAdapter struct {
	log     *slog.Logger
	metrics *metrics
	ration  *ration
}

// strangers are the lines that tell of packets and streams that were dropped. They can come by the thousand, so each
// kind is logged once a minute.
var strangers = []struct{ text, reason string }{
	{"with unacceptable label", reasonLabel},
	{"Decrypt packet failed", reasonKey},
	{"no installed keys could decrypt", reasonKey},
	{"encryption is not configured", reasonKey},
	{"encryption is configured but", reasonKey},
	{"failed to receive and remove the stream label header", reasonMalformed},
	{"msg type", reasonMalformed},
	{"Failed to decode", reasonMalformed},
	{"cannot decode label", reasonMalformed},
	{"handler queue full", reasonOverload},
	{"Too many pending push/pull requests", reasonOverload},
}

// Write implements io.Writer. memberlist writes a line at a time: "[WARN] memberlist: text".
func (a *logAdapter) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	level := slog.LevelDebug
	if rest, ok := strings.CutPrefix(text, "["); ok {
		if name, message, ok := strings.Cut(rest, "] "); ok {
			level, text = levelOf(name), message
		}
	}
	text = strings.TrimPrefix(text, "memberlist: ")
	for _, s := range strangers {
		if strings.Contains(text, s.text) {
			a.metrics.dropped.WithLabelValues(s.reason).Inc()
			if !a.ration.allow(s.reason) {
				return len(line), nil
			}
			level = slog.LevelWarn
			break
		}
	}
	a.log.Log(context.Background(), level, "memberlist says", "text", text)
	return len(line), nil
}

// levelOf is one below what memberlist says: a member that does not answer is its business and no error of this one.
func levelOf(name string) slog.Level {
	switch name {
	case "ERR", "ERROR", "WARN":
		return slog.LevelInfo
	default:
		return slog.LevelDebug
	}
}

// logger is the adapter as memberlist takes it.
func (a *logAdapter) logger() *log.Logger { return log.New(a, "", 0) }
