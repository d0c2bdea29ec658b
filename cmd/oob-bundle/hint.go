package main

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/bundle/sign"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/operate"
	"github.com/oob-bundle/oob-bundle/verify"
)

// hint returns advice on how to fix err, or "".
func hint(err error) string {
	var usage usageError
	var path *fs.PathError
	var refused *operate.RegistryError
	var b *operate.BundleError
	switch {
	case errors.As(err, &usage):
		return usage.command + " --help shows how it is used."
	case errors.As(err, &refused) && (remote.Refused(err) || remote.Denied(err)):
		return "The account needs the right to push. Harbor wants the project, ECR the repositories to be there first: " +
			"oob-bundle, and the first part of every image's name, or one project given as --registry HOST/PROJECT."
	case errors.As(err, &path) && errors.Is(err, fs.ErrNotExist) && pathHint(path.Path) != "":
		return pathHint(path.Path)
	case errors.Is(err, verify.ErrNoKeys):
		return "Give the public key of whoever made the bundle with --key, or keep it with oob-bundle trust add."
	case errors.As(err, &b):
		return bundleHint(b)
	}
	return ""
}

// pathHint returns the hint for a path that does not exist, or "".
func pathHint(path string) string {
	switch {
	case strings.HasPrefix(path, "oci://"):
		return "install, repair and values take a bundle from a registry; this command wants a file."
	case strings.Contains(path, "://"), strings.Contains(path, "/oob-bundle/"):
		return "A bundle that another host has installed into a registry is called oci://REGISTRY/oob-bundle/NAME."
	}
	return ""
}

// bundleHint returns the hint for an error about a bundle, or "".
func bundleHint(err *operate.BundleError) string {
	var padded *bundle.PaddingError
	slot := sign.SlotFile(err.Path)
	_, missing := os.Lstat(slot)
	switch {
	case errors.Is(err, bundle.ErrSignature) && missing == nil:
		return "A run of oob-bundle sign was interrupted: " + slot + " is still there. Run it again; it completes the bundle."
	case errors.Is(err, bundle.ErrOther), errors.Is(err, host.ErrState), errors.As(err, &padded): // the message needs no hint
		return ""
	case errors.Is(err, bundle.ErrSignature):
		return "Make sure that this is the file you were sent and that the key is its maker's; nothing of it was used."
	case errors.Is(err, bundle.ErrDigest):
		return "The signature is good: the file was changed after it was signed, or the medium is failing. Copy it again; it " +
			"need not be built again."
	case errors.Is(err, bundle.ErrFormat), errors.Is(err, bundle.ErrLimit):
		return "Copy the file again and compare its size with the original's."
	}
	return ""
}
