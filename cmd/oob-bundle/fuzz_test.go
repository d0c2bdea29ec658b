package main

import (
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/oob-bundle/oob-bundle/internal/testkit/seeds"
)

// TestSeeds counts the seeds of the fuzz target, and how many are accepted and refused.
func TestSeeds(t *testing.T) {
	seeds.Targets(t, "FuzzFlags")
	seeds.Count(t, "FuzzFlags", flagSeeds(), 12, 19, 0, fuzzFlags)
}

func flagSeeds() seeds.Of[string] {
	return seeds.Of[string]{
		Taken: []string{
			"docker.io=mirror.example.com:5000/hub",
			"docker.io=localhost",
			"app/linux/amd64=1767225600",
			"a=9223372036854775807",
			"4294967295",
			"4.7GB",
			"25 GiB",
			"65536",
			"1EB",
			"registry.site:5000/oob-bundle/app",
			"registry.site/mirror/oob-bundle/app:channel-x",
			"registry.site/oob-bundle/app@sha256:" + strings.Repeat("0", 64),
		},
		Refused: []string{
			"",
			"=",
			"a=",
			"=a.b",
			"docker.io=mirror",
			"docker.io=https://mirror.example.com",
			"a/b=c.d/e",
			"a=-1",
			"a=b=0",
			"a*=5",
			"a=9223372036854775808",
			"a=b",
			"65535",
			"-4GB",
			"4XB",
			"9999EB",
			"registry.site/app",
			"registry/oob-bundle/app",
			"registry.site/oob-bundle/a/b",
		},
	}
}

// FuzzFlags checks that a parsed flag value is within the limits and, formatted again, equals
// its text.
func FuzzFlags(f *testing.F) {
	for _, s := range flagSeeds().All() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { fuzzFlags(t, s) })
}

// fuzzMirrors checks that parsed mirrors match the flag's text.
func fuzzMirrors(t *testing.T, s string, mirrors map[string]string) {
	t.Helper()
	for from, to := range mirrors {
		host, _, _ := strings.Cut(to, "/")
		if from+"="+to != s || from == "" || strings.Contains(from, "/") || !isHost(host) || len(mirrors) != 1 {
			t.Fatalf("the mirror %q is %q for %q", s, to, from)
		}
	}
}

// fuzzSequences checks that parsed sequences match the flag's text.
func fuzzSequences(t *testing.T, s string, sequences map[string]int64) {
	t.Helper()
	for channel, n := range sequences {
		again, err := parseSequences([]string{channel + "=" + strconv.FormatInt(n, 10)})
		if err != nil || again[channel] != n || n < 0 || !strings.HasPrefix(s, channel+"=") || channel == "" {
			t.Fatalf("the sequence %q is %d of %q: %v", s, n, channel, err)
		}
	}
}

func fuzzFlags(t *testing.T, s string) bool {
	taken := false
	check := func(err error) bool {
		if err != nil && !errors.Is(err, errUsage) {
			t.Fatalf("%q is refused without a reason: %v", s, err)
		}
		taken = taken || err == nil
		return err == nil
	}
	mirrors, err := parseMirrors([]string{s})
	if check(err) {
		fuzzMirrors(t, s, mirrors)
	}
	sequences, err := parseSequences([]string{s})
	if check(err) {
		fuzzSequences(t, s, sequences)
	}
	size, err := parseVolumeSize(s)
	if check(err) {
		again, err := parseVolumeSize(strconv.FormatInt(size, 10))
		if err != nil || again != size || size < minVolume || size > 1<<60 {
			t.Fatalf("the size %q is %d, and that is %d: %v", s, size, again, err)
		}
	}
	address, name, version, err := parseOnRegistry(s)
	if check(err) {
		host, _, _ := strings.Cut(address, "/")
		whole := address + "/oob-bundle/" + name
		if !strings.HasPrefix(s, whole) || strings.Trim(s[len(whole):], ":@") != strings.Trim(version, ":@") || strings.Contains(name, "/") ||
			!isHost(host) {
			t.Fatalf("%q is %q of %q at %q", s, version, name, address)
		}
	}
	return taken
}
