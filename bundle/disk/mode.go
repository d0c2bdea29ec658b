package disk

import "fmt"

// ModeAdvice returns how to change the mode or owner of path: by command, which takes the path
// as its last argument. If the file system keeps neither, the advice is to copy path elsewhere
// or to use the mount option.
func ModeAdvice(path, command, option string) string {
	return modeAdvice(fileSystemOf(path), path, command, option)
}

// modeless are the file systems that keep no modes and owners, by their number for statfs(2).
// A mount option decides; chmod does nothing or fails.
var modeless = map[uint32]string{
	0x4d44:     "FAT",
	0x2011bab0: "exFAT",
	0x7366746e: "NTFS",
	0x5346544e: "NTFS",
	0xff534d42: "CIFS",
	0xfe534d42: "SMB",
	0x517b:     "SMB",
	0x9660:     "ISO 9660",
	0x786f4256: "a VirtualBox folder",
	0xbacbacbc: "a VMware folder",
}

// Whether these keep modes depends on the program that serves them: ntfs-3g does not.
const (
	fuseFileSystem = 0x65735546
	planFileSystem = 0x01021997 // 9P, as in WSL
)

func modeAdvice(fileSystem uint32, path, command, option string) string {
	change := fmt.Sprintf("run %s %s", command, ShellWord(path))
	elsewhere := fmt.Sprintf("copy it to another file system, or mount this one with %s", option)
	if name := modeless[fileSystem]; name != "" {
		return fmt.Sprintf("its file system (%s) keeps no modes and owners: %s", name, elsewhere)
	}
	if fileSystem == fuseFileSystem || fileSystem == planFileSystem {
		return fmt.Sprintf("%s; if that changes nothing, its file system keeps no modes and owners: %s", change, elsewhere)
	}
	return change
}
