package bundle

import (
	"maps"
	"slices"
	"text/template"
	"text/template/parse"
)

// operand is the known origin of a value in a template.
type operand struct {
	place string // ".", ".Values" or ".Secrets" if the value is that object; else ""
	from  flow
}

// flow contains the site's values that are part of a result, and whether each is quoted.
type flow map[string]bool

// flow returns the site's values that are printed if the operand is printed.
func (o operand) flow() flow {
	switch o.place {
	case ".":
		return flow{".Values": false, ".Secrets": false}
	case "":
		return o.from
	}
	return flow{o.place: false}
}

// field returns a field of an operand.
func (o operand) field(name string) operand {
	switch {
	case o.place == "." && (name == "Values" || name == "Secrets"):
		return operand{place: "." + name}
	case o.place == ".":
		return operand{}
	case o.place != "":
		return operand{from: flow{o.place + "." + name: false}}
	}
	return o
}

func (o operand) fields(names []string) operand {
	for _, n := range names {
		o = o.field(n)
	}
	return o
}

// either returns an operand that may be a or b.
func either(a, b operand) operand {
	if a.place == b.place && a.place != "" {
		return a
	}
	return operand{from: union(a.flow(), b.flow())}
}

// union joins flows. A value that is unquoted in one of them is unquoted in the result.
func union(flows ...flow) flow {
	all := flow{}
	for _, f := range flows {
		for origin, quoted := range f {
			before, known := all[origin]
			all[origin] = quoted && (before || !known)
		}
	}
	return all
}

// marked returns the same origins, all quoted or all unquoted.
func (f flow) marked(quoted bool) flow {
	out := flow{}
	for origin := range f {
		out[origin] = quoted
	}
	return out
}

// variable is a template variable. Depth is the number of branches around its declaration.
type variable struct {
	name  string
	depth int
	value operand
}

// flowWalk follows a template through all of its branches and reports the values that it
// prints unquoted.
type flowWalk struct {
	language  *language
	templates *template.Template
	report    func(node parse.Node, origin string)
	found     map[Unquoted]bool

	variables []*variable     // the innermost last
	depth     int             // number of enclosing branches that may not be taken
	loops     int             // number of enclosing loops
	changed   bool            // an assignment has changed a variable
	seen      map[string]bool // calls that were followed: template and argument
}

// template follows a template that is executed with dot.
func (w *flowWalk) template(t *parse.Tree, dot operand) {
	caller := *w
	w.variables, w.depth, w.loops = []*variable{{name: "$", value: dot}}, 0, 0
	w.node(t.Root, dot)
	w.variables, w.depth, w.loops, w.changed = caller.variables, caller.depth, caller.loops, caller.changed
}

func (w *flowWalk) node(n parse.Node, dot operand) {
	switch n := n.(type) {
	case *parse.ListNode:
		if n == nil {
			return
		}
		for _, child := range n.Nodes {
			w.node(child, dot)
		}
	case *parse.ActionNode:
		value := w.pipe(n.Pipe, dot)
		if len(n.Pipe.Decl) > 0 {
			return
		}
		for origin, quoted := range value.flow() {
			if !quoted {
				w.report(n, origin)
			}
		}
	case *parse.IfNode:
		w.branch(func() {
			w.pipe(n.Pipe, dot)
			w.inside(n.List, dot)
			w.inside(n.ElseList, dot)
		})
	case *parse.WithNode:
		w.branch(func() {
			value := w.pipe(n.Pipe, dot)
			w.inside(n.List, value)
			w.inside(n.ElseList, dot)
		})
	case *parse.RangeNode:
		w.branch(func() { w.loop(n, dot) })
	case *parse.TemplateNode:
		w.call(n, dot)
	}
}

// branch runs follow and then drops the variables that follow declared.
func (w *flowWalk) branch(follow func()) {
	outside := len(w.variables)
	follow()
	w.variables = w.variables[:outside]
}

// inside follows a list that may not be executed.
func (w *flowWalk) inside(list *parse.ListNode, dot operand) {
	w.depth++
	w.branch(func() { w.node(list, dot) })
	w.depth--
}

// loop follows the body of a range until no variable changes.
func (w *flowWalk) loop(n *parse.RangeNode, dot operand) {
	list := w.commands(n.Pipe, dot)
	element := operand{from: list.flow()}
	for i, d := range n.Pipe.Decl {
		value := element
		if i == 0 && len(n.Pipe.Decl) == 2 {
			value = operand{} // the key, which the author chose
		}
		w.set(d.Ident[0], value, n.Pipe.IsAssign)
	}
	w.loops++
	for again := true; again; again = w.changed && w.loops == 1 {
		w.changed = w.changed && w.loops > 1
		w.inside(n.List, element)
	}
	w.loops--
	w.inside(n.ElseList, dot)
}

// call follows another template that is called by name.
func (w *flowWalk) call(n *parse.TemplateNode, dot operand) {
	value := operand{}
	if n.Pipe != nil {
		value = w.pipe(n.Pipe, dot)
	}
	key := n.Name + "\x00" + value.place
	for _, origin := range slices.Sorted(maps.Keys(value.from)) {
		key += "\x00" + origin + map[bool]string{true: " quoted"}[value.from[origin]]
	}
	t := w.templates.Lookup(n.Name)
	if t == nil || t.Tree == nil || w.seen[key] {
		return
	}
	w.seen[key] = true
	w.template(t.Tree, value)
}

// set declares a variable or assigns to it. If the assignment may not be executed, the old
// value stays possible.
func (w *flowWalk) set(name string, value operand, assign bool) {
	if !assign {
		w.variables = append(w.variables, &variable{name, w.depth, value})
		return
	}
	for _, v := range slices.Backward(w.variables) {
		if v.name != name {
			continue
		}
		if v.depth < w.depth {
			value = either(v.value, value)
		}
		w.changed = w.changed || !sameOperand(v.value, value)
		v.value = value
		return
	}
}

func sameOperand(a, b operand) bool { return a.place == b.place && maps.Equal(a.from, b.from) }

// pipe evaluates a pipeline and sets its variables.
func (w *flowWalk) pipe(p *parse.PipeNode, dot operand) operand {
	value := w.commands(p, dot)
	for _, d := range p.Decl {
		w.set(d.Ident[0], value, p.IsAssign)
	}
	return value
}

func (w *flowWalk) commands(p *parse.PipeNode, dot operand) operand {
	var value operand
	for i, c := range p.Cmds {
		var last []operand
		if i > 0 {
			last = []operand{value}
		}
		value = w.command(c, dot, last)
	}
	return value
}

// command evaluates one command of a pipeline; last is the result of the previous command.
func (w *flowWalk) command(c *parse.CommandNode, dot operand, last []operand) operand {
	name, ok := c.Args[0].(*parse.IdentifierNode)
	if !ok {
		return w.operand(c.Args[0], dot)
	}
	var args []operand
	for _, a := range c.Args[1:] {
		args = append(args, w.operand(a, dot))
	}
	args = append(args, last...)
	if name.Ident == "index" && len(c.Args) > 1 {
		return indexed(args[0], c.Args[2:])
	}
	if name.Ident == "env" && len(c.Args) > 1 && !knownProgram(c.Args[1]) {
		return w.result("print", c.String(), args)
	}
	return w.result(name.Ident, c.String(), args)
}

// knownProgram reports whether a node may name one of EnvPrograms.
func knownProgram(n parse.Node) bool {
	text, ok := n.(*parse.StringNode)
	return !ok || slices.Contains(EnvPrograms, text.Text)
}

// indexed returns the result of the function index on a map, given the nodes of the keys.
func indexed(of operand, keys []parse.Node) operand {
	for _, k := range keys {
		text, ok := k.(*parse.StringNode)
		if !ok || of.place == "." {
			return operand{from: of.flow()}
		}
		of = of.field(text.Text)
	}
	return of
}

// result returns the result of a function on its arguments. Call is the text of the call.
func (w *flowWalk) result(function, call string, args []operand) operand {
	flows := make([]flow, len(args))
	for i, a := range args {
		flows[i] = a.flow()
	}
	all := union(flows...)
	if slices.Contains(w.language.quotes, function) {
		return operand{from: all.marked(true)}
	}
	switch function {
	case "and", "or":
		return operand{from: all}
	case "environ", "environMap": // reads a document that contains values
		return operand{from: flow{call: false}}
	case "eq", "ne", "lt", "le", "gt", "ge", "not", "len", "has", "file", "fail",
		"image", "repository", "tag", "digest", "chart", "plugins", "pluginKeys":
		return operand{} // returns no value, or (fail) an error, or (file) a file that is checked by itself
	}
	return operand{from: all.marked(false)}
}

func (w *flowWalk) operand(n parse.Node, dot operand) operand {
	switch n := n.(type) {
	case *parse.DotNode:
		return dot
	case *parse.FieldNode:
		return dot.fields(n.Ident)
	case *parse.VariableNode:
		for _, v := range slices.Backward(w.variables) {
			if v.name == n.Ident[0] {
				return v.value.fields(n.Ident[1:])
			}
		}
	case *parse.ChainNode:
		return w.operand(n.Node, dot).fields(n.Field)
	case *parse.PipeNode:
		return w.pipe(n, dot)
	case *parse.IdentifierNode:
		return w.result(n.Ident, n.Ident, nil)
	}
	return operand{}
}
