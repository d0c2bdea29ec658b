package host

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"

	"github.com/oob-bundle/oob-bundle/bundle"
)

// ErrTemplate reports a template of the bundle that fails on this host. The bundle's author
// has to correct it.
var ErrTemplate = errors.New("a template of the bundle cannot be filled in")

// limits is the remaining budget of all templates of one release. Without limits, a template
// of a few bytes can loop for hours or double a string until the memory is full.
type limits struct {
	steps int // executed blocks and function calls
	bytes int // of output and of what functions return
}

func newLimits() *limits { return &limits{steps: 50_000, bytes: 16 * bundle.MaxTemplate} }

// step counts an executed block.
func (l *limits) step() (string, error) {
	if l.steps--; l.steps < 0 {
		return "", errors.New("it takes too many steps; does it loop?")
	}
	return "", nil
}

// use counts bytes.
func (l *limits) use(n int) error {
	if l.bytes -= n; n > bundle.MaxTemplate || l.bytes < 0 {
		return fmt.Errorf(
			"its result is too long: a template may have %d bytes, and all of a release together %d",
			bundle.MaxTemplate,
			16*bundle.MaxTemplate,
		)
	}
	return nil
}

// render renders one template. The error names the file and wraps ErrTemplate.
func (r *renderer) render(name, text string) ([]byte, error) {
	if r.limits == nil {
		r.limits = newLimits()
	}
	functions := builtins()
	maps.Copy(functions, r.functions())
	for f, function := range functions {
		functions[f] = r.limits.wrap(function)
	}
	functions[stepFunction] = r.limits.step
	t, err := template.New(name).Option("missingkey=error").Funcs(functions).Parse(text)
	if err == nil {
		err = countSteps(t)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrTemplate, name, err)
	}
	out := &boundedOutput{limits: r.limits}
	if err := t.Execute(out, r.view); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrTemplate, name, err)
	}
	return out.Bytes(), nil
}

// boundedOutput is the output of one template, limited by limits.
type boundedOutput struct {
	bytes.Buffer
	limits *limits
}

func (b *boundedOutput) Write(p []byte) (int, error) {
	if err := b.limits.use(len(p)); err != nil {
		return 0, err
	}
	if b.Len()+len(p) > bundle.MaxTemplate {
		return 0, b.limits.use(bundle.MaxTemplate + 1)
	}
	return b.Buffer.Write(p)
}

// stepFunction is the name of the function that every block calls first.
const stepFunction = "_step"

// countSteps makes every block of the templates call stepFunction. text/template has no other
// way to end a loop that writes nothing.
func countSteps(t *template.Template) error {
	call, err := template.New("").Funcs(template.FuncMap{stepFunction: func() string { return "" }}).Parse("{{" + stepFunction + "}}")
	if err != nil {
		return err
	}
	step := call.Root.Nodes[0]
	for _, x := range t.Templates() {
		if x.Tree != nil && x.Root != nil {
			addStep(x.Root, step)
		}
	}
	return nil
}

func addStep(list *parse.ListNode, step parse.Node) {
	if list == nil {
		return
	}
	for _, n := range list.Nodes {
		switch n := n.(type) {
		case *parse.IfNode:
			addStep(n.List, step)
			addStep(n.ElseList, step)
		case *parse.RangeNode:
			addStep(n.List, step)
			addStep(n.ElseList, step)
		case *parse.WithNode:
			addStep(n.List, step)
			addStep(n.ElseList, step)
		}
	}
	list.Nodes = append([]parse.Node{step.Copy()}, list.Nodes...)
}

// builtins returns the functions of text/template that return text.
func builtins() template.FuncMap {
	return template.FuncMap{
		"print": fmt.Sprint, "println": fmt.Sprintln, "printf": boundedPrintf,
		"html": template.HTMLEscaper, "js": template.JSEscaper, "urlquery": percentEncoded,
	}
}

// percentEncoded is text/template's urlquery with %20 for a space, which is correct in all
// parts of a URL. A plus sign means a space only in queries.
func percentEncoded(args ...any) string {
	return strings.ReplaceAll(template.URLQueryEscaper(args...), "+", "%20")
}

var (
	formatVerb  = regexp.MustCompile(`(?s)%[-+# 0-9.*\[\]]*.?`) // with flags, width and precision
	formatWidth = regexp.MustCompile(`[0-9]+`)
)

// boundedPrintf is fmt.Sprintf with a limit on widths, which could fill the memory.
func boundedPrintf(format string, args ...any) (string, error) {
	const most = 4096
	for _, verb := range formatVerb.FindAllString(format, -1) {
		for _, digits := range formatWidth.FindAllString(verb, -1) {
			if n, err := strconv.Atoi(digits); err != nil || n > most {
				return "", fmt.Errorf("printf: the width %s is larger than %d", digits, most)
			}
		}
		if strings.Contains(verb, "*") {
			return "", errors.New("printf: a width has to be a number in the format")
		}
	}
	return fmt.Sprintf(format, args...), nil
}

// wrap returns the function with limits: it counts each call, the bytes of the arguments
// before the call, and the bytes of the result.
func (l *limits) wrap(function any) any {
	f := reflect.ValueOf(function)
	fails := f.Type().NumOut() == 2
	out := []reflect.Type{f.Type().Out(0), reflect.TypeFor[error]()}
	var in []reflect.Type
	for i := range f.Type().NumIn() {
		in = append(in, f.Type().In(i))
	}
	call := func(args []reflect.Value) []reflect.Value {
		if f.Type().IsVariadic() {
			return f.CallSlice(args)
		}
		return f.Call(args)
	}
	wrapped := func(args []reflect.Value) []reflect.Value {
		failed := func(err error) []reflect.Value {
			return []reflect.Value{reflect.Zero(out[0]), reflect.ValueOf(&err).Elem()}
		}
		if _, err := l.step(); err != nil {
			return failed(err)
		}
		if err := l.use(textSize(args)); err != nil {
			return failed(err)
		}
		results := call(args)
		if fails && !results[1].IsNil() {
			return results
		}
		if err := l.use(textSize(results[:1])); err != nil {
			return failed(err)
		}
		return append(results[:1], reflect.Zero(out[1]))
	}
	return reflect.MakeFunc(reflect.FuncOf(in, out, f.Type().IsVariadic()), wrapped).Interface()
}

// textSize returns the number of bytes in the strings among values.
func textSize(values []reflect.Value) (n int) {
	for _, v := range values {
		for v.Kind() == reflect.Interface {
			v = v.Elem()
		}
		switch {
		case v.Kind() == reflect.String:
			n += v.Len()
		case v.Kind() == reflect.Slice && v.Type().Elem().Kind() == reflect.Interface:
			for i := range v.Len() {
				n += textSize([]reflect.Value{v.Index(i)})
			}
		case v.Kind() == reflect.Map && v.Type().Elem().Kind() == reflect.String:
			for _, key := range v.MapKeys() {
				n += v.MapIndex(key).Len()
			}
		}
	}
	return n
}

// ownText renders a template of the bundle's files. secret reports whether the result depends
// on a secret of the site. shown is the result with names in place of the secrets, or nil if
// the template fails with the names.
func (r *Release) ownText(render *renderer, name, text string) (data, shown []byte, secret bool, err error) {
	data, err = render.render(name, text)
	if len(r.secrets) == 0 && !strings.Contains(text, "siteFile") {
		return data, data, false, err
	}
	masked := *render
	masked.limits, masked.Secrets, masked.shown = newLimits(), map[string]string{}, true
	for s := range r.secrets {
		masked.Secrets[s] = secretMask(s)
	}
	masked.file = func(p string) (string, error) { return r.included(&masked, p) }
	shown, maskedErr := masked.render(name, text)
	if err != nil && maskedErr == nil {
		err = fmt.Errorf(
			"%w: %s: it fails with the passwords of this site; the reason is not shown, because it may contain them",
			ErrTemplate, name,
		)
	} else if err != nil {
		err = maskedErr
	}
	return data, shown, !bytes.Equal(data, shown), err
}

// secretMask returns the text that replaces a password for display.
func secretMask(name string) string { return "<secret " + name + ">" }
