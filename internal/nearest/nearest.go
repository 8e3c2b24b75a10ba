// Package nearest finds the name that somebody meant, for error messages.
package nearest

// Of returns the name of the list that is closest to got, "" if none is close
// enough to be what was meant. Closeness is the number of letters to insert,
// delete, replace or swap with a neighbour (Damerau and Levenshtein, each
// letter touched once), at most a third of got and at least one.
func Of(got string, names []string) string {
	best, least := "", max(1, len(got)/3)+1
	for _, name := range names {
		if d := distance(got, name); d < least {
			best, least = name, d
		}
	}
	return best
}

func distance(a, b string) int {
	// Three rows of the usual matrix: before the last, last, current.
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, cur := rows[0], rows[1], rows[2]
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(last[j]+1, cur[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], before[j-2]+1)
			}
		}
		rows = [3][]int{last, cur, before}
	}
	return rows[1][len(b)]
}
