package record

import (
	"fmt"
	"strconv"
)

// Commas formats a number with thousands separators.
func Commas(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Human formats a number of bytes with a decimal unit, such as "1.5 MB" (10^6).
func Human(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d bytes", n)
}

// megabytes formats a number of bytes in MB (10^6).
func megabytes(n int64) string {
	tenths := (n + 50_000) / 100_000
	return Commas(tenths/10) + "." + strconv.FormatInt(tenths%10, 10) + " MB"
}

// percent formats part as a percentage of whole.
func percent(part, whole int64) string {
	if whole == 0 || part == 0 {
		return "0 %"
	}
	p := float64(part) / float64(whole) * 100
	if p < 0.1 {
		return "< 0.1 %"
	}
	return fmt.Sprintf("%.1f %%", p)
}

// groups splits the digits of a digest into lines of four groups of four digits.
func groups(hex string) [][]string {
	var lines [][]string
	for len(hex) >= 16 {
		lines = append(lines, []string{hex[:4], hex[4:8], hex[8:12], hex[12:16]})
		hex = hex[16:]
	}
	return lines
}
