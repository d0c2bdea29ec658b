package bundle

import "text/template"

// TemplateFunctions are what templates may call besides the functions of
// text/template. A host gives them their meaning.
var TemplateFunctions = []string{
	"image", "repository", "tag", "digest", "chart", "has", "plugins", "pluginKeys",
	"file", "siteFile", "environ", "environMap", "base", "dir", "urlHost", "fail",
	"json", "yaml", "compose", "podEnv", "env", "systemd", "systemdExec", "systemdLine", "nginx", "shell", "sql",
}

// EnvPrograms are the programs for whose env files the function env quotes.
var EnvPrograms = []string{"compose", "systemd", "podman", "docker"}

// CheckTemplate reports what no site could make anything of: a template that is none,
// or that calls a function which does not exist. What it asks of a site is not looked
// at.
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
