package verify

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/oob-bundle/oob-bundle/bundle/publickey"

	"golang.org/x/sync/errgroup"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// Policy contains the site's requirements for a bundle. The zero value accepts nothing,
// because it trusts no key.
type Policy struct {
	Keys        []Key            // trusted; entries with the same fingerprint count once
	Threshold   int              // number of distinct keys that must have signed; 0 means 1
	MinSequence map[string]int64 // channel → lowest acceptable sequence
}

// Key is a public key that the site trusts, and the channels it is trusted for.
type Key struct {
	publickey.Key
	Name     string   // name of its file, for messages
	Channels []string // globs; empty means every channel
}

// ErrNoKeys reports that the site trusts no key, so that no bundle can be accepted.
var ErrNoKeys = fmt.Errorf("%w: no trusted keys", bundle.ErrSignature)

// SignatureReport is the result for one line of the slot.
type SignatureReport struct {
	Fingerprint bundle.Fingerprint
	Trusted     bool // the key is in the policy and may sign for the channel
	Valid       bool // the signature is valid; false if the key is unknown
}

// Verified is a bundle with valid signatures, policy, headers and manifests. Only Open creates
// one.
type Verified struct {
	*bundle.Reader
	Identity   bundle.Digest
	Slot       []byte // the content of signatures.jsonl
	Signatures []SignatureReport
	Deployment *bundle.Deployment
}

// Open verifies everything in a bundle except the payload. Errors wrap ErrSignature,
// ErrPolicy, ErrFormat, ErrDigest, ErrLimit or ErrNewer of package bundle, or are errors of r
// or ctx.
func Open(ctx context.Context, r io.ReaderAt, size int64, policy Policy) (*Verified, error) {
	if len(policy.Keys) == 0 {
		return nil, ErrNoKeys
	}
	head, err := bundle.ReadHead(r, size)
	if err != nil {
		return nil, err
	}
	_, reports, err := Root(head, policy)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	reader, err := bundle.NewReader(r, size, head)
	if padded, ok := errors.AsType[*bundle.PaddingError](err); ok {
		padded.Verified = true
		return nil, padded
	}
	if err != nil {
		return nil, err
	}
	deployment, err := reader.Deployment()
	if err != nil {
		return nil, err
	}
	if err := checkPartial(reader, deployment.Images); err != nil {
		return nil, err
	}
	if err := deployment.Installable(); err != nil {
		return nil, fmt.Errorf("%w: no host can install it: %w", bundle.ErrPolicy, err)
	}
	return &Verified{
		Reader: reader, Identity: head.Identity(), Slot: head.Slot, Signatures: reports, Deployment: deployment,
	}, nil
}

// checkPartial reads each partially carried index once, because many references may share one.
func checkPartial(r *bundle.Reader, images []bundle.Image) error {
	seen := map[bundle.Digest]int{} // index in once
	var once []bundle.Image
	for _, i := range images {
		if !i.Partial {
			continue
		}
		k, ok := seen[i.Digest]
		if !ok {
			seen[i.Digest] = len(once)
			once = append(once, bundle.Image{Reference: i.Reference, Digest: i.Digest, Manifests: slices.Clone(i.Manifests)})
			continue
		}
		for _, m := range i.Manifests {
			if !slices.Contains(once[k].Manifests, m) {
				once[k].Manifests = append(once[k].Manifests, m)
			}
		}
	}
	for _, i := range once {
		if _, _, err := r.PartialIndex(i); err != nil {
			return err
		}
	}
	return nil
}

// Root verifies only the signatures and policy of a root that was read from a registry rather
// than from a bundle file.
func Root(head *bundle.Head, policy Policy) (bundle.Info, []SignatureReport, error) {
	reports, err := checkSignatures(head, policy)
	if err != nil {
		return bundle.Info{}, nil, err
	}
	_, info, err := bundle.ParseIndex(head.Root)
	if err != nil {
		return bundle.Info{}, nil, err
	}
	return info, reports, policy.check(info, reports)
}

// checkSignatures checks every line of the slot. It refuses the bundle if a line of a trusted
// key is wrong, or if a line signed by a trusted key names another key, whatever the other
// lines contain. A line of an unknown key cannot be checked and does not count.
func checkSignatures(head *bundle.Head, policy Policy) ([]SignatureReport, error) {
	signatures, err := bundle.ParseSlot(head.Slot)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(head.Root)
	identity := bundle.DigestFrom(digest[:])
	reports := make([]SignatureReport, len(signatures))
	good := 0
	for i, s := range signatures {
		reports[i].Fingerprint = s.Key
		if s.Digest != identity {
			return nil, fmt.Errorf("%w: line %d, by %s, is over %s; index.json is %s: one of the two was changed",
				bundle.ErrSignature, i+1, s.Key, s.Digest, identity)
		}
		k, ok := policy.key(s.Key)
		if !ok {
			for _, o := range policy.Keys {
				if o.VerifyDigest(head.Root, digest, s.Bytes) == nil {
					return nil, fmt.Errorf(
						"%w: line %d says that it is by %s, and it is by the trusted key %s: it was changed",
						bundle.ErrSignature, i+1, s.Key, o.Fingerprint,
					)
				}
			}
			continue
		}
		if err := k.VerifyDigest(head.Root, digest, s.Bytes); err != nil {
			return nil, fmt.Errorf("%w: line %d, by the trusted key %s, is wrong: index.json or the signature was changed", err, i+1, s.Key)
		}
		reports[i].Trusted, reports[i].Valid = true, true
		good++
	}
	if good == 0 {
		return nil, fmt.Errorf("%w: it is signed by %s, and none of that is a trusted key", bundle.ErrSignature, fingerprints(reports))
	}
	return reports, nil
}

func fingerprints(reports []SignatureReport) string {
	names := make([]string, len(reports))
	for i, r := range reports {
		names[i] = r.Fingerprint.String()
	}
	return strings.Join(names, ", ")
}

func (p Policy) key(f bundle.Fingerprint) (Key, bool) {
	i := slices.IndexFunc(p.Keys, func(k Key) bool { return k.Fingerprint == f })
	if i < 0 {
		return Key{}, false
	}
	return p.Keys[i], true
}

// check applies the rules that depend on the content of the root. It clears Trusted in the
// reports of keys that may not sign for the channel.
func (p Policy) check(info bundle.Info, reports []SignatureReport) error {
	distinct := map[bundle.Fingerprint]bool{}
	for i, r := range reports {
		if !r.Valid {
			continue
		}
		k, _ := p.key(r.Fingerprint)
		if reports[i].Trusted = k.maySign(info.Channel); reports[i].Trusted {
			distinct[r.Fingerprint] = true
		}
	}
	need := max(p.Threshold, 1)
	switch {
	case len(distinct) == 0:
		return fmt.Errorf("%w: no key that signed it is trusted for channel %q (%s)", bundle.ErrPolicy, info.Channel, p.whoSigned(reports))
	case len(distinct) < need:
		return fmt.Errorf("%w: %d of the %d required keys signed it for channel %q (%s)",
			bundle.ErrPolicy, len(distinct), need, info.Channel, p.whoSigned(reports))
	}
	if lowest, ok := p.MinSequence[info.Channel]; ok && info.Sequence < lowest {
		return fmt.Errorf("%w: its sequence %d on channel %q is below %d, the lowest that this site accepts",
			bundle.ErrPolicy, info.Sequence, info.Channel, lowest)
	}
	return nil
}

// whoSigned explains for each signature why it counts or does not count.
func (p Policy) whoSigned(reports []SignatureReport) string {
	var words []string
	for _, r := range reports {
		k, known := p.key(r.Fingerprint)
		switch {
		case r.Trusted:
			words = append(words, r.Fingerprint.String()+" counts")
		case known:
			words = append(words, fmt.Sprintf("%s is trusted for %s only", r.Fingerprint, strings.Join(k.Channels, ", ")))
		default:
			words = append(words, r.Fingerprint.String()+" is not a trusted key")
		}
	}
	return strings.Join(words, "; ")
}

// maySign reports whether one of the key's globs matches the channel: * matches any
// characters, including slashes, and ? matches one.
func (k Key) maySign(channel string) bool {
	return len(k.Channels) == 0 || slices.ContainsFunc(k.Channels, func(glob string) bool {
		expr := strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(glob))
		return regexp.MustCompile(`^(?:` + expr + `)$`).MatchString(channel)
	})
}

// Payload reads every blob once and compares it with its digest. It processes as many blobs at
// a time as there are processors, the largest first, so that no large blob runs alone at the
// end. It stops at the first error. Errors wrap bundle.ErrDigest or ErrFormat, or are the
// medium's.
func (v *Verified) Payload(ctx context.Context, watch bundle.Watch) error {
	g, ctx := errgroup.WithContext(ctx)
	blobs := slices.Clone(v.Blobs())
	slices.SortStableFunc(blobs, func(a, b bundle.Member) int { return cmp.Compare(b.Size, a.Size) })
	var next atomic.Int64
	for range min(runtime.GOMAXPROCS(0), len(blobs)) {
		g.Go(func() error {
			buf := make([]byte, bufferSize)
			for i := next.Add(1) - 1; i < int64(len(blobs)); i = next.Add(1) - 1 {
				if err := v.Hash(ctx, blobs[i], buf, watch); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// bufferSize is the size of a read, in bytes.
const bufferSize = 256 << 10

// Hash reads one blob into buf, piece by piece, and compares it with its digest, as Payload
// does for all blobs.
func (v *Verified) Hash(ctx context.Context, m bundle.Member, buf []byte, watch bundle.Watch) error {
	defer watch.Begun(m)()
	h := sha256.New()
	r := v.Content(m)
	var total int64
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		total += int64(n)
		watch.Add(int64(n))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading %s: %w", v.Describe(m), err)
		}
	}
	if total != m.Size {
		return fmt.Errorf("%w: the file became shorter while it was read", bundle.ErrFormat)
	}
	if bundle.DigestFrom(h.Sum(nil)) != m.Digest {
		return v.Mismatch(m)
	}
	return nil
}

// Mismatch returns the error for a blob whose content does not match its signed digest.
func (v *Verified) Mismatch(m bundle.Member) error {
	return fmt.Errorf("%w: %s does not match its digest", bundle.ErrDigest, v.Describe(m))
}
