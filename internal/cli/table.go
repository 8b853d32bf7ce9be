package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Table is rows of text under a header, written once all are known. A column whose name begins with ">" is aligned to
// the right, as numbers are read.
type Table struct {
	columns []string
	rows    [][]string
}

// NewTable returns an empty table with these columns.
func NewTable(columns ...string) *Table { return &Table{columns: columns} }

// Row adds a row. Cells that are missing are empty, more than there are columns are left out.
func (t *Table) Row(cells ...any) {
	row := make([]string, len(t.columns))
	for i := range min(len(row), len(cells)) {
		row[i] = fmt.Sprint(cells[i])
	}
	t.rows = append(t.rows, row)
}

// Write writes the table.
func (t *Table) Write(w io.Writer) error {
	header, right := make([]string, len(t.columns)), make([]bool, len(t.columns))
	widths := make([]int, len(t.columns))
	for i, name := range t.columns {
		header[i], right[i] = strings.CutPrefix(name, ">")
	}
	all := append([][]string{header}, t.rows...)
	for _, row := range all {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, row := range all {
		var line strings.Builder
		for i, cell := range row {
			if i > 0 {
				line.WriteString("  ")
			}
			fill := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if right[i] {
				cell, fill = fill, cell
			}
			line.WriteString(cell + fill)
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
