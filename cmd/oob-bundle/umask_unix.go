//go:build unix

package main

import "syscall"

// setUmask sets a fixed umask, so that file modes do not depend on the caller's shell: readable
// by all, writable by the owner. Private files are created with mode 0600.
func setUmask() { syscall.Umask(0o022) }
