package reader

import (
	"context"
	"errors"
	"fmt"

	"github.com/oklog/ulid/v2"

	"github.com/duramendb/duramen/chunkstore/cache"
	"github.com/duramendb/duramen/chunkstore/index"
	"github.com/duramendb/duramen/internal/errkind"
)

// pageKey names a page of one sidecar of a block.
type pageKey struct {
	key     string // of the sidecar
	version [index.FooterSize]byte
	offset  int64
}

// blockPages reads pages of one block.
type blockPages struct {
	l      *Local
	tenant string
	id     ulid.ULID
	dir    *directory
}

func (p blockPages) key(number int) pageKey {
	return pageKey{p.dir.object.Key, p.dir.version, p.dir.Page(number).Offset}
}

// measureDirectory tells the cache how large the directory is after labels of it were asked for.
func (p blockPages) measureDirectory() { p.l.directories.Measure(blockKey{p.tenant, p.id}) }

// batch returns how many of the pages are read next, one at least: those that together take at most so many bytes.
func (p blockPages) batch(numbers []int, most int64) int {
	bytes := int64(0)
	for n, number := range numbers {
		e := p.dir.Page(number)
		if bytes += e.Memory() + e.Length; bytes > most && n > 0 {
			return n
		}
	}
	return len(numbers)
}

// explain names the sidecar in an error of reading its parts. One that is damaged, or not there any more, becomes a
// suspect.
func (p blockPages) explain(err error) error {
	if errors.Is(err, index.ErrDamaged) && !errors.Is(err, ErrDamaged) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	missing := errors.Is(err, ErrGone)
	if missing { // the directory was in memory; whether the block is gone as well shows when its sidecar is built
		err = errkind.Wrap(errkind.Unavailable, fmt.Errorf("%w: %w", errNoSidecar, err))
	}
	if missing || errors.Is(err, ErrDamaged) {
		p.l.accuse(blockKey{p.tenant, p.id}, p.dir)
	}
	return objectError(p.tenant, p.id, p.dir.object.Key, err)
}

// cached returns those of the pages that are in memory, nil for others, and how many bytes of the sidecar the others are.
func (p blockPages) cached(numbers []int) (pages []*index.Page, missing int64) {
	pages = make([]*index.Page, len(numbers))
	for i, number := range numbers {
		if page, ok := p.l.pages.Peek(p.key(number)); ok {
			pages[i] = page
		} else {
			missing += p.dir.Page(number).Length
		}
	}
	return pages, missing
}

// fill reads the pages that are nil with one read.
func (p blockPages) fill(ctx context.Context, numbers []int, pages []*index.Page) error {
	var at []int
	var spans []cache.Span
	for i, number := range numbers {
		if pages[i] == nil {
			e := p.dir.Page(number)
			at, spans = append(at, i), append(spans, cache.Span{Offset: e.Offset, Length: e.Length})
		}
	}
	if len(at) == 0 {
		return nil
	}
	bufs, err := p.l.readObject(ctx, p.tenant, p.id, p.dir.object, spans, false)
	if err != nil {
		return err
	}
	for n, i := range at {
		number := numbers[i]
		page, err := p.l.pages.Get(ctx, p.key(number), func(ctx context.Context) (*index.Page, error) {
			return p.decode(ctx, number, spans[n], bufs[n])
		})
		if err != nil {
			return err
		}
		pages[i] = page
	}
	return nil
}

// decode decodes a page, from bytes read past the caches when these are damaged.
func (p blockPages) decode(ctx context.Context, number int, span cache.Span, data []byte) (*index.Page, error) {
	page, err := p.decodeOnce(number, data)
	if err == nil {
		return page, nil
	}
	p.l.metrics.refetches.Inc()
	bufs, err := p.l.readObject(ctx, p.tenant, p.id, p.dir.object, []cache.Span{span}, true)
	if err != nil {
		return nil, err
	}
	if page, err = p.decodeOnce(number, bufs[0]); err != nil {
		return nil, p.l.failed(objectError(p.tenant, p.id, p.dir.object.Key, err))
	}
	return page, nil
}

func (p blockPages) decodeOnce(number int, data []byte) (page *index.Page, err error) {
	defer recovered(&err)
	if page, err = p.dir.DecodePage(p.l.dec, number, data); err != nil {
		return nil, fmt.Errorf("%w: page %d: %w", ErrDamaged, number, err)
	}
	return page, nil
}
