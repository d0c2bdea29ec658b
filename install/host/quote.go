package host

import (
	"fmt"
	"net"
	"strings"
	"unicode"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// The functions in this file quote a value for the language of the file into which a template
// prints it. The program that reads the file gets the value back unchanged. A value that the
// language cannot express is refused with ErrValues. The error does not contain the value,
// which may be a password.

// quoteDoubled returns a YAML scalar in which $$ is one dollar, because the program that reads
// it expands variables: Compose $NAME in a Compose file, Kubernetes $(NAME) in env, command
// and args of a pod.
func quoteDoubled(v any) (string, error) {
	text, err := toJSON(v)
	return strings.ReplaceAll(text, "$", "$$"), err
}

// quoteEnv returns the VALUE of a line NAME=VALUE in an env file for a program.
func quoteEnv(program string, v any) (string, error) {
	text, err := oneLine(v)
	if err != nil {
		return "", err
	}
	switch program {
	case "podman", "docker": // --env-file takes the rest of the line literally
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

// composeEnv quotes for an env_file of Compose. Both Compose 1 and 2 read single quotes
// literally, but neither reads every backslash and quote between them. Such texts need double
// quotes, in which Compose 2 also reads $$ as one dollar.
func composeEnv(text string) string {
	if !strings.Contains(text, "'") && !strings.Contains(text, `\\`) && !strings.HasSuffix(text, `\`) {
		return "'" + text + "'"
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", "$$").Replace(text) + `"`
}

// UnitWord returns one word for a setting of a systemd unit that is split into words, such as
// Environment=. See systemd.syntax(7), Quoting, and systemd.unit(5), Specifiers. The error
// wraps ErrValues.
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

// UnitArgument returns one argument of a command line in a systemd unit, such as ExecStart=.
// Do not use it for the path of the program, in which systemd expands no variables. Quadlet
// turns all settings of a container into arguments. The error wraps ErrValues.
func UnitArgument(v any) (string, error) {
	text, err := UnitWord(v)
	return strings.ReplaceAll(text, "$", "$$"), err
}

// quoteSystemdLine returns the text for a setting that is not split into words, such as
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

// quoteNginx returns one parameter of a directive. nginx cannot express a dollar.
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

// urlHost returns a host for a URL: an IPv6 address gets brackets.
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

// plainWord reports whether a text contains only characters without a special meaning in env
// files and units.
func plainWord(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		digit := r >= '0' && r <= '9'
		return !letter && !digit && !strings.ContainsRune("_-./:@,+=?&", r)
	})
}
