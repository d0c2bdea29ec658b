package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestStandardOutput: a result that cannot be written is an error. A result that is discarded on
// purpose is not an error.
func TestStandardOutput(t *testing.T) {
	dir := t.TempDir()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = null.Close() })
	for _, x := range []struct {
		line   string
		stdout *os.File
		code   int
		stderr string
	}{
		{"oob-bundle version >&-", nil, 1, "standard output is closed"},
		{"oob-bundle version >&-; exit $?", nil, 1, "standard output is closed"},
		{"oob-bundle version >&- <&-", nil, 1, "standard output is closed"},
		{"oob-bundle --version >&-", nil, 1, "standard output is closed"},
		{"oob-bundle version --json >&-; exit $?", nil, 1, "standard output is closed"},
		{"exec >&-; oob-bundle version; exit $?", nil, 1, "standard output is closed"},
		{"oob-bundle >&-; exit $?", nil, 1, "standard output is closed"},
		{"oob-bundle help create >&-; exit $?", nil, 1, "standard output is closed"},
		{"oob-bundle completion bash >&-; exit $?", nil, 1, "standard output is closed"},
		{"oob-bundle create none.yaml --key none >&-; exit $?", nil, 1, "standard output is closed"},
		{"oob-bundle install none --key none >&-; exit $?", nil, 1, "standard output is closed"},
		{"oob-bundle key generate >&-; exit $?", nil, -1, ""},
		{"oob-bundle version >/dev/full", nil, 1, "no space"},
		{"oob-bundle --version >/dev/full", nil, 1, "no space"},
		{"oob-bundle help >/dev/full", nil, 1, "no space"},
		{"oob-bundle completion zsh >/dev/full", nil, 1, "no space"},
		{"oob-bundle version >/dev/null", nil, 0, ""},
		{"oob-bundle version 1<>/dev/null 0<&1", nil, 0, ""},
		{"oob-bundle version 1<>/dev/null 2>&1", nil, 0, ""},
		{"exec 1<>/dev/null; oob-bundle version; exit $?", nil, 0, ""},
		{"oob-bundle version", null, 0, ""},
		{"oob-bundle version; exit $?", null, 0, ""},
		{"oob-bundle help", null, 0, ""},
		{"(oob-bundle version) </dev/null", null, 0, ""},
	} {
		t.Run(x.line, func(t *testing.T) {
			cmd := exec.Command("sh", "-c", x.line)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "OOB_BUNDLE_PASSWORD=")
			var stderr strings.Builder
			cmd.Stderr = &stderr
			if x.stdout != nil {
				cmd.Stdout = x.stdout
			}
			_ = cmd.Run()
			if code := cmd.ProcessState.ExitCode(); x.code >= 0 && code != x.code || !strings.Contains(stderr.String(), x.stderr) {
				t.Errorf("exit %d: %s", code, stderr.String())
			}
		})
	}
}

// TestDiscardedByOthers: a parent that opens /dev/null only for the child process can discard
// the result without an error.
func TestDiscardedByOthers(t *testing.T) {
	program, err := exec.LookPath("oob-bundle") // TestMain puts it there
	if err != nil {
		t.Fatal(err)
	}
	for interpreter, code := range map[string]string{
		"python3": "import subprocess,sys; sys.exit(subprocess.run([sys.argv[1],'version'],stdout=subprocess.DEVNULL).returncode)",
		"node":    "process.exit(require('child_process').spawnSync(process.argv[1],['version'],{stdio:['pipe','ignore','inherit']}).status)",
	} {
		flag := map[string]string{"python3": "-c", "node": "-e"}[interpreter]
		if exec.Command(interpreter, flag, "").Run() != nil {
			continue
		}
		if out, err := exec.Command(interpreter, flag, code, program).CombinedOutput(); err != nil {
			t.Errorf("%s: %v %s", interpreter, err, out)
		}
	}
}
