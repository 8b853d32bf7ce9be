package identity

import (
	"context"
	"errors"
	"strings"

	"github.com/duramendb/duramen/chunkstore/bucket"
	"github.com/duramendb/duramen/internal/errkind"
)

// look finds the bucket's identity and compares it with what is known. refused says why the bucket is not to be used; err
// that it could not be found out. The caller holds looking.
func (g *Guard) look(ctx context.Context) (id string, refused, err error) {
	id, err = Find(ctx, g.Bucket)
	if err != nil {
		return "", nil, err
	}
	word, by := g.clusterSays()
	if word != "" && g.cfg.Remember == nil {
		g.known = word
	}
	leaving := g.cfg.Leave != "" && g.known == g.cfg.Leave && id != g.known
	if id == "" {
		if g.known != "" && !leaving || word != "" {
			return "", g.missing(word, by), nil
		}
		if id, err = g.create(ctx, leaving); err != nil || id == "" {
			return "", nil, err
		}
	}
	if g.known != "" && id != g.known && !leaving {
		if word == id {
			word = "" // what is remembered speaks against it
		}
		return id, g.other(id, word, by), nil
	}
	if word != "" && id != word {
		g.forget()
		return id, g.other(id, word, by), nil
	}
	g.remember(id)
	return id, nil, nil
}

func (g *Guard) clusterSays() (id, by string) {
	if g.cfg.Cluster == nil {
		return "", ""
	}
	return g.cfg.Cluster()
}

// create gives the bucket an identity, if that is for this process to do. A bucket that takes none, because it is full for
// example, is used as one of a release before this one, and asked again; but not in the place of one that is known. So is one
// that was empty although this process was used before there were identities: it may be the wrong one.
func (g *Guard) create(ctx context.Context, leaving bool) (string, error) {
	if !g.cfg.Create {
		return "", nil
	}
	var id string
	var err error
	if g.cfg.Used && g.known == "" {
		err = g.wasNotEmpty(ctx)
	}
	if err == nil {
		id, err = Create(ctx, g.Bucket, g.now())
	}
	if err != nil && !leaving {
		if !g.warned {
			g.log.Warn("the bucket is given no identity yet", "bucket", g.Name(), "err", err)
		}
		g.warned = true
		return "", nil
	}
	if err == nil {
		g.log.Info("the bucket has an identity now", "bucket", g.Name(), "identity", id)
	}
	return id, err
}

var (
	errEmpty = errors.New("it was empty although this node has been used before: is it the right one?")
	errFound = errors.New("found")
)

// wasNotEmpty returns errEmpty when a look of this life has found nothing in the bucket but what belongs to no tenant. What is
// there later this process may have shipped itself, as it does with all blocks that it still has.
func (g *Guard) wasNotEmpty(ctx context.Context) error {
	if g.empty {
		return errEmpty
	}
	own, _, _ := strings.Cut(Key, "/")
	err := g.Bucket.List(ctx, "", false, func(o bucket.Object) error {
		if o.Key == own+"/" {
			return nil
		}
		return errFound
	})
	switch {
	case errors.Is(err, errFound):
		return nil
	case err == nil:
		g.empty = true
		return errEmpty
	}
	return err
}

// remember keeps the identity that is in use, for this life and, if that can be, for the next.
func (g *Guard) remember(id string) {
	if g.known != id && g.known != "" {
		g.log.Warn("another bucket is accepted in the place of the former one", "bucket", g.Name(), "identity", id,
			"former", g.known)
	}
	g.saved = g.saved && g.known == id
	g.known, g.warned = id, false
	if g.saved || g.cfg.Remember == nil {
		return
	}
	if err := g.cfg.Remember(id); err != nil {
		g.log.Error("the identity of the bucket cannot be kept", "bucket", g.Name(), "identity", id, "err", err)
		return
	}
	g.saved = true
}

// forget drops an identity that this process has met before its cluster told it the right one.
func (g *Guard) forget() {
	if !g.fresh || g.cfg.Remember == nil || g.known == "" {
		return
	}
	if err := g.cfg.Remember(""); err != nil {
		g.log.Error("the identity of another bucket cannot be forgotten", "bucket", g.Name(), "err", err)
		return
	}
	g.known, g.saved = "", false
}

func (g *Guard) missing(word, by string) error {
	return g.refusal("it has no identity", word, by)
}

func (g *Guard) other(id, word, by string) error {
	return g.refusal("its identity is "+id, word, by)
}

// refusal says what the bucket is, what it should be, and what to do.
func (g *Guard) refusal(is, word, by string) error {
	const causes = "a volume that is not mounted, a bucket that was emptied, and a wrong name look like this. Look at %s"
	if word != "" {
		return errkind.New(errkind.Unavailable, "%w: %s: %s, and that of the bucket of %s is %s: "+causes, ErrRefused, g.Name(), is,
			by, word, g.cfg.Setting)
	}
	return errkind.New(errkind.Unavailable, "%w: %s: %s, and that of the bucket before is %s: "+causes+
		" and bring the former bucket back, or accept this one with bucket.accept_new_identity=%s", ErrRefused, g.Name(), is,
		g.known, g.cfg.Setting, g.known)
}

// State says what is known of the bucket, without asking: the identity in use, "" when it has none, and why it is refused.
func (g *Guard) State() (id string, refused error) {
	s := g.state.Load()
	if s == nil {
		return "", nil
	}
	return s.id, s.err
}
