package strictyaml

import "strings"

// Nearest returns the name that the writer of wrong most likely meant, or "" when none is near: at most one edit in
// three characters, where "-" and "_" and case count as equal.
func Nearest(wrong string, names []string) string {
	best, bestDistance := "", len(wrong)/3+1
	for _, name := range names {
		if d := editDistance(fold(wrong), fold(name)); d < bestDistance {
			best, bestDistance = name, d
		}
	}
	return best
}

func fold(s string) string { return strings.ToLower(strings.ReplaceAll(s, "-", "_")) }

// editDistance is Levenshtein's: the least number of inserted, removed and replaced bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
