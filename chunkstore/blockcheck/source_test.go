package blockcheck

import (
	"context"
	"io"
	"io/fs"
)

// memory is a Source of files in memory.
type memory files

func (m memory) List(context.Context) (map[string]int64, error) {
	sizes := map[string]int64{}
	for name, data := range m {
		sizes[name] = int64(len(data))
	}
	return sizes, nil
}

func (m memory) ReadAt(_ context.Context, name string, p []byte, off int64) error {
	data, ok := m[name]
	if !ok {
		return fs.ErrNotExist
	}
	if off > int64(len(data)) || copy(p, data[off:]) < len(p) {
		return io.ErrUnexpectedEOF
	}
	return nil
}
