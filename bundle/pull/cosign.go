package pull

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle/publickey"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/manifests"
)

// Media types and annotations with which cosign signs images
// (sigstore/cosign specs/SIGNATURE_SPEC.md, and protobuf-specs for its bundles).
const (
	typeSimpleSigning   = "application/vnd.dev.cosign.simplesigning.v1+json"
	typeSigstoreBundle  = "application/vnd.dev.sigstore.bundle.v0.3+json"
	annotationSignature = "dev.cosignproject.cosign/signature"
	predicateSignature  = "https://sigstore.dev/cosign/sign/v1"
	payloadInToto       = "application/vnd.in-toto+json"

	// maxSignature bounds the layer with one signature, in bytes.
	maxSignature = 1 << 20
	// maxSignatures bounds the signatures in one manifest.
	maxSignatures = 100
)

// checkSignatures applies the signature rules to i. If a rule matches and no valid
// signature is found, the error wraps bundle.ErrSignature.
func (i *Image) checkSignatures(ctx context.Context, rules []manifests.WantedSignature) error {
	for _, rule := range rules {
		if !i.Called(rule.Images) {
			continue
		}
		by, err := i.signedBy(ctx, rule.Keys)
		if err != nil {
			return err
		}
		i.Checks = append(i.Checks, "cosign signature by "+by)
	}
	return nil
}

// signedBy returns the name and fingerprint of the first key for which a valid signature
// over i.Top exists.
func (i *Image) signedBy(ctx context.Context, keys []manifests.Key) (string, error) {
	var names []string
	tried := 0
	for _, k := range keys {
		names = append(names, k.Name)
		key, err := publickey.Parse(k.Data)
		if err != nil {
			return "", fmt.Errorf("%w: the key %s: %w", manifests.ErrInvalid, k.Name, err)
		}
		for _, r := range i.Referrers {
			ok, n, err := i.signature(ctx, r, key)
			if err != nil {
				return "", err
			}
			if tried += n; ok {
				return fmt.Sprintf("%s (%s)", k.Name, key.Fingerprint), nil
			}
		}
	}
	why := fmt.Sprintf("none of the %d signatures that upstream has is good", tried)
	if tried == 0 {
		why = "upstream has no signature of it"
	}
	if len(i.Warnings) > 0 {
		why += " (" + strings.Join(i.Warnings[:min(len(i.Warnings), 3)], "; ") + ")"
	}
	return "", fmt.Errorf("%w: the manifest asks for a signature by %s, and %s", bundle.ErrSignature, strings.Join(names, " or "), why)
}

// signature reports whether a referrer contains a valid signature by key. n is the number
// of signatures that were tried.
func (i *Image) signature(ctx context.Context, r Referrer, key publickey.Key) (good bool, n int, err error) {
	own := r.Tag == strings.Replace(string(i.Top.Digest), ":", "-", 1)+".sig" || r.Subject != nil && *r.Subject == i.Top.Digest
	if !own {
		return false, 0, nil
	}
	m, err := bundle.ParseManifest(r.Descriptor, i.Documents[r.Digest])
	if err != nil {
		return false, 0, err
	}
	for _, l := range m.Layers {
		var check func(data []byte) error
		switch l.MediaType {
		case typeSimpleSigning:
			check = func(data []byte) error { return i.simpleSigning(data, l.Annotations[annotationSignature], key) }
		case typeSigstoreBundle:
			check = func(data []byte) error { return i.sigstoreBundle(data, key) }
		default:
			continue
		}
		if n++; n > maxSignatures {
			return false, n, fmt.Errorf("%w: %s holds more than %d signatures", bundle.ErrLimit, r.Digest, maxSignatures)
		}
		data, err := i.small(ctx, l, maxSignature)
		if err != nil {
			return false, n, err
		}
		if check(data) == nil {
			return true, n, nil
		}
	}
	return false, n, nil
}

var errOther = errors.New("it is about something else")

// simpleSigning verifies a signature whose payload names the image
// (containers/image docs/containers-signature.5.md).
func (i *Image) simpleSigning(payload []byte, signature string, key publickey.Key) error {
	sig, err := base64.StdEncoding.DecodeString(signature)
	if err != nil {
		return err
	}
	if err := key.Verify(payload, sig); err != nil {
		return err
	}
	var doc struct {
		Critical struct {
			Image struct {
				Digest bundle.Digest `json:"docker-manifest-digest"`
			} `json:"image"`
			Type string `json:"type"`
		} `json:"critical"`
	}
	if err := json.Unmarshal(payload, &doc); err != nil {
		return err
	}
	if doc.Critical.Image.Digest != i.Top.Digest || doc.Critical.Type != "cosign container image signature" {
		return errOther
	}
	return nil
}

// sigstoreBundle verifies a signature in a Sigstore bundle: a DSSE envelope with an
// in-toto statement whose subject is the image.
func (i *Image) sigstoreBundle(data []byte, key publickey.Key) error {
	var doc struct {
		Envelope *struct {
			Payload     []byte `json:"payload"`
			PayloadType string `json:"payloadType"`
			Signatures  []struct {
				Sig []byte `json:"sig"`
			} `json:"signatures"`
		} `json:"dsseEnvelope"`
	}
	if err := json.Unmarshal(data, &doc); err != nil {
		return err
	}
	e := doc.Envelope
	if e == nil || len(e.Signatures) != 1 || e.PayloadType != payloadInToto {
		return errOther
	}
	// The pre-authentication encoding of DSSE (secure-systems-lab/dsse protocol.md).
	pae := fmt.Sprintf("DSSEv1 %d %s %d %s", len(e.PayloadType), e.PayloadType, len(e.Payload), e.Payload)
	if err := key.Verify([]byte(pae), e.Signatures[0].Sig); err != nil {
		return err
	}
	var statement struct {
		PredicateType string `json:"predicateType"`
		Subject       []struct {
			Digest map[string]string `json:"digest"`
		} `json:"subject"`
	}
	if err := json.Unmarshal(e.Payload, &statement); err != nil {
		return err
	}
	if statement.PredicateType != predicateSignature || len(statement.Subject) != 1 ||
		statement.Subject[0].Digest["sha256"] != i.Top.Digest.Hex() {
		return errOther
	}
	return nil
}
