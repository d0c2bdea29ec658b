package record

import (
	"fmt"
	"reflect"
	"strings"
	"unicode"
)

// visible returns a copy of v whose exported strings contain only visible characters.
// Control characters, combining marks, unusual spaces and direction characters are
// replaced by their code, such as [U+202E], so the page shows the actual text.
func visible[T any](v T) T {
	out := reflect.New(reflect.TypeFor[T]()).Elem()
	out.Set(makeVisible(reflect.ValueOf(v)))
	return out.Interface().(T)
}

func makeVisible(v reflect.Value) reflect.Value {
	switch v.Kind() {
	case reflect.String:
		out := reflect.New(v.Type()).Elem()
		out.SetString(visibleText(v.String()))
		return out
	case reflect.Pointer:
		if v.IsNil() {
			return v
		}
		out := reflect.New(v.Type().Elem())
		out.Elem().Set(makeVisible(v.Elem()))
		return out
	case reflect.Slice:
		if v.IsNil() {
			return v
		}
		out := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
		for i := range v.Len() {
			out.Index(i).Set(makeVisible(v.Index(i)))
		}
		return out
	case reflect.Map:
		if v.IsNil() {
			return v
		}
		out := reflect.MakeMapWithSize(v.Type(), v.Len())
		for _, k := range v.MapKeys() {
			out.SetMapIndex(makeVisible(k), makeVisible(v.MapIndex(k)))
		}
		return out
	case reflect.Struct:
		out := reflect.New(v.Type()).Elem()
		out.Set(v)
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				out.Field(i).Set(makeVisible(v.Field(i)))
			}
		}
		return out
	}
	return v
}

func visibleText(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) && !unicode.IsMark(r) && r != unicode.ReplacementChar {
			b.WriteRune(r)
			continue
		}
		fmt.Fprintf(&b, "[U+%04X]", r)
	}
	return b.String()
}
