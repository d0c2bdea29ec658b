//go:build !linux

package main

// outputClosed returns false: a closed standard output is detected only on Linux.
func outputClosed() bool { return false }
