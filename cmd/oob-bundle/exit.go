package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"

	"github.com/oob-bundle/oob-bundle/bundle"
	"github.com/oob-bundle/oob-bundle/bundle/create"
	"github.com/oob-bundle/oob-bundle/bundle/disk"
	"github.com/oob-bundle/oob-bundle/bundle/kit"
	"github.com/oob-bundle/oob-bundle/bundle/remote"
	"github.com/oob-bundle/oob-bundle/bundle/sign"
	"github.com/oob-bundle/oob-bundle/install"
	"github.com/oob-bundle/oob-bundle/install/host"
	"github.com/oob-bundle/oob-bundle/install/ledger"
	"github.com/oob-bundle/oob-bundle/install/registry"
	"github.com/oob-bundle/oob-bundle/install/service"
	"github.com/oob-bundle/oob-bundle/manifests"
	"github.com/oob-bundle/oob-bundle/verify/trust"
)

var (
	// errUsage marks an invalid command line.
	errUsage = errors.New("usage")
	// errInterrupted is the cause of a context that a signal canceled.
	errInterrupted = errors.New("interrupted")
)

// exitStatus is one row of the exit status table. The help, the handbook and exitCode all
// use this table.
type exitStatus struct {
	code    int
	meaning string
	errors  []error // the first row with a matching error decides
	also    func(error) bool
}

// exitTable returns the rows in the order in which errors are matched. An interruption and an
// incomplete installation come first: they take precedence over their cause.
func exitTable() []exitStatus {
	return []exitStatus{
		{130, "interrupted", []error{errInterrupted}, nil},
		{6, "install incomplete; the same command resumes it", []error{install.ErrIncomplete}, nil},
		{8, "no space, no permission, a disk or medium that fails, or another run holds the lock", []error{
			disk.ErrSpace, syscall.ENOSPC, syscall.EFBIG, syscall.EDQUOT, syscall.EROFS, fs.ErrPermission,
			syscall.EIO, syscall.EMFILE, syscall.ENFILE, syscall.ENOLCK, create.ErrLocked, install.ErrLocked, sign.ErrLocked,
			sign.ErrReadable, trust.ErrWritable,
		}, diskFailure},
		{
			5,
			"refused by policy: older than installed, wrong platform, threshold, another channel's, a lock that no longer fits, a newer format",
			[]error{bundle.ErrPolicy, bundle.ErrNewer, disk.ErrNoDirectory},
			nil,
		},
		{4, "signature missing, wrong, or by a key that is not trusted", []error{bundle.ErrSignature}, nil},
		{
			7,
			"a source or the target registry could not be reached, refused, or sent something wrong",
			[]error{remote.ErrRegistry, install.ErrMissing},
			nil,
		},
		{1, "a failure not listed below", []error{host.ErrState, service.ErrUnusable}, nil},
		{3, "damaged, or not a bundle", []error{bundle.ErrOther, bundle.ErrFormat, bundle.ErrDigest, bundle.ErrLimit}, nil},
		{
			2,
			"usage",
			[]error{
				errUsage, manifests.ErrInvalid, trust.ErrUsage, sign.ErrKey, kit.ErrProgram, bundle.ErrPart,
				disk.ErrNotFile, registry.ErrNothingInstalled, registry.ErrCertificate, registry.ErrAccounts,
				host.ErrValues, ledger.ErrNotInstalled, service.ErrNoRuntime, remote.ErrCAFile, fs.ErrNotExist,
				fs.ErrExist, syscall.ENOTDIR, syscall.EISDIR,
			},
			nil,
		},
		{0, "done", nil, nil},
	}
}

// exitCode returns the exit status for err, 0 for nil.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	for _, s := range exitTable() {
		if slices.ContainsFunc(s.errors, func(e error) bool { return errors.Is(err, e) }) || s.also != nil && s.also(err) {
			return s.code
		}
	}
	return 1
}

// exitRows returns the table sorted by code.
func exitRows() []exitStatus {
	rows := exitTable()
	slices.SortFunc(rows, func(a, b exitStatus) int { return a.code - b.code })
	return rows
}

// exitHelp returns the table as help text.
func exitHelp() string {
	var b strings.Builder
	b.WriteString("Exit status:\n")
	for _, s := range exitRows() {
		fmt.Fprintf(&b, "  %-4d %s\n", s.code, wrap(s.meaning, helpWidth-7, "       "))
	}
	return b.String()
}
