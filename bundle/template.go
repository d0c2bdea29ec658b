package bundle

import "text/template"

// TemplateFunctions are the functions that templates may call besides those of text/template.
// The host implements them.
var TemplateFunctions = []string{
	"image", "repository", "tag", "digest", "chart", "has", "plugins", "pluginKeys",
	"file", "siteFile", "environ", "environMap", "base", "dir", "urlHost", "fail", "words", "steps",
	"json", "yaml", "compose", "podEnv", "env", "systemd", "systemdExec", "systemdLine", "nginx", "shell", "sql",
}

// EnvPrograms are the programs for whose env files the function env can quote.
var EnvPrograms = []string{"compose", "systemd", "podman", "docker"}

// CheckTemplate returns an error if a template cannot be parsed or calls an unknown function.
// It does not check which values of a site the template reads.
func CheckTemplate(name, text string) error {
	_, err := parseTemplate(name, text)
	return err
}

// parseTemplate parses a template with functions that do nothing.
func parseTemplate(name, text string) (*template.Template, error) {
	functions := template.FuncMap{}
	for _, f := range TemplateFunctions {
		functions[f] = func(...any) any { return nil }
	}
	return template.New(name).Funcs(functions).Parse(text)
}
