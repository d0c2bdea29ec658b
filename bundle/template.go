package bundle

import "text/template"

// TemplateFunctions are what templates may call besides the functions of
// text/template. A host gives them their meaning.
var TemplateFunctions = []string{
	"image", "repository", "tag", "digest", "chart", "has", "plugins", "pluginKeys", "file", "environ", "environMap", "base", "dir", "fail",
	"json", "yaml", "compose", "env", "systemd", "systemdExec", "systemdLine", "nginx", "shell", "sql", "urlHost",
}

// CheckTemplate reports what no site could make anything of: a template that is none,
// or that calls a function which does not exist. What it asks of a site is not looked
// at.
func CheckTemplate(name, text string) error {
	functions := template.FuncMap{}
	for _, f := range TemplateFunctions {
		functions[f] = func(...any) any { return nil }
	}
	if _, err := template.New(name).Funcs(functions).Parse(text); err != nil {
		return err
	}
	return nil
}
