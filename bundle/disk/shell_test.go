package disk

import "testing"

func TestShellWord(t *testing.T) {
	for in, want := range map[string]string{
		"a.oob.tar": "a.oob.tar", "-x": "./-x", "a b": "'a b'", "it's": `'it'\''s'`, "": "''", "$(id)": "'$(id)'", "ä": "'ä'",
	} {
		if got := ShellWord(in); got != want {
			t.Errorf("%q becomes %s", in, got)
		}
	}
}
