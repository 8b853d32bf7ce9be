package loadverify

import (
	"context"

	"github.com/duramendb/duramen/internal/loadledger"
	"github.com/duramendb/duramen/internal/loadplan"
	"github.com/duramendb/duramen/internal/seriesgen"
)

// Part is a part of a run: the scrapes [From, To) of the pods [FirstPod, LastPod) of a tenant.
type Part struct {
	Tenant, FirstPod, LastPod, From, To int
}

// Look asks once for a part of a run, by a query, while the run may still be sent, and returns what is wrong with the
// answer. What was acknowledged before the question has to be there; what is not even claimed when the answer has come must
// not be. An AnswerError means that the server answered with another status than 200. Warnings are what it said beside.
func Look(
	ctx context.Context, plan *loadplan.Plan, fates Fates, server *Server, part Part,
) (differences []Difference, warnings []string, err error) {
	w := window{
		tenant: part.Tenant, firstPod: part.FirstPod, lastPod: part.LastPod, from: part.From, to: part.To,
		mint: plan.Begin(part.From), maxt: plan.Begin(part.To) - 1,
	}
	cfg := plan.Config()
	sel := selection{tenant: cfg.Tenants[w.tenant], run: cfg.Run(), mint: w.mint, maxt: w.maxt}
	for pod := w.firstPod; pod < w.lastPod; pod++ {
		sel.pods = append(sel.pods, plan.Generator(w.tenant).Pod(pod*seriesgen.SeriesPerPod))
	}
	c := newComparison(plan, newBefore(plan, fates, w), Query, false, w)
	q := querier{server: server}
	if warnings, err = q.read(ctx, sel, c.series); err != nil {
		return nil, nil, err
	}
	c.finish()
	return c.kept, warnings, nil
}

// before knows which requests of a window were acknowledged at a moment; of all others it tells what is known now.
type before struct {
	fates        Fates
	acknowledged map[[2]int]bool // by chunk and scrape
}

func newBefore(plan *loadplan.Plan, fates Fates, w window) *before {
	b := &before{fates: fates, acknowledged: map[[2]int]bool{}}
	for chunk := plan.Chunk(w.firstPod); chunk <= plan.Chunk(w.lastPod-1); chunk++ {
		for scrape := w.from; scrape < w.to; scrape++ {
			if fates.Fate(w.tenant, chunk, scrape) == loadledger.Acknowledged {
				b.acknowledged[[2]int{chunk, scrape}] = true
			}
		}
	}
	return b
}

// Fate implements Fates.
func (b *before) Fate(tenant, chunk, scrape int) loadledger.Fate {
	if b.acknowledged[[2]int{chunk, scrape}] {
		return loadledger.Acknowledged
	}
	if f := b.fates.Fate(tenant, chunk, scrape); f != loadledger.Acknowledged {
		return f
	}
	return loadledger.Unknown
}
