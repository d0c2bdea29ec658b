package disk

import (
	"strings"
	"testing"
)

// TestModeAdvice: chmod is advised where it helps.
func TestModeAdvice(t *testing.T) {
	for name, x := range map[string]struct {
		fileSystem  uint32
		chmod, copy bool
	}{
		"ext4":       {0xef53, true, false},
		"XFS":        {0x58465342, true, false},
		"tmpfs":      {0x01021994, true, false},
		"unknown":    {0, true, false},
		"FAT":        {0x4d44, false, true},
		"exFAT":      {0x2011bab0, false, true},
		"NTFS":       {0x7366746e, false, true},
		"SMB":        {0xfe534d42, false, true},
		"CIFS":       {0xff534d42, false, true},
		"a disc":     {0x9660, false, true},
		"a FUSE":     {0x65735546, true, true},
		"9P, in WSL": {0x01021997, true, true},
	} {
		got := modeAdvice(x.fileSystem, "/media/my disk/oob.key", "chmod 600", "umask=077")
		if strings.Contains(got, "run chmod 600 '/media/my disk/oob.key'") != x.chmod ||
			strings.Contains(got, "copy it to another file system, or mount this one with umask=077") != x.copy {
			t.Errorf("%s: %s", name, got)
		}
	}
	if got := ModeAdvice(t.TempDir(), "chmod 600", "umask=077"); !strings.Contains(got, "chmod") {
		t.Error(got)
	}
}
