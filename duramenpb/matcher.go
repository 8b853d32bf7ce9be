package duramenpb

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"
)

// Matcher is a label matcher in a request's JSON. It has bytes in place of strings: a text that is not UTF-8 would be
// another one behind JSON.
type Matcher struct {
	Type  labels.MatchType `json:"type"`
	Name  []byte           `json:"name"`
	Value []byte           `json:"value"`
}

// Matchers returns the messages for ms.
func Matchers(ms []*labels.Matcher) []Matcher {
	out := make([]Matcher, len(ms))
	for i, m := range ms {
		out[i] = Matcher{m.Type, []byte(m.Name), []byte(m.Value)}
	}
	return out
}

// ParseMatchers returns the matchers that Matchers was given. An error is the sender's fault.
func ParseMatchers(ms []Matcher) ([]*labels.Matcher, error) {
	out := make([]*labels.Matcher, len(ms))
	for i, m := range ms {
		if m.Type < labels.MatchEqual || m.Type > labels.MatchNotRegexp {
			return nil, fmt.Errorf("matcher type %d is not known", m.Type)
		}
		var err error
		if out[i], err = labels.NewMatcher(m.Type, string(m.Name), string(m.Value)); err != nil {
			return nil, fmt.Errorf("matcher on %q: %w", m.Name, err)
		}
	}
	return out, nil
}
