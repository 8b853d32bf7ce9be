package listflag

import (
	"flag"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestOccurrencesAddUpAndLayersReplace(t *testing.T) {
	var list []string
	f := flag.NewFlagSet("test", flag.ContinueOnError)
	v := New(&list)
	f.Var(v, "list", "")
	require.NotNil(t, list)
	require.NoError(t, f.Parse([]string{"-list", "a, b,", "-list=c"}))
	require.Equal(t, []string{"a", "b", "c"}, list)
	v.NextLayer()
	require.NoError(t, f.Parse([]string{"-list", "d"}))
	require.Equal(t, []string{"d"}, list)
	v.NextLayer()
	require.NoError(t, f.Parse([]string{"-list", ""}))
	require.Equal(t, []string{}, list)
}
