package host

import (
	"fmt"
	"net"
	"strings"
	"unicode"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// The functions in this file write a value in another language: that of the file into
// which a template prints it. The program that reads the file gets the value back
// unchanged. A value that the language cannot express is refused with ErrValues; the
// error does not contain the value, which may be a password.

// quoteDoubled returns a YAML scalar in which $$ is one dollar, because the program that
// reads it replaces variables: Compose $NAME in a Compose file, Kubernetes $(NAME) in env,
// command and args of a pod.
func quoteDoubled(v any) (string, error) {
	text, err := toJSON(v)
	return strings.ReplaceAll(text, "$", "$$"), err
}

// quoteEnv returns the value of a line NAME=VALUE in an env file, as a program reads it.
func quoteEnv(program string, v any) (string, error) {
	text, err := oneLine(v)
	if err != nil {
		return "", err
	}
	switch program {
	case "podman", "docker": // --env-file takes the rest of the line as it is
		return text, nil
	case "compose":
		if plainWord(text) {
			return text, nil
		}
		return composeEnv(text), nil
	case "systemd":
		if plainWord(text) {
			return text, nil
		}
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "`", "\\`", "$", `\$`).Replace(text) + `"`, nil
	}
	return "", fmt.Errorf("env: unknown program %q; use one of %s", program, strings.Join(bundle.EnvPrograms, ", "))
}

// composeEnv quotes for an env_file of Compose. Single quotes keep everything, and both
// generations of Compose read them alike; but neither reads every backslash and quote
// between them. Those need double quotes, in which Compose 2 also reads $$ as one dollar.
func composeEnv(text string) string {
	if !strings.Contains(text, "'") && !strings.Contains(text, `\\`) && !strings.HasSuffix(text, `\`) {
		return "'" + text + "'"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", "$$").Replace(text) + `"`
}

// UnitWord returns one word of a setting of a systemd unit that is split into words, such
// as Environment=. See systemd.syntax(7), Quoting, and systemd.unit(5), Specifiers. The
// error wraps ErrValues.
func UnitWord(v any) (string, error) {
	text, err := oneLine(v)
	if err != nil {
		return "", err
	}
	if plainWord(text) && text != "" {
		return text, nil
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%").Replace(text) + `"`, nil
}

// UnitArgument returns one argument of a command line in a systemd unit, such as those of
// ExecStart=. The path of the program is no argument: systemd replaces no variables in
// it. Quadlet turns all settings of a container into arguments. The error wraps ErrValues.
func UnitArgument(v any) (string, error) {
	text, err := UnitWord(v)
	return strings.ReplaceAll(text, "$", "$$"), err
}

// quoteSystemdLine returns the text of a setting that is not split into words, such as
// Description= or WorkingDirectory=.
func quoteSystemdLine(v any) (string, error) {
	text, err := oneLine(v)
	if err != nil {
		return "", err
	}
	if strings.TrimSpace(text) != text || strings.HasSuffix(text, `\`) {
		return "", fmt.Errorf("%w: a line of a unit cannot begin or end with a space or end with a backslash", ErrValues)
	}
	return strings.ReplaceAll(text, "%", "%%"), nil
}

// quoteNginx returns one parameter of a directive. nginx has no way to write a dollar.
func quoteNginx(v any) (string, error) {
	text, err := oneLine(v)
	if err != nil {
		return "", err
	}
	if strings.Contains(text, "$") {
		return "", fmt.Errorf("%w: nginx has no way to write $, which begins a variable; choose a value without it", ErrValues)
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`, nil
}

// quoteShell returns one word for a POSIX shell.
func quoteShell(v any) (string, error) {
	text, err := oneLine(v)
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'", err
}

// quoteSQL returns a string constant of standard SQL, as PostgreSQL reads it by default.
func quoteSQL(v any) (string, error) {
	text, err := oneLine(v)
	return "'" + strings.ReplaceAll(text, "'", "''") + "'", err
}

// urlHost returns a host as it is written in a URL: an IPv6 address in brackets.
func urlHost(host string) string {
	if strings.Contains(host, ":") && net.ParseIP(host) != nil {
		return "[" + host + "]"
	}
	return host
}

// oneLine returns the text of a value, which must have no line breaks or other control
// characters.
func oneLine(v any) (string, error) {
	text := fmt.Sprint(v)
	if strings.ContainsFunc(text, unicode.IsControl) {
		return "", fmt.Errorf("%w: a value that has to fit in one line contains a control character", ErrValues)
	}
	return text, nil
}

// plainWord reports whether no reader of env files or units gives a meaning to any
// character of a text.
func plainWord(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		digit := r >= '0' && r <= '9'
		return !letter && !digit && !strings.ContainsRune("_-./:@,+=?&", r)
	})
}
