package ledger_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/install/ledger"
)

const site = "embedded"

func digest(text string) bundle.Digest {
	if text == "" {
		return ""
	}
	return bundle.DigestOf([]byte(text))
}

func tag(name string) ledger.Place { return ledger.Tag(site, "team/app", name) }

// registry holds the values of tags, and the ledger that led to them.
type registry struct {
	*ledger.Ledger
	tags map[ledger.Place]bundle.Digest
}

func newRegistry(before map[string]string) *registry {
	r := &registry{ledger.New(), map[ledger.Place]bundle.Digest{}}
	for name, value := range before {
		r.tags[tag(name)] = digest(value)
	}
	return r
}

// change moves the tags that differ between the ledgers, and those of the release.
func (r *registry) change(next *ledger.Ledger, own ...ledger.Wanted) {
	for _, m := range ledger.Diff(r.Ledger, next, site) {
		if r.tags[m.Place] == m.From {
			r.set(m.Place, m.To)
		}
	}
	for _, w := range own {
		r.set(w.Place, next.Value(w.Place))
	}
	r.Ledger = next
}

func (r *registry) set(p ledger.Place, to bundle.Digest) {
	if to == "" {
		delete(r.tags, p)
		return
	}
	r.tags[p] = to
}

// install installs version n of a deployment with the given tag values.
func (r *registry) install(name string, n int, tags map[string]string) {
	var wanted []ledger.Wanted
	for _, t := range slices.Sorted(maps.Keys(tags)) {
		wanted = append(wanted, ledger.Wanted{Place: tag(t), Value: digest(tags[t]), Found: r.tags[tag(t)]})
	}
	release := ledger.Release{ID: fmt.Sprintf("%s-%d", name, n), Identity: digest(name), Channel: name, Version: fmt.Sprint(n)}
	r.change(r.With(name, site, release, wanted), wanted...)
}

func (r *registry) rollback(name string) {
	if d := r.Deployments[ledger.Key(name, site)]; len(d.Releases) > 1 {
		r.change(r.Back(d, d.Releases[1].ID))
	}
}

func (r *registry) uninstall(name string) {
	if d, ok := r.Deployments[ledger.Key(name, site)]; ok {
		r.change(r.Without(d))
	}
}

// TestValue checks the value of a tag after changes to deployments that share it.
func TestValue(t *testing.T) {
	type step func(r *registry)
	install := func(name string, n int, value string) step {
		return func(r *registry) {
			tags := map[string]string{}
			if value != "" {
				tags["1"] = value
			}
			r.install(name, n, tags)
		}
	}
	rollback := func(name string) step { return func(r *registry) { r.rollback(name) } }
	uninstall := func(name string) step { return func(r *registry) { r.uninstall(name) } }
	others := func(value string) step { return func(r *registry) { r.set(tag("1"), digest(value)) } }
	for name, row := range map[string]struct {
		before string
		steps  []step
		want   string
	}{
		"installed":         {"", []step{install("a", 1, "a1")}, "a1"},
		"removed again":     {"", []step{install("a", 1, "a1"), uninstall("a")}, ""},
		"somebody's before": {"x", []step{install("a", 1, "a1"), uninstall("a")}, "x"},
		"upgraded":          {"x", []step{install("a", 1, "a1"), install("a", 2, "a2")}, "a2"},
		"rolled back":       {"x", []step{install("a", 1, "a1"), install("a", 2, "a2"), rollback("a")}, "a1"},
		"rolled back and removed": {
			"x", []step{install("a", 1, "a1"), install("a", 2, "a2"), rollback("a"), uninstall("a")}, "x",
		},
		"dropped, and kept for a rollback": {"x", []step{install("a", 1, "a1"), install("a", 2, "")}, "a1"},
		"dropped by three releases": {
			"x", []step{install("a", 1, "a1"), install("a", 2, ""), install("a", 3, ""), install("a", 4, "")}, "x",
		},
		"the last one has it": {"x", []step{install("a", 1, "a1"), install("b", 1, "b1")}, "b1"},
		"the last one goes":   {"x", []step{install("a", 1, "a1"), install("b", 1, "b1"), uninstall("b")}, "a1"},
		"the first one goes":  {"x", []step{install("a", 1, "a1"), install("b", 1, "b1"), uninstall("a")}, "b1"},
		"both go": {
			"x", []step{install("a", 1, "a1"), install("b", 1, "b1"), uninstall("a"), uninstall("b")}, "x",
		},
		"both go, the other way round": {
			"x", []step{install("a", 1, "a1"), install("b", 1, "b1"), uninstall("b"), uninstall("a")}, "x",
		},
		"taken from each other": {
			"x", []step{install("a", 1, "a1"), install("b", 1, "b1"), install("a", 1, "a1"), uninstall("a")}, "b1",
		},
		"rolled back to what the other one had": {
			"x", []step{install("a", 1, "a1"), install("b", 1, "b1"), install("a", 2, "a2"), rollback("a")}, "b1",
		},
		"the owner drops it":                      {"x", []step{install("a", 1, "a1"), install("b", 1, "b1"), install("b", 2, "")}, "a1"},
		"moved by somebody else since":            {"x", []step{install("a", 1, "a1"), others("y"), uninstall("a")}, "y"},
		"moved by somebody else, then upgraded":   {"x", []step{install("a", 1, "a1"), others("y"), install("a", 2, "a2"), uninstall("a")}, "y"},
		"removed by somebody else":                {"x", []step{install("a", 1, "a1"), others(""), install("a", 2, "a2"), uninstall("a")}, ""},
		"moved by somebody else, and rolled back": {"x", []step{install("a", 1, "a1"), install("a", 2, "a2"), others("y"), rollback("a")}, "y"},
	} {
		r := newRegistry(nil)
		r.set(tag("1"), digest(row.before))
		for _, s := range row.steps {
			s(r)
		}
		if got := r.tags[tag("1")]; got != digest(row.want) {
			t.Errorf("%s: the tag is %s, not %q", name, got, row.want)
		}
	}
}

// TestYields: a place stays with its owner, and then passes to the deployment that yielded.
func TestYields(t *testing.T) {
	l := ledger.New()
	own := ledger.Wanted{Place: tag("1"), Value: digest("a")}
	l = l.With("a", site, ledger.Release{ID: "a-1", Channel: "a"}, []ledger.Wanted{own})
	yields := ledger.Wanted{Place: tag("1"), Value: digest("b"), Found: digest("a"), Yields: true}
	l = l.With("b", site, ledger.Release{ID: "b-1", Channel: "b"}, []ledger.Wanted{yields})
	if owner, _ := l.Owner(tag("1")); owner.Name != "a" || l.Value(tag("1")) != digest("a") {
		t.Errorf("%s has it", owner.Name)
	}
	l = l.Without(l.Deployments[ledger.Key("a", site)])
	if owner, _ := l.Owner(tag("1")); owner.Name != "b" || l.Value(tag("1")) != digest("b") {
		t.Errorf("then %s has it", owner.Name)
	}
}

// TestInPlace: tags that another host set are never moved.
func TestInPlace(t *testing.T) {
	l := ledger.New()
	next := l.With(
		"a",
		site,
		ledger.Release{ID: "a-1", InPlace: true},
		[]ledger.Wanted{{Place: tag("1"), Value: digest("a"), Found: digest("a")}},
	)
	if list := ledger.Diff(next, next.Without(next.Deployments[ledger.Key("a", site)]), site); len(list) > 0 {
		t.Errorf("uninstalling it moves %v", list)
	}
}

// TestUndo makes random changes to three deployments that share three tags. Undoing a change
// moves every tag back. After all deployments are removed, the tags have their first values.
func TestUndo(t *testing.T) {
	names, tags := []string{"a", "b", "c"}, []string{"1", "2", "3"}
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // must be reproducible
		r := newRegistry(map[string]string{"1": "x"})
		first := maps.Clone(r.tags)
		for n := range 20 {
			old, before := r.Ledger, maps.Clone(r.tags)
			name := names[random.IntN(len(names))]
			switch op := random.IntN(6); op {
			case 0:
				r.uninstall(name)
			case 1:
				r.rollback(name)
			default:
				wanted := map[string]string{}
				for _, t := range tags {
					if random.IntN(2) == 0 {
						wanted[t] = fmt.Sprint(name, random.IntN(3))
					}
				}
				r.install(name, n, wanted)
			}
			after := maps.Clone(r.tags)
			for _, m := range ledger.Diff(r.Ledger, old, site) {
				if after[m.Place] != m.From {
					t.Fatalf("seed %d: %s is %s and the ledger says %s", seed, m.Place, after[m.Place], m.From)
				}
				if after[m.Place] = m.To; m.To == "" {
					delete(after, m.Place)
				}
			}
			if diff := cmp.Diff(before, after); diff != "" {
				t.Fatalf("seed %d: undone, it is something else: %s", seed, diff)
			}
		}
		random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for _, name := range names {
			r.uninstall(name)
		}
		if diff := cmp.Diff(first, r.tags); diff != "" || len(r.Claims)+len(r.Before) > 0 {
			t.Fatalf("seed %d: %s %v %v", seed, diff, r.Claims, r.Before)
		}
	}
}
