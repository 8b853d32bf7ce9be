package app

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const (
	formatLogfmt = "logfmt"
	formatJSON   = "json"
)

// newLogger returns a logger to w and the handle that changes its level while it is used.
func newLogger(cfg LogConfig, w io.Writer) (*slog.Logger, *slog.LevelVar, error) {
	level, err := parseLevel(cfg.Level)
	if err != nil {
		return nil, nil, fmt.Errorf("log.level is %w", err)
	}
	v := &slog.LevelVar{}
	v.Set(level)
	options := &slog.HandlerOptions{Level: v}
	if cfg.Format == formatJSON {
		return slog.New(traceIDs{slog.NewJSONHandler(w, options)}), v, nil
	}
	return slog.New(traceIDs{slog.NewTextHandler(w, options)}), v, nil
}

// parseLevel reads one of the four names. slog's own parser also takes "info+3", which nobody means.
func parseLevel(name string) (slog.Level, error) {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if name == levelName(level) {
			return level, nil
		}
	}
	return 0, fmt.Errorf("%q; use debug, info, warn or error", name)
}

func levelName(level slog.Level) string { return strings.ToLower(level.String()) }
