package host

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/oob-bundle/oob-bundle/bundle"
)

func testRenderer(secret string) (*Release, *renderer) {
	r := &Release{secrets: secrets{"pw": secret}}
	render := &renderer{d: &bundle.Deployment{}, limits: newLimits(), view: view{Values: map[string]string{"x": "value"}, Secrets: r.secrets}}
	render.file = func(string) (string, error) { return "included", nil }
	return r, render
}

// TestTemplateLimits checks that no template fills the memory or runs for long.
func TestTemplateLimits(t *testing.T) {
	double := `{{$x := "` + strings.Repeat("x", 1000) + `"}}` + strings.Repeat(`{{$x = print $x $x}}`, 40)
	for name, text := range map[string]string{
		"a loop without output": `{{range 10000000000}}{{end}}`,
		"a loop in a loop":      `{{range 100000}}{{range 100000}}{{$x := 1}}{{end}}{{end}}`,
		"a loop over an else":   `{{range 10000000000}}{{if false}}{{else}}{{end}}{{end}}`,
		"a loop with output":    `{{range 10000000000}}x{{end}}`,
		"templates that call another": `{{define "a"}}{{template "b"}}{{template "b"}}{{end}}` +
			strings.Repeat(`{{define "b"}}{{end}}`, 1) + `{{range 10000000000}}{{template "a"}}{{end}}`,
		"a template that calls itself": `{{define "a"}}{{template "a"}}{{template "a"}}{{end}}{{template "a"}}`,
		"a text that is doubled":       double,
		"a text that is quoted":        `{{$x := "\\"}}` + strings.Repeat(`{{$x = printf "%q" $x}}`, 60),
		"a text that is escaped":       `{{$x := "&"}}` + strings.Repeat(`{{$x = html $x $x}}`, 60),
		"a wide number":                strings.Repeat(`{{printf "%1000000d%1000000d" 1 2}}`, 1000),
		"a width of another argument":  `{{printf "%*d" 1000000 1}}`,
		"a JSON text that grows":       `{{$x := "\\"}}` + strings.Repeat(`{{$x = json $x}}`, 60),
		"names that grow": `{{$x := "` + strings.Repeat("x", 1000) + `"}}` +
			strings.Repeat(`{{$x = environ $x "{\"a\":{\"b\":1,\"c\":2}}"}}`, 40),
	} {
		_, render := testRenderer("secret")
		start := time.Now()
		_, err := render.render(name, text)
		if !errors.Is(err, ErrTemplate) {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: %v after %v", name, err, time.Since(start).Round(time.Millisecond))
	}
	// Many small templates share one limit.
	_, render := testRenderer("secret")
	many := strings.Repeat("x", bundle.MaxTemplate/2)
	var err error
	for range 100 {
		if _, err = render.render("one of many", many); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrTemplate) {
		t.Errorf("100 files of 2 MiB: %v", err)
	}
}

// TestPrintf checks that numbers and stars in the text do not count as widths.
func TestPrintf(t *testing.T) {
	for text, want := range map[string]string{
		`{{printf "http://%s:54321/*" "db"}}`:     "http://db:54321/*",
		`{{printf "%%54321 %d%% 8192 %s" 5 "x"}}`: "%54321 5% 8192 x",
		`{{printf "%[2]s:8080 %[1]s" "a" "b"}}`:   "b:8080 a",
		`{{printf "%6.2f|%-3s|9999" 1.5 "a"}}`:    "  1.50|a  |9999",
		`{{printf "%5000s" "a"}}`:                 "",
		`{{printf "%-05000d" 1}}`:                 "",
		`{{printf "%.5000f" 1.0}}`:                "",
		`{{printf "%%%[1]99999d" 1}}`:             "",
		`{{printf "%*d" 99999 1}}`:                "",
		`{{printf "%.[1]*f" 99999 1.0}}`:          "",
	} {
		_, render := testRenderer("secret")
		got, err := render.render("x", text)
		if string(got) != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
}

// TestBuiltins checks that the bounded functions return the same as those of text/template,
// and that urlquery is correct in all parts of a URL.
func TestBuiltins(t *testing.T) {
	for text, want := range map[string]string{
		`{{printf "%s-%05d-%q" "a" 7 "b"}}`:   `a-00007-"b"`,
		`{{print 1 2 "x" "y"}}`:               `1 2xy`,
		`{{println "x"}}`:                     "x\n",
		`{{html "<&>"}}{{js "'"}}`:            `&lt;&amp;&gt;\'`,
		`{{urlquery "a b+"}}`:                 `a%20b%2B`,
		`{{range 3}}{{.}}{{else}}no{{end}}`:   `012`,
		`{{with .Values.x}}{{.}}{{end}}`:      `value`,
		`{{if eq .Values.x "value"}}y{{end}}`: `y`,
		`{{json .Values}}`:                    `{"x":"value"}`,
		`{{file "x"}}`:                        `included`,
		`{{range $i, $x := environMap "P" "{\"a\":{\"b\":1}}"}}{{$i}}={{$x}}{{end}}`: `P_A_B=1`,
	} {
		_, render := testRenderer("secret")
		if got, err := render.render("x", text); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", text, got, err, want)
		}
	}
}

// TestSecretsStaySecret checks that a password reaches only files, and that those are marked
// as secret.
func TestSecretsStaySecret(t *testing.T) {
	const secret = "S3cretS3cretS3cret"
	for _, text := range []string{
		`{{fail .Secrets.pw}}`, `{{fail (printf "%x" .Secrets.pw)}}`, `{{fail (printf "%q" (slice .Secrets.pw 1 9))}}`,
		`{{if eq .Secrets.pw "<secret pw>"}}ok{{else}}{{fail (print "no " .Secrets.pw)}}{{end}}`,
		`{{image .Secrets.pw}}`, `{{chart .Secrets.pw}}`, `{{template .Secrets.pw}}`, `{{fail (print .)}}`, `{{fail (json .Secrets)}}`,
	} {
		r, render := testRenderer(secret)
		_, _, _, err := r.ownText(render, "x", text)
		if err == nil {
			t.Errorf("%s: no error", text)
			continue
		}
		for _, part := range []string{secret, secret[2:8], "533363726574"} {
			if strings.Contains(err.Error(), part) {
				t.Errorf("%s: the error contains the password: %v", text, err)
			}
		}
	}
	for text, want := range map[string]bool{
		`{{.Secrets.pw}}`: true, `{{printf "%x" .Secrets.pw}}`: true, `{{slice .Secrets.pw 0 3}}`: true, `{{len .Secrets.pw}}`: true,
		`{{range .Secrets}}{{html .}}{{end}}`: true, `{{if gt .Secrets.pw "A"}}x{{else}}y{{end}}`: true,
		`plain`: false, `{{.Values.x}}`: false, `{{with .Secrets.pw}}there{{end}}`: false,
	} {
		r, render := testRenderer(secret)
		data, shown, got, err := r.ownText(render, "x", text)
		if err != nil || got != want {
			t.Errorf("%s: secret is %v, want %v: %v", text, got, want, err)
		}
		if strings.Contains(string(shown), secret) {
			t.Errorf("%s: %q is shown of %q", text, shown, data)
		}
	}
	// A public renderer has no passwords.
	_, render := testRenderer(secret)
	public := render.public()
	for _, text := range []string{`pl-{{.Secrets.pw}}`, `{{$.Secrets.pw}}`, `{{with .}}{{.Secrets.pw}}{{end}}`, `{{index .Secrets "pw"}}`} {
		if got, err := public.render("x", text); err == nil && string(got) != "" || strings.Contains(string(got), secret) {
			t.Errorf("%s: %q, %v", text, got, err)
		}
	}
}
