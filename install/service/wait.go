package service

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/install/host"
)

// Preflight reports everything that would keep a staged release from starting in its cluster.
// It checks Kubernetes deployments only.
func (m *Manager) Preflight(ctx context.Context, a *host.About) error {
	if a.Form != "kubernetes" {
		return nil
	}
	ctx = m.masking(ctx, a)
	rec, err := host.ReadStarted(m.root, a.Name)
	if err != nil {
		return err
	}
	c, err := m.cluster(ctx, rec)
	if err != nil {
		return err
	}
	if err := c.check(ctx, a); err != nil {
		return fmt.Errorf("the cluster is not ready for %s %s: %w", a.Name, a.Version, err)
	}
	return nil
}

// Waiting returns the parts of a started release that are not ready.
func (m *Manager) Waiting(ctx context.Context, a *host.About) ([]string, error) {
	ctx = m.masking(ctx, a)
	e, err := m.of(ctx, a)
	if err != nil {
		return nil, err
	}
	return e.unwell(ctx, a)
}

// PutRight applies a started release to its cluster again.
func (m *Manager) PutRight(ctx context.Context, a *host.About) error {
	ctx = m.masking(ctx, a)
	e, err := m.of(ctx, a)
	if err != nil {
		return err
	}
	rec, err := m.started(a)
	if err != nil {
		return err
	}
	rec.Starting = true
	if err := rec.Write(m.root, a.Name); err != nil {
		return err
	}
	if err := e.start(ctx, a, nil); err != nil {
		return err
	}
	rec.Starting = false
	return rec.Write(m.root, a.Name)
}

// Drift returns the objects of a started release that are missing or changed in its cluster.
// It returns nil if no cluster runs the release.
func (m *Manager) Drift(ctx context.Context, a *host.About) ([]string, error) {
	rec, err := host.ReadStarted(m.root, a.Name)
	if err != nil || a.Form != "kubernetes" || rec == nil || rec.Release != a.ID {
		return nil, err
	}
	c, err := m.cluster(m.masking(ctx, a), rec)
	if err != nil {
		return nil, err
	}
	return c.drift(m.masking(ctx, a), a)
}

// wait polls until two checks in a row find everything healthy.
func (m *Manager) wait(ctx context.Context, e engine, a *host.About) error {
	deadline := time.Now().Add(m.timeout)
	for well := 0; ; {
		why, err := unwell(ctx, e, a)
		if err != nil {
			return err
		}
		if why == "" {
			if well++; well == 2 {
				return nil
			}
		} else {
			well = 0
		}
		if why != "" && time.Now().After(deadline) {
			return fmt.Errorf("after %s %s", m.timeout, why)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(2 * time.Second):
		}
	}
}

// unwell returns what is wrong with a running release, or "".
func unwell(ctx context.Context, e engine, a *host.About) (string, error) {
	sick, err := e.unwell(ctx, a)
	if err != nil {
		return "", err
	}
	if len(sick) > 0 {
		return strings.Join(sick, ", ") + " is not up", nil
	}
	client := &http.Client{Timeout: 10 * time.Second}
	for _, u := range a.Health {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
		if err != nil {
			return "", err
		}
		res, err := client.Do(req)
		if err != nil {
			return u + " does not answer", nil //nolint:nilerr // an address that does not answer is a result, not a failure
		}
		if err := res.Body.Close(); err != nil {
			return "", err
		}
		if res.StatusCode != http.StatusOK {
			return fmt.Sprintf("%s answers %s", u, res.Status), nil
		}
	}
	return "", nil
}

func (m *Manager) keepLogs(ctx context.Context, e engine, a *host.About) (string, error) {
	var b bytes.Buffer
	e.logs(ctx, a, &b)
	dir := filepath.Join(host.Base(m.root, a.Name), "logs")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	file := filepath.Join(dir, "start-"+a.ID+".log")
	return file, disk.WriteFile(file, b.Bytes(), 0o600)
}
