package merge

import (
	"errors"
	"fmt"
)

// The defaults of Config.
const (
	// DefaultSegmentBytes is what a file of chunks holds: large beside the cost of a request, small beside memory.
	DefaultSegmentBytes = 64 << 20
	// DefaultReadBytes is what is read ahead of all inputs together.
	DefaultReadBytes = 96 << 20
	// DefaultSymbolBytes is room for some five million different label values in a day of slots, or ten million in few blocks.
	DefaultSymbolBytes = 2 << 30
)

// Config says where and within which bounds jobs work.
type Config struct {
	// Scratch is a folder of the local disk that belongs to jobs alone: what lies in it from before may be deleted. The
	// index and the sidecar of the output are written there, about twice the size of the index.
	Scratch string
	// SegmentBytes bounds a file of chunks, which is filled in memory and put whole; 0 means DefaultSegmentBytes. Two of
	// them are held: one is filled while the other is sent.
	SegmentBytes int64
	// ReadBytes bounds what is read ahead, of all inputs together; 0 means DefaultReadBytes.
	ReadBytes int64
	// MaxSymbolBytes bounds what the names and values of labels take in memory, roughly: they are held while the series are
	// merged. 0 means DefaultSymbolBytes. Above it the job is TooLarge, before anything but symbols was read.
	MaxSymbolBytes int64
	// MaxIndexBytes is the largest index that is written; 0 means what the format can hold. Above it the job is TooLarge.
	MaxIndexBytes int64
	// MinFreeBytes stay free on the disk of Scratch.
	MinFreeBytes int64
}

// Validate says what is wrong with the configuration.
func (c *Config) Validate() error {
	if c.Scratch == "" {
		return errors.New("scratch folder of merges is not set")
	}
	for _, size := range []struct {
		name  string
		bytes int64
	}{
		{"segment", c.SegmentBytes},
		{"read-ahead", c.ReadBytes},
		{"largest index", c.MaxIndexBytes},
		{"free disk", c.MinFreeBytes},
		{"symbols in memory", c.MaxSymbolBytes},
	} {
		if size.bytes < 0 {
			return fmt.Errorf("size of the %s of merges is %d; it must not be negative", size.name, size.bytes)
		}
	}
	if c.SegmentBytes > maxSegmentBytes {
		return fmt.Errorf("size of the segments of merges is %d; at most %d are possible", c.SegmentBytes, int64(maxSegmentBytes))
	}
	return nil
}

// maxSegmentBytes keeps every place in a segment within the 32 bits that an index has for it.
const maxSegmentBytes = 1 << 30

func (c Config) withDefaults() Config {
	if c.SegmentBytes == 0 {
		c.SegmentBytes = DefaultSegmentBytes
	}
	if c.ReadBytes == 0 {
		c.ReadBytes = DefaultReadBytes
	}
	if c.MaxSymbolBytes == 0 {
		c.MaxSymbolBytes = DefaultSymbolBytes
	}
	return c
}
