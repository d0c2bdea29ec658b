package record

import (
	"fmt"
	"strings"

	"github.com/boombuler/barcode/qr"
)

// quiet is the empty margin that a QR code needs, in modules (ISO/IEC 18004).
const quiet = 4

// code is a QR code as an SVG path, one unit for each module.
type code struct {
	Side int // modules, margin included
	Path string
}

// qrOf encodes text with 15 % redundancy, enough for a folded page.
func qrOf(text string) (code, error) {
	b, err := qr.Encode(text, qr.M, qr.Unicode)
	if err != nil {
		return code{}, err
	}
	side := b.Bounds().Dx()
	var path strings.Builder
	for y := range side {
		for x := 0; x < side; x++ {
			run := 0
			for x+run < side && dark(b.At(x+run, y)) {
				run++
			}
			if run > 0 {
				fmt.Fprintf(&path, "M%d %dh%dv1h-%dz", x+quiet, y+quiet, run, run)
				x += run
			}
		}
	}
	return code{side + 2*quiet, path.String()}, nil
}

func dark(c interface{ RGBA() (r, g, b, a uint32) }) bool {
	r, _, _, _ := c.RGBA()
	return r < 0x8000
}

// part is a piece of a bar. X and Width are percentages of the bar's length.
type part struct {
	X, Width string
	Fill     string // CSS class
}

// bar places pieces side by side. whole is the number of bytes of the full length.
func bar(whole int64, pieces ...piece) []part {
	var list []part
	x := 0.0
	for _, p := range pieces {
		if p.bytes <= 0 || whole <= 0 {
			continue
		}
		w := float64(p.bytes) / float64(whole) * 100
		list = append(list, part{fmt.Sprintf("%.2f%%", min(x, 99.8)), fmt.Sprintf("%.2f%%", max(w, 0.2)), p.fill})
		x += w
	}
	return list
}

type piece struct {
	bytes int64
	fill  string
}
