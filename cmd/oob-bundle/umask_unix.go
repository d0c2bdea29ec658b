//go:build unix

package main

import "syscall"

// setUmask makes modes the same whatever the caller's shell says: readable by
// all, writable by the owner. What must be private says so itself (0600).
func setUmask() { syscall.Umask(0o022) }
