package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/verify"
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

// checkHost refuses to replace a file of the host, or a link of another deployment, with a
// link.
func (p preflight) checkHost() error {
	foreign, err := p.release.Foreign()
	if err != nil || p.Options.TakeOver || p.again() { // links of other deployments stay theirs
		return err
	}
	var problems []error
	var hosts []string
	for _, path := range foreign {
		owner, ok := p.ledger.Owner(ledger.Path(path))
		switch {
		case !ok:
			hosts = append(hosts, path)
		case owner.Name != p.Bundle.Info.Name:
			problems = append(problems, fmt.Errorf(
				"%w: %s belongs to %s (channel %q); --take-over gives it to %s",
				bundle.ErrPolicy, path, owner.Name, owner.Current().Channel, p.Bundle.Info.Name,
			))
		}
	}
	if len(hosts) > 0 {
		problems = append(problems, fmt.Errorf(
			"%w: the host has something of its own at %s; --take-over keeps it aside and puts it back with uninstall",
			bundle.ErrPolicy, strings.Join(hosts, ", "),
		))
	}
	return errors.Join(problems...)
}

// checkSequence refuses a downgrade, judged by this host's records and by the verified root on
// the target.
func (p preflight) checkSequence(ctx context.Context) error {
	info := p.Bundle.Info
	if slices.Contains(p.ledger.Unknown, info.Name) && !p.Options.AllowDowngrade {
		return fmt.Errorf(
			"%w: %s is installed, and the records that show which sequence it has are lost; restore state.json or receipts/ "+
				"from a backup, or install the newest bundle with --allow-downgrade",
			bundle.ErrPolicy, info.Name,
		)
	}
	if known, ok := p.ledger.Channels[info.Channel]; ok {
		if err := p.checkAgainst(known, "on this host"); err != nil {
			return err
		}
	}
	if p.Options.InPlace && p.ledger.Channels[info.Channel].Identity == p.Bundle.Identity {
		return nil // already installed here, even if other hosts are further; nothing is stored or tagged
	}
	if p.Target.Network == nil {
		return nil // the ledger describes its content
	}
	head, err := p.Target.Network.Root(ctx, p.central, channelTag(info.Channel))
	if err != nil || head == nil {
		return err
	}
	found, _, err := verify.Root(head, p.Options.Policy)
	if err != nil {
		p.Options.Warn("the bundle found on %s is not signed by a trusted key and is not taken into account: %v", p.Target.Name, err)
		return nil
	}
	if found.Channel != info.Channel {
		return nil
	}
	return p.checkAgainst(
		ledger.Channel{Sequence: found.Sequence, Identity: head.Identity(), Pending: p.ledger.Channels[info.Channel].Pending},
		"on "+p.Target.Name,
	)
}

// checkAgainst compares the bundle's sequence with the known state of its channel. A bundle
// that is installed or whose installation was started is never refused.
func (p preflight) checkAgainst(known ledger.Channel, where string) error {
	info, identity := p.Bundle.Info, p.Bundle.Identity
	switch {
	case identity == known.Identity || identity == known.Pending || identity == known.Highest || info.Sequence > known.Sequence:
		return nil
	case info.Sequence == known.Sequence:
		return fmt.Errorf(
			"%w: channel %q has had another bundle with the same sequence %d %s (%s); create this one again with a higher --sequence",
			bundle.ErrPolicy, info.Channel, info.Sequence, where, cmp.Or(known.Pending, known.Identity),
		)
	case p.Options.AllowDowngrade:
		p.Options.Warn("going back on channel %q from sequence %d to %d, as --allow-downgrade says", info.Channel, known.Sequence, info.Sequence)
		return nil
	}
	return fmt.Errorf(
		"%[1]w: it is older than the newest that channel %[3]q has had %[2]s (sequence %[4]d, newest %[5]d); is it the right "+
			"file? oob-bundle rollback goes back to the release before, and --allow-downgrade installs it all the same",
		bundle.ErrPolicy, where, info.Channel, info.Sequence, known.Sequence,
	)
}

// checkOwners refuses to change what another channel installed. A tag that already points to
// the same image is not a change.
func (p preflight) checkOwners(ctx context.Context) error {
	info := p.Bundle.Info
	if p.Options.TakeOver {
		return nil
	}
	if channel, known := p.ledger.Names[info.Name]; known && channel != info.Channel {
		taken, err := host.Keeps(p.Options.Root, info.Name)
		if err != nil {
			return err
		}
		if taken || p.ledger.Has(info.Name) {
			return fmt.Errorf(
				"%w: deployment %s belongs to channel %q, and this bundle is of channel %q; --take-over gives it to this one",
				bundle.ErrPolicy, info.Name, channel, info.Channel,
			)
		}
	}
	for _, i := range p.images {
		for _, tag := range p.tagNames(i) {
			owner, ok := p.foreignOwner(i.Repository, tag)
			if !ok {
				continue
			}
			now, err := p.Target.Resolve(ctx, i.Repository, tag)
			if err != nil {
				return err
			}
			if !meansSame(i, now) {
				return fmt.Errorf("%w: %s/%s:%s belongs to %s (channel %q), and this bundle of channel %q would change it; --take-over allows that",
					bundle.ErrPolicy, p.Target.Address, i.Repository, tag, owner.Name, owner.Current().Channel, info.Channel)
			}
		}
	}
	return nil
}
