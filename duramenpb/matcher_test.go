package duramenpb

import (
	"encoding/json"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/stretchr/testify/require"
)

func TestMatchersSurviveTheirJSON(t *testing.T) {
	want := []*labels.Matcher{
		labels.MustNewMatcher(labels.MatchEqual, "a", "\xff not UTF-8"),
		labels.MustNewMatcher(labels.MatchNotEqual, "\xfe", ""),
		labels.MustNewMatcher(labels.MatchRegexp, "__name__", "x|y.*"),
		labels.MustNewMatcher(labels.MatchNotRegexp, "b", ".+"),
	}
	data, err := json.Marshal(Matchers(want))
	require.NoError(t, err)
	var sent []Matcher
	require.NoError(t, json.Unmarshal(data, &sent))
	got, err := ParseMatchers(sent)
	require.NoError(t, err)
	require.Len(t, got, len(want))
	for i := range want {
		require.Equal(t, want[i].String(), got[i].String())
	}
}

func TestMatchersThatAreNoneAreAnError(t *testing.T) {
	_, err := ParseMatchers([]Matcher{{Type: 17}})
	require.ErrorContains(t, err, "matcher type 17")
	_, err = ParseMatchers([]Matcher{{Type: labels.MatchRegexp, Name: []byte("a"), Value: []byte("(")}})
	require.ErrorContains(t, err, `matcher on "a"`)
}
