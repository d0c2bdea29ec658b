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
		return "Run " + usage.command + " --help for usage."
	case errors.As(err, &refused) && (remote.Refused(err) || remote.Denied(err)):
		return "The account needs permission to push. In Harbor, create the projects first: oob-bundle and the first part of every " +
			"image's name, or one project given as --registry HOST/PROJECT. In ECR, create the repositories first."
	case errors.As(err, &path) && errors.Is(err, fs.ErrNotExist) && pathHint(path.Path) != "":
		return pathHint(path.Path)
	case errors.Is(err, verify.ErrNoKeys):
		return "Give the public key of the bundle's maker with --key, or add it with oob-bundle trust add."
	case errors.As(err, &b):
		return bundleHint(b)
	}
	return ""
}

// pathHint returns the hint for a path that does not exist, or "".
func pathHint(path string) string {
	switch {
	case strings.HasPrefix(path, "oci://"):
		return "This command requires a file. Only install, repair and values accept a bundle in a registry."
	case strings.Contains(path, "://"), strings.Contains(path, "/oob-bundle/"):
		return "To use a bundle that another host has installed into a registry, give oci://REGISTRY/oob-bundle/NAME."
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
		return "oob-bundle sign was interrupted: " + slot + " still exists. Run oob-bundle sign again to complete the bundle."
	case errors.Is(err, bundle.ErrOther), errors.Is(err, host.ErrState), errors.As(err, &padded): // the message needs no hint
		return ""
	case errors.Is(err, bundle.ErrSignature):
		return "Check that this is the file you were sent and that the key belongs to its maker. No content of the file was used."
	case errors.Is(err, bundle.ErrDigest):
		return "The signature is good: the file was changed after it was signed, or the medium is failing. Copy it again; it " +
			"need not be built again."
	case errors.Is(err, bundle.ErrFormat), errors.Is(err, bundle.ErrLimit):
		return "Copy the file again and compare its size with the original's."
	}
	return ""
}
