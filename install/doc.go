// Package install installs a verified bundle. At every moment the site is completely in the
// old state or completely in the new state:
//
//	*Verified ─plan→ Plan ─apply→ blobs (hashed while written) → manifests → files staged → journal → tags, release → state, receipt
//
// A Plan is a value that can be printed (Preview). Apply writes. Before the first tag moves,
// every byte is stored, verified and durable, and the journal records the previous tags and
// the previous release. Rollback and Uninstall work the same way, each with its own journal.
// After any interruption, the same command finishes the change. Installing another bundle
// first reverts an unfinished installation.
package install
