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
	{errSpeaksTLS.Error(), ""}, // said and counted by the transport
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

// telling are the lines that say what an operator may want to know. The others are for who looks into gossip itself: a
// member that does not answer makes many of them.
var telling = []string{
	"has failed, no acks", "as failed, suspect timeout", "Refuting a suspect", "Refuting a dead", "network may be misconfigured",
	"Conflicting address", "protocol version",
}

// Write implements io.Writer. memberlist writes a line at a time: "[WARN] memberlist: text".
func (a *logAdapter) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if _, message, ok := strings.Cut(text, "] "); ok && strings.HasPrefix(text, "[") {
		text = message
	}
	text = strings.TrimPrefix(text, "memberlist: ")
	level := slog.LevelDebug
	for _, part := range telling {
		if strings.Contains(text, part) {
			level = slog.LevelInfo
		}
	}
	for _, s := range strangers {
		if strings.Contains(text, s.text) {
			if s.reason == "" {
				break
			}
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

// logger is the adapter as memberlist takes it.
func (a *logAdapter) logger() *log.Logger { return log.New(a, "", 0) }
