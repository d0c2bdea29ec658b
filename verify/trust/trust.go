// Package trust manages the site's directory of public keys and its policy. The directory is
// on the isolated side, below the root directory:
//
//	trust/KEY.pub      one public key each, PEM
//	trust/policy.json  threshold, lowest sequences, and which channels a key may sign for
//
// A directory or file that others can write is refused, because a user who can add a key can
// install anything.
package trust

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle/publickey"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/verify"
)

// ErrWritable marks a file or directory that lets other users change what the site trusts.
var ErrWritable = errors.New("others can write it")

// ErrUsage marks a request that is invalid, or impossible with the present keys.
var ErrUsage = errors.New("not possible")

// policyFile is the content of trust/policy.json.
type policyFile struct {
	APIVersion  string              `json:"apiVersion"`
	Kind        string              `json:"kind"` // "TrustPolicy"
	Threshold   int                 `json:"threshold"`
	MinSequence map[string]int64    `json:"minSequence"`
	Channels    map[string][]string `json:"channels"` // fingerprint → globs; none means all
}

// Store is the trust directory of one root. A directory that does not exist counts as empty.
type Store struct{ dir string }

// Open returns the store below root.
func Open(root string) Store { return Store{filepath.Join(root, "trust")} }

// Policy reads the keys and the policy. Errors wrap ErrWritable, ErrUsage, fs.ErrPermission,
// bundle.ErrFormat or bundle.ErrNewer.
func (s Store) Policy() (verify.Policy, error) {
	p, _, err := s.load()
	if err != nil {
		return verify.Policy{}, err
	}
	if n := distinct(p.Keys); n > 0 && p.Threshold > n {
		return verify.Policy{}, fmt.Errorf("%w: %s asks for %d keys and the site trusts %d; add keys with oob-bundle trust add",
			ErrUsage, s.policyPath(), p.Threshold, n)
	}
	return p, nil
}

func (s Store) load() (verify.Policy, policyFile, error) {
	file := policyFile{APIVersion: bundle.APIVersion, Kind: "TrustPolicy", MinSequence: map[string]int64{}, Channels: map[string][]string{}}
	entries, err := os.ReadDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return verify.Policy{}, file, nil
	}
	if err != nil {
		return verify.Policy{}, file, err
	}
	if err := RefuseWritable(s.dir); err != nil {
		return verify.Policy{}, file, err
	}
	var policy verify.Policy
	for _, e := range entries {
		if filepath.Ext(e.Name()) != ".pub" {
			continue
		}
		k, err := s.readKey(e.Name())
		if err != nil {
			return verify.Policy{}, file, err
		}
		policy.Keys = append(policy.Keys, k)
	}
	if err := s.readPolicy(&file); err != nil {
		return verify.Policy{}, file, err
	}
	for i, k := range policy.Keys {
		policy.Keys[i].Channels = file.Channels[k.Fingerprint.String()]
	}
	policy.Threshold, policy.MinSequence = file.Threshold, file.MinSequence
	return policy, file, nil
}

func distinct(keys []verify.Key) int {
	set := map[bundle.Fingerprint]bool{}
	for _, k := range keys {
		set[k.Fingerprint] = true
	}
	return len(set)
}

func (s Store) policyPath() string { return filepath.Join(s.dir, "policy.json") }

func (s Store) readKey(name string) (verify.Key, error) {
	path := filepath.Join(s.dir, name)
	if err := refuseLink(path); err != nil {
		return verify.Key{}, err
	}
	if err := RefuseWritable(path); err != nil {
		return verify.Key{}, err
	}
	k, err := ReadKey(path)
	k.Name = name
	return k, err
}

// ReadKeyFile returns the content of a public key file. It refuses a file larger than
// publickey.MaxFile.
func ReadKeyFile(path string) ([]byte, error) {
	data, err := disk.ReadFile(path, publickey.MaxFile)
	if errors.Is(err, disk.ErrNotFile) {
		return nil, fmt.Errorf("%w: %w; give the key itself", ErrUsage, err)
	}
	if errors.Is(err, bundle.ErrLimit) {
		return nil, fmt.Errorf("%w: %s is not a public key: it has more than %d bytes", ErrUsage, path, publickey.MaxFile)
	}
	return data, err
}

// ReadKey reads and parses a public key file.
func ReadKey(path string) (verify.Key, error) {
	data, err := ReadKeyFile(path)
	if err != nil {
		return verify.Key{}, err
	}
	k, err := publickey.Parse(data)
	if err != nil {
		return verify.Key{}, fmt.Errorf("%w: %s is not a public key that can be used: %w", ErrUsage, path, err)
	}
	return verify.Key{Key: k, Name: path}, nil
}

// refuseLink requires a regular file, because others may be able to write the target of a
// link. The error wraps ErrWritable or is the file system's.
func refuseLink(path string) error {
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode().IsRegular() {
		return err
	}
	return fmt.Errorf(
		"%w: %s is not a file of its own directory, and others could turn it elsewhere; put the file itself there",
		ErrWritable, path,
	)
}

func (s Store) readPolicy(file *policyFile) error {
	if err := refuseLink(s.policyPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	data, err := disk.ReadFile(s.policyPath(), bundle.MaxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := RefuseWritable(s.policyPath()); err != nil {
		return err
	}
	if err := bundle.DecodeRecord(data, file); err != nil {
		return fmt.Errorf(
			"%s: %w; put it back from a backup, or move it away and set its rules again with oob-bundle trust add and trust policy",
			s.policyPath(), err,
		)
	}
	if file.APIVersion != bundle.APIVersion || file.Kind != "TrustPolicy" {
		return fmt.Errorf("%w: %s is a %q of %q", bundle.ErrNewer, s.policyPath(), file.Kind, file.APIVersion)
	}
	// A limit without a valid fingerprint or without a channel would have no effect.
	for id, globs := range file.Channels {
		if _, err := bundle.ParseFingerprint(id); err != nil || len(globs) == 0 {
			return fmt.Errorf("%w: %s limits %q to %q, which is no key or no channel", ErrUsage, s.policyPath(), id, globs)
		}
	}
	if file.Threshold < 0 {
		return fmt.Errorf("%w: %s has the threshold %d", ErrUsage, s.policyPath(), file.Threshold)
	}
	return nil
}

// globText matches the characters of a channel, and * and ?.
var globText = regexp.MustCompile(`^[A-Za-z0-9._+/*?-]+$`)

// EveryChannel is the glob that every channel matches.
const EveryChannel = "*"

// Add trusts a key for the channels that match the glob; "" and EveryChannel mean all. If the
// key is already trusted, Add adds the glob. It refuses "" if the key is limited: only
// EveryChannel removes a limit.
func (s Store) Add(pem []byte, glob string) (verify.Key, error) {
	public, err := publickey.Parse(pem)
	k := verify.Key{Key: public}
	if err != nil {
		return k, fmt.Errorf("%w: it is not a public key that can be used: %w", ErrUsage, err)
	}
	if glob != "" && !globText.MatchString(glob) {
		return k, fmt.Errorf("%w: no channel is like %q: it may have letters, digits and . _ + / - with * and ?", ErrUsage, glob)
	}
	policy, file, err := s.load()
	if err != nil {
		return k, err
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return k, err
	}
	at := slices.IndexFunc(policy.Keys, func(o verify.Key) bool { return o.Fingerprint == k.Fingerprint })
	known := at >= 0
	id := k.Fingerprint.String()
	switch old := file.Channels[id]; {
	case glob == "" && known && len(old) > 0:
		return k, fmt.Errorf(
			"%w: the key is trusted for %s only; --channel '%s' trusts it for every channel",
			ErrUsage, strings.Join(old, ", "), EveryChannel,
		)
	case glob == "" || glob == EveryChannel:
		delete(file.Channels, id)
	case known && len(old) == 0: // so far trusted for every channel
		file.Channels[id] = []string{glob}
	case !slices.Contains(old, glob):
		file.Channels[id] = append(old, glob)
	}
	k.Channels = file.Channels[id]
	// Write the policy first, so that a key is never present without its limits.
	if err := s.write(file); err != nil {
		return k, err
	}
	if known {
		k.Name = policy.Keys[at].Name
		return k, nil
	}
	k.Name = hex.EncodeToString(k.Fingerprint[:8]) + ".pub"
	return k, s.replace(filepath.Join(s.dir, k.Name), pem)
}

// Remove stops trusting a key. It accepts the fingerprint, or a prefix with at least six
// characters after "SHA256:".
func (s Store) Remove(fingerprint string) (verify.Key, error) {
	policy, file, err := s.load()
	if err != nil {
		return verify.Key{}, err
	}
	var found []verify.Key
	for _, k := range policy.Keys {
		id := k.Fingerprint.String()
		if len(fingerprint) >= len("SHA256:")+6 && strings.HasPrefix(id, fingerprint) {
			found = append(found, k)
		}
	}
	switch n := distinct(found); {
	case n == 0 && (!strings.HasPrefix(fingerprint, "SHA256:") || len(fingerprint) < len("SHA256:")+6):
		return verify.Key{}, fmt.Errorf(
			"%w: %q is no fingerprint, nor six characters and more of one; it begins with SHA256:, as oob-bundle trust list shows them",
			ErrUsage, fingerprint,
		)
	case n == 0:
		return verify.Key{}, fmt.Errorf("%w: no trusted key has the fingerprint %q; oob-bundle trust list shows them", ErrUsage, fingerprint)
	case n > 1:
		return verify.Key{}, fmt.Errorf("%w: %q is the beginning of %d fingerprints; give more of it", ErrUsage, fingerprint, n)
	}
	if left := distinct(policy.Keys) - 1; left > 0 && left < file.Threshold {
		return verify.Key{}, fmt.Errorf(
			"%w: the threshold is %d and only %s would be left; add the key that replaces it first with oob-bundle trust add, "+
				"or lower the threshold with oob-bundle trust policy --threshold %d",
			ErrUsage, file.Threshold, countKeys(left), left,
		)
	}
	for _, k := range found {
		if err := os.Remove(filepath.Join(s.dir, k.Name)); err != nil {
			return verify.Key{}, err
		}
	}
	delete(file.Channels, found[0].Fingerprint.String())
	return found[0], s.write(file)
}

// SetPolicy changes the threshold (0 keeps it) and the lowest sequences of the given channels.
func (s Store) SetPolicy(threshold int, minSequence map[string]int64) (verify.Policy, error) {
	policy, file, err := s.load()
	if err != nil {
		return verify.Policy{}, err
	}
	if n := distinct(policy.Keys); threshold > n {
		return verify.Policy{}, fmt.Errorf(
			"%w: a threshold of %d with %s would refuse everything; add the keys first",
			ErrUsage, threshold, countKeys(n),
		)
	}
	if threshold > 0 {
		file.Threshold = threshold
	}
	maps.Copy(file.MinSequence, minSequence)
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return verify.Policy{}, err
	}
	if err := s.write(file); err != nil {
		return verify.Policy{}, err
	}
	return s.Policy()
}

func countKeys(n int) string {
	if n == 1 {
		return "1 trusted key"
	}
	return fmt.Sprintf("%d trusted keys", n)
}

func (s Store) write(file policyFile) error {
	data, err := bundle.Encode(file)
	if err != nil {
		return err
	}
	return s.replace(s.policyPath(), append(data, '\n'))
}

// replace writes a file of the directory. It fails if another process is writing.
func (s Store) replace(path string, data []byte) error {
	release, err := disk.TryLock(s.dir)
	if err != nil {
		return err
	}
	if release == nil {
		return fmt.Errorf("%w: another run is changing %s; run it again", ErrWritable, s.dir)
	}
	return errors.Join(disk.WriteFile(path, data, 0o644), release())
}

// Tighten returns the kept policy with the additions of the command line. Given keys replace
// the kept ones, but a kept key's channels and every kept limit remain in force.
func Tighten(kept verify.Policy, given []verify.Key, threshold int) verify.Policy {
	p := kept
	p.Threshold = max(kept.Threshold, threshold)
	if len(given) == 0 {
		return p
	}
	p.Keys = slices.Clone(given)
	for i, k := range p.Keys {
		for _, o := range kept.Keys {
			if o.Fingerprint == k.Fingerprint {
				p.Keys[i].Channels = o.Channels
			}
		}
	}
	return p
}
