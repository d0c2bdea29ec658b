package pull

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// loadChart parses a chart's archive. Errors wrap bundle.ErrLimit or bundle.ErrFormat.
func loadChart(ctx context.Context, archive []byte) (*chart.Chart, error) {
	budget := chartBudget{maxChartUnpacked, maxChartParsed}
	if err := budget.walk(ctx, archive, 1); err != nil {
		return nil, err
	}
	c, err := loader.LoadArchive(bytes.NewReader(archive))
	if err != nil {
		return nil, fmt.Errorf("%w: it is not a chart: %w", bundle.ErrFormat, err)
	}
	return c, nil
}

// chartBudget is the number of bytes that a chart and all charts packed into it may still
// use. Helm's loader also has a limit, but applies it to each archive separately. Archives
// are carried unchanged and never unpacked to disk, so only sizes matter.
type chartBudget struct{ unpacked, parsed int64 }

var (
	// chartDocument matches the files that Helm parses as YAML: those at the root of the
	// chart, or of a chart in its charts/.
	chartDocument = regexp.MustCompile(`^[^/]+/(charts/[^/]+/)*(Chart|values|requirements)\.(yaml|lock)$`)
	// packedChart matches the files that Helm opens as packed charts.
	packedChart = regexp.MustCompile(`^[^/]+/(charts/[^/]+/)*charts/[^/._][^/]*\.tgz$`)
)

// walk checks that a chart's archive stays within the budget. Errors wrap
// bundle.ErrLimit or bundle.ErrFormat, or are the cause of the end of ctx.
func (b *chartBudget) walk(ctx context.Context, archive []byte, depth int) error {
	if depth > maxChartDepth {
		return fmt.Errorf("%w: its charts are packed into each other more than %d deep", bundle.ErrLimit, maxChartDepth)
	}
	bad := func(err error) error { return fmt.Errorf("%w: it is not a chart: %w", bundle.ErrFormat, err) }
	plain, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return bad(err)
	}
	in := tar.NewReader(io.LimitReader(plain, 2*maxChartUnpacked)) // includes headers and padding
	for {
		h, err := in.Next()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return bad(err)
		}
		const header = 1 << 10 // bytes charged for each entry besides its data
		if b.unpacked -= h.Size + header; b.unpacked < 0 {
			return fmt.Errorf("%w: it unpacks, with the charts in it, to more than %d bytes", bundle.ErrLimit, maxChartUnpacked)
		}
		name := path.Clean(strings.ReplaceAll(h.Name, `\`, "/"))
		if chartDocument.MatchString(name) {
			if b.parsed -= h.Size; b.parsed < 0 {
				return fmt.Errorf("%w: its values, and those of the charts in it, have more than %d bytes", bundle.ErrLimit, maxChartParsed)
			}
		}
		if !packedChart.MatchString(name) {
			continue
		}
		inner, err := io.ReadAll(in)
		if err != nil {
			return bad(err)
		}
		if err := b.walk(ctx, inner, depth+1); err != nil {
			return err
		}
	}
}
