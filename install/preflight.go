package install

import (
	"context"
	"errors"
	"fmt"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
)

// preflight has the checks of a plan.
type preflight struct{ *Plan }

// run finds all problems of the installation before anything is written: values, files
// and ports of the host, conflicts with other deployments, disk space, and write access to the
// host and the registry.
func (p preflight) run(ctx context.Context) error {
	o := p.Options
	var problems []error
	release, err := host.New(p.Bundle, host.Site{
		Root:          o.Root,
		HostRoot:      o.HostRoot,
		FirstHostRoot: o.FirstHostRoot,
		Registry:      p.Target.Address,
		PlainHTTP:     o.PlainHTTP,
		Start:         o.Start,
		Values:        o.Values,
		Installed:     p.installed().Current().ID,
	})
	if err == nil {
		p.release = release
		err = errors.Join(p.checkHost(), p.checkApart())
	}
	problems = append(problems, err, p.checkOwners(ctx), p.checkElsewhere())
	if p.release != nil && errors.Join(problems...) == nil {
		if p.done, err = p.already(ctx); p.done != nil || err != nil {
			return err
		}
	}
	if p.release != nil {
		problems = append(problems, p.release.CheckSwitch())
	}
	repos, err := p.repositories()
	if err != nil {
		return errors.Join(append(problems, err)...)
	}
	problems = append(problems, p.checkRoom(repos), p.checkRights())
	if p.Target.Network != nil && !o.InPlace {
		var names []string
		for _, r := range repos {
			names = append(names, r.name)
		}
		problems = append(problems, p.Target.Network.Ready(ctx, names))
	}
	return errors.Join(problems...)
}

// checkApart refuses a data directory that overlaps that of another deployment.
func (p preflight) checkApart() error {
	var problems []error
	for _, d := range p.ledger.Sorted() {
		if d.Name == p.Bundle.Info.Name {
			continue
		}
		other, err := host.ReadRelease(p.Options.Root, d.Name, d.Current().ID)
		if err == nil {
			err = p.release.CheckApart(other)
		} else if host.Lost(err) {
			continue
		}
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// checkElsewhere refuses an implicit change of registry, such as by omitting --registry. A
// host runs one release of a name, whatever registries the name is installed in.
func (p preflight) checkElsewhere() error {
	name, target := p.Bundle.Info.Name, p.Target.Name
	if _, ok := p.ledger.Deployments[ledger.Key(name, target)]; ok {
		return nil
	}
	for _, d := range p.ledger.Sorted() {
		if d.Name != name {
			continue
		}
		if !p.Options.Chosen {
			return fmt.Errorf(
				"%w: %s has been installed here with the registry %s so far; give --registry %[3]s, or --registry %[4]s if it is "+
					"to be installed with that as well",
				bundle.ErrPolicy, name, d.Registry, target,
			)
		}
		p.Options.Warn(
			"%s has been installed here with the registry %s so far, and this is %s; the host runs what was installed last",
			name, d.Registry, target,
		)
	}
	return nil
}

// checkRoom compares the space that registry and files need with the free space on their
// disks.
func (p preflight) checkRoom(repos []*repository) error {
	var demands []disk.Demand
	if p.Target.Store != nil {
		blobs, links := p.all(repos)
		registry, err := p.Target.Store.Space(blobs, links)
		if err != nil {
			return err
		}
		demands = append(demands, registry)
	}
	if p.release != nil {
		demands = append(demands, p.release.Space())
	}
	return disk.NeedAll(demands...)
}

// checkRights checks write access to the directories that will be written.
func (p preflight) checkRights() error {
	dirs := []string{p.Options.Root}
	if p.release != nil {
		dirs = append(dirs, p.release.Writes()...)
	}
	var problems []error
	for _, d := range dirs {
		problems = append(problems, disk.Writable(d))
	}
	return errors.Join(problems...)
}

// content returns everything that the target gets, and the average number of repositories that
// each blob goes into, rounded up.
func (c *content) all(repos []*repository) (all []bundle.Descriptor, links int) {
	for _, m := range c.Bundle.Blobs() {
		all = append(all, bundle.Descriptor{MediaType: m.Type, Digest: m.Digest, Size: m.Size})
	}
	all = append(all, bundle.Descriptor{Digest: c.Bundle.Identity, Size: int64(len(c.Bundle.Root))})
	slot, _, blobs := c.slot()
	all = append(all, slot)
	for d, data := range blobs {
		all = append(all, bundle.Descriptor{Digest: d, Size: int64(len(data))})
	}
	for _, r := range repos {
		links += len(r.blobs) + len(r.manifests)
	}
	return all, (links + len(all) - 1) / len(all)
}
