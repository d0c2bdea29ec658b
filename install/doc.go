// Package install puts a verified bundle in place, so that the site is in the
// old state or in the new one at every moment:
//
//	*Verified ─plan→ Plan ─apply→ blobs (hashed while written) → manifests → files staged → journal → tags, release → state, receipt
//
// A Plan is a value that can be printed (Preview). Apply writes; before the first
// tag moves, every byte is stored, verified and durable, and the journal says what
// the tags and the release were. Rollback and Uninstall are changes of the same
// kind, from a journal of their own. Whatever ends a run, the same command
// finishes it, and another bundle's installation takes back what a broken one
// began.
package install
