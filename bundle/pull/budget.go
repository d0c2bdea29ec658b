package pull

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/foreign"
)

// loadChart reads a chart. Errors wrap bundle.ErrLimit or bundle.ErrFormat.
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

// chartBudget is what is left to a chart and all that is packed into it. Helm's loader has
// a limit too, for each archive anew.
type chartBudget struct{ unpacked, parsed int64 }

// walk looks whether a chart's archive stays within the budget. Errors wrap
// bundle.ErrLimit or bundle.ErrFormat.
func (b *chartBudget) walk(ctx context.Context, archive []byte, depth int) error {
	if depth > maxChartDepth {
		return fmt.Errorf("%w: its charts are packed into each other more than %d deep", bundle.ErrLimit, maxChartDepth)
	}
	return foreign.Walk(ctx, bytes.NewReader(archive), int64(len(archive)), func(e foreign.Entry) error {
		if e.Dir {
			return nil
		}
		if b.unpacked -= e.Size; b.unpacked < 0 {
			return fmt.Errorf("%w: it unpacks, with the charts in it, to more than %d bytes", bundle.ErrLimit, maxChartUnpacked)
		}
		switch path.Base(e.Name) {
		case "Chart.yaml", "Chart.lock", "values.yaml", "requirements.yaml", "requirements.lock":
			if b.parsed -= e.Size; b.parsed < 0 {
				return fmt.Errorf("%w: its values, and those of the charts in it, have more than %d bytes", bundle.ErrLimit, maxChartParsed)
			}
		}
		if path.Ext(e.Name) != ".tgz" {
			return nil
		}
		f, err := e.Open()
		if err != nil {
			return err
		}
		inner, err := io.ReadAll(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
		return b.walk(ctx, inner, depth+1)
	})
}
