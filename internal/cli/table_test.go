package cli

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTable(t *testing.T) {
	table := NewTable("NAME", ">SIZE", "NOTE")
	table.Row("ä", 5, "")
	table.Row("long name", 12345, "x", "not shown")
	table.Row("z")
	var b bytes.Buffer
	require.NoError(t, table.Write(&b))
	require.Equal(t, "NAME        SIZE  NOTE\nä              5\nlong name  12345  x\nz\n", b.String())
}
