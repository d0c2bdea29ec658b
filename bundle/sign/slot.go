package sign

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/oob-bundle/oob-bundle/bundle/publickey"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
)

// ErrLocked reports that another run is signing the same bundle.
var ErrLocked = errors.New("another run is at work")

// Result describes what Add found and changed.
type Result struct {
	Identity   bundle.Digest
	Signatures []bundle.Fingerprint // all signers' keys, in the order of the slot
	Already    bool                 // the key had signed before; no signature was added
	Replaced   bool                 // an invalid signature of the key was replaced
	Recovered  bool                 // an interrupted run was completed first
}

// SlotFile returns the name of the file that contains the new slot while Add
// writes the slot into the bundle at path.
func SlotFile(path string) string { return path + ".slot" }

// Add signs the bundle at path in place. Add writes the new slot to SlotFile(path)
// and syncs it before it changes the old slot. A run that ends at any moment
// therefore leaves a good slot, or a good SlotFile from which the next run completes
// the bundle. Add signs only a valid index.json of a bundle, so a key with other uses
// cannot be made to sign other content here.
func Add(path string, signer *Signer) (result Result, err error) {
	f, err := bundle.OpenFile(path, os.O_RDWR)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	release, err := disk.TryLock(path)
	if err != nil {
		return Result{}, err
	}
	if release == nil {
		return Result{}, fmt.Errorf("%w on %s; sign again when it has ended", ErrLocked, path)
	}
	defer func() { err = errors.Join(err, release()) }()
	head, err := bundle.ReadHead(f, f.Size())
	if err != nil {
		return Result{}, err
	}
	result.Identity = head.Identity()
	if result.Recovered, err = recoverSlot(f, path, head, signer.Fingerprint); err != nil {
		return result, err
	}
	signatures, err := signaturesOver(head, head.Slot)
	if err != nil {
		return result, err
	}
	mine := slices.IndexFunc(signatures, func(s bundle.Signature) bool { return s.Key == signer.Fingerprint })
	if mine >= 0 {
		// The existing signature may be forged or damaged.
		if result.Already, err = signer.made(head.Root, signatures[mine].Bytes); err != nil {
			return result, err
		}
	}
	if !result.Already {
		if _, _, err := bundle.ParseIndex(head.Root); err != nil {
			return result, fmt.Errorf("%w; it is not signed", err)
		}
		own, err := signer.Sign(head.Root)
		if err != nil {
			return result, err
		}
		if mine >= 0 {
			signatures[mine], result.Replaced = own, true
		} else {
			signatures = append(signatures, own)
		}
		slot, err := bundle.EncodeSlot(signatures)
		if err != nil {
			return result, err
		}
		if err := replaceSlot(f, path, head.SlotOffset(), slot); err != nil {
			return result, err
		}
	}
	for _, s := range signatures {
		result.Signatures = append(result.Signatures, s.Key)
	}
	return result, nil
}

// signaturesOver parses slot and refuses a signature over anything but this bundle's root.
func signaturesOver(head *bundle.Head, slot []byte) ([]bundle.Signature, error) {
	signatures, err := bundle.ParseSlot(slot)
	if err != nil {
		return nil, err
	}
	for i, s := range signatures {
		if s.Digest != head.Identity() {
			return nil, fmt.Errorf(
				"%w: line %d is over %s and index.json is %s; it is not signed again",
				bundle.ErrSignature, i+1, s.Digest, head.Identity(),
			)
		}
	}
	return signatures, nil
}

// recoverSlot completes an interrupted run: a SlotFile that belongs to this bundle
// becomes the new slot, whatever the state of the old slot.
func recoverSlot(f *bundle.File, path string, head *bundle.Head, own bundle.Fingerprint) (recovered bool, err error) {
	slot, err := readSlotFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	pending, err := signaturesOver(head, slot)
	if err != nil {
		return false, fmt.Errorf(
			"%s is left from an interrupted run and does not belong to this bundle; remove it and sign again: %w",
			SlotFile(path), err,
		)
	}
	// SlotFile is older than the slot if one run ended before it wrote the slot and
	// another run has completed since.
	if old, err := signaturesOver(head, head.Slot); err == nil && !covers(pending, old, own) {
		return false, fmt.Errorf("%w: %s lacks signatures that the bundle has; remove it and sign again", bundle.ErrSignature, SlotFile(path))
	}
	if err := writeSlot(f, head.SlotOffset(), slot); err != nil {
		return false, err
	}
	if err := removeSlotFile(path); err != nil {
		return false, err
	}
	head.Slot = slot
	return true, nil
}

// readSlotFile reads the SlotFile of the bundle at path. The medium may come from
// another site, so readSlotFile requires a regular file of at most bundle.SlotSize bytes.
func readSlotFile(path string) ([]byte, error) {
	fi, err := os.Lstat(SlotFile(path))
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is not a file; remove it and sign again", bundle.ErrSignature, SlotFile(path))
	}
	slot, err := disk.ReadFile(SlotFile(path), bundle.SlotSize)
	if errors.Is(err, bundle.ErrLimit) {
		return nil, fmt.Errorf(
			"%w: %s is no slot, it has more than %d bytes; remove it and sign again",
			bundle.ErrSignature, SlotFile(path), bundle.SlotSize,
		)
	}
	return slot, err
}

// made reports whether sig is a valid signature over root by the signer's key.
func (s *Signer) made(root, sig []byte) (bool, error) {
	public, err := s.Public()
	if err != nil {
		return false, err
	}
	key, err := publickey.New(public)
	return err == nil && key.Verify(root, sig) == nil, err
}

// covers reports whether more contains every signature of less. For the key own, a
// different signature also counts, because the old one may have been invalid.
func covers(more, less []bundle.Signature, own bundle.Fingerprint) bool {
	for _, s := range less {
		if !slices.ContainsFunc(more, func(o bundle.Signature) bool {
			return o.Key == s.Key && (o.Key == own || bytes.Equal(o.Bytes, s.Bytes))
		}) {
			return false
		}
	}
	return true
}

func replaceSlot(f *bundle.File, path string, off int64, slot []byte) error {
	if err := disk.WriteFile(SlotFile(path), slot, 0o644); err != nil {
		return err
	}
	if err := writeSlot(f, off, slot); err != nil {
		return fmt.Errorf("%w; run sign again to complete it from %s", err, SlotFile(path))
	}
	return removeSlotFile(path)
}

func writeSlot(f *bundle.File, off int64, slot []byte) error {
	if _, err := f.WriteAt(slot, off); err != nil {
		return err
	}
	return f.Sync()
}

func removeSlotFile(path string) error { return os.Remove(SlotFile(path)) }
