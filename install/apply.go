package install

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
)

// ErrIncomplete reports that the installation started to switch and did not finish. The same
// command finishes it.
var ErrIncomplete = errors.New("installation incomplete")

// writers is the number of blobs that are stored in parallel.
const writers = 4

// Result is the outcome of Apply.
type Result struct {
	Receipt *ledger.Receipt
	Nothing bool // the bundle was already installed
	Release *host.About
	Notes   []string // what the operator still has to do
}

// Apply carries out the plan. No tag moves until every byte is stored and verified; a damaged
// bundle reverts what this run stored. Errors wrap bundle.ErrDigest, bundle.ErrPolicy or
// ErrIncomplete, or are the target's or the file system's.
func (p *Plan) Apply(ctx context.Context, watch bundle.Watch) (*Result, error) {
	if p.done != nil {
		return p.done, nil
	}
	repos, err := p.repositories()
	if err != nil {
		return nil, err
	}
	if p.Options.InPlace {
		if err := p.present(ctx, repos[1:]); err != nil {
			return nil, err
		}
		return p.applyFiles(ctx, repos)
	}
	stored, err := p.store(ctx, repos, watch)
	if err != nil {
		if errors.Is(err, bundle.ErrDigest) || errors.Is(err, bundle.ErrFormat) {
			err = errors.Join(err, p.Target.undo())
		}
		return nil, err
	}
	if err := p.Target.sync(); err != nil {
		return nil, err
	}
	if done, err := p.takeBack(ctx); err != nil || done != nil {
		return done, err
	}
	return p.finish(ctx, repos, stored)
}

// present checks that the target has every blob in the repository from which hosts pull it.
// The content is not hashed: the client that pulls a blob verifies it.
func (c *content) present(ctx context.Context, repos []*repository) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for _, r := range repos {
		for _, d := range r.blobs {
			g.Go(func() error {
				m, ok := c.Bundle.Place(d)
				if !ok {
					return fmt.Errorf("%w: blob %s is not in the bundle", bundle.ErrFormat, d)
				}
				has, err := c.Target.HasBlob(ctx, r.name, bundle.Descriptor{MediaType: m.Type, Digest: d, Size: m.Size})
				if err == nil && !has {
					err = fmt.Errorf(
						"%w: blob %s of %s/%s; the host that has put the bundle there puts it right with oob-bundle repair",
						ErrMissing, d, c.Target.Address, r.name,
					)
				}
				return err
			})
		}
	}
	return g.Wait()
}

// applyFiles is Apply for a target that already has all the content. It installs only files.
func (p *Plan) applyFiles(ctx context.Context, repos []*repository) (*Result, error) {
	s := &stored{partial: map[string]bool{}}
	for _, i := range p.images {
		if i.Partial && i.Tag != "" {
			d, err := p.Target.Resolve(ctx, i.Repository, i.Tag)
			if err != nil {
				return nil, err
			}
			s.partial[i.Reference] = d == i.Digest
		}
	}
	if done, err := p.takeBack(ctx); err != nil || done != nil {
		return done, err
	}
	return p.finish(ctx, repos, s)
}

// finish stages the files and switches to the new release.
func (p *Plan) finish(ctx context.Context, repos []*repository, stored *stored) (*Result, error) {
	if p.Options.Again { // all other content has been verified
		drift, err := p.release.Repair(ctx)
		if err != nil {
			return nil, err
		}
		p.drift = append(p.drift, drift...)
	}
	next, err := p.release.Stage(ctx)
	if err != nil {
		return nil, err
	}
	current, err := host.Current(p.Options.Root, p.Bundle.Info.Name)
	if err != nil {
		return nil, err
	}
	if p.Options.Before != nil {
		if err := p.Options.Before(ctx, next); err != nil {
			return nil, err
		}
	}
	wanted, err := p.wanted(ctx, repos, stored)
	if err != nil {
		return nil, err
	}
	receipt, err := p.switchOver(ctx, wanted, stored, current, next)
	if err != nil {
		return nil, err
	}
	return &Result{Receipt: receipt, Release: next, Notes: p.release.Notes}, nil
}

// currentRelease returns the current release of a deployment, or nil.
func currentRelease(root, name string) (*host.About, error) {
	id, err := host.Current(root, name)
	if err != nil || id == "" {
		return nil, err
	}
	return host.ReadRelease(root, name, id)
}

// installed returns the deployment of this name and target. It has no releases if it is not
// installed.
func (p *Plan) installed() ledger.Deployment {
	return p.ledger.Deployments[ledger.Key(p.Bundle.Info.Name, p.Target.Name)]
}

// already returns a result if exactly this bundle is already installed, or nil.
func (p *Plan) already(ctx context.Context) (*Result, error) {
	info, d := p.Bundle.Info, p.installed()
	have := d.Current()
	same := have.Identity == p.Bundle.Identity && have.ID == p.release.ID && have.Channel == info.Channel
	if !same || p.Options.Again || p.journal != nil {
		return nil, nil
	}
	release, err := currentRelease(p.Options.Root, info.Name)
	if err != nil || release == nil || release.ID != p.release.ID {
		return nil, nil //nolint:nilerr // it is installed again
	}
	if !p.Options.TakeOver {
		release.Links = OwnLinks(p.ledger, release)
	}
	if drift, err := host.CheckLinks(p.Options.Root, release); err != nil || len(drift) > 0 {
		return nil, err
	}
	if tagged, err := p.tagged(ctx, d); err != nil || !tagged {
		return nil, err
	}
	receipt, err := p.ledger.Receipt(p.Options.Root, d, have, release)
	return &Result{Receipt: receipt, Release: release, Nothing: true}, err
}

// tagged reports whether the tags of the installed release have the right values.
func (p *Plan) tagged(ctx context.Context, d ledger.Deployment) (bool, error) {
	have := d.Current()
	if len(p.ledger.Tags(d, have.ID)) == 0 && !have.InPlace { // the record of the tags is lost
		return false, nil
	}
	wanted := append(Published(p.ledger, d), ledger.Placed{Place: p.place(p.central, retentionTag(have.Identity, 0)), Value: have.Identity})
	// A signature that was added since then must be in the registry, too.
	channel := p.ledger.Channels[have.Channel]
	if slot, _, _ := p.slot(); !p.Options.InPlace && channel.Identity == have.Identity && channel.Highest == have.Identity {
		wanted = append(wanted, ledger.Placed{Place: p.place(p.central, channelTag(have.Channel)), Value: slot.Digest})
	}
	for _, t := range wanted {
		_, repo, tag, _ := t.Place.Split()
		now, err := p.Target.Resolve(ctx, repo, tag)
		if err != nil || now != t.Value {
			return false, err
		}
	}
	return true, nil
}

// again reports whether the plan makes the release that is already installed.
func (p *Plan) again() bool {
	return p.release != nil && p.installed().Current().ID == p.release.ID
}

func (p *Plan) change() *change {
	return &change{root: p.Options.Root, ledger: p.ledger, target: p.Target, warn: p.Options.Warn, yielding: p.again() && !p.Options.TakeOver}
}

// takeBack reverts a change that another run left unfinished, unless the change is this
// installation. If this installation is already recorded, takeBack finishes it and returns the
// result.
func (p *Plan) takeBack(ctx context.Context) (*Result, error) {
	j := p.journal
	if j == nil {
		return nil, nil
	}
	if j.Action != ledger.ActionInstall {
		return nil, Unfinished(p.Options.Root, j)
	}
	own := j.Identity == p.Bundle.Identity && j.Release == p.release.ID
	if own && !j.Recorded(p.ledger) {
		return nil, nil
	}
	if err := p.change().settle(ctx, j); err != nil {
		return nil, err
	}
	p.journal = nil // the channel's sequence stays recorded, and the bundle may still be installed
	if !own {
		return nil, nil
	}
	return p.already(ctx)
}

// Repair carries out the plan even if the bundle is installed. It restores files and links
// that have drifted, after all content of the bundle has been verified. It returns the files
// and links that were wrong.
func (p *Plan) Repair(ctx context.Context, watch bundle.Watch) ([]host.Drift, error) {
	about, err := currentRelease(p.Options.Root, p.Bundle.Info.Name)
	switch {
	case err != nil && !host.Lost(err):
		return nil, err
	case err != nil: // the files of the release are written again
	case about == nil:
		p.drift = append(p.drift, host.Drift{Path: filepath.Join(host.Base(p.Options.Root, p.Bundle.Info.Name), "current"), What: "link"})
	default:
		about.Links = OwnLinks(p.ledger, about)
		if p.drift, err = host.CheckLinks(p.Options.Root, about); err != nil {
			return nil, err
		}
	}
	_, err = p.Apply(ctx, watch)
	return p.drift, err
}
