package config

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzParse holds what Parse promises for any bytes: no panic, errors whose
// places are within the file, each in one line, none with an expanded value.
func FuzzParse(f *testing.F) {
	names, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(names) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, name := range append(names, "testdata/good.yaml", "testdata/ports.yaml") {
		f.Add(readFile(f, name))
	}
	f.Add([]byte("a: &a [*a]\nb: *a"))
	f.Add([]byte("{a: {b: [c, {d: |-\n e}]}}"))
	env := func(name string) (string, bool) {
		switch {
		case strings.HasSuffix(name, "P"):
			return "zq9:80", true
		case strings.HasSuffix(name, "H"):
			return "/zq9/{node}", true
		}
		return "zq9", name != "NOT_SET"
	}
	f.Add([]byte(`{listeners: [{address: "${AP}", name: "${A}"}, {address: "${AP}", name: "${A}"}], services: {a: {nodes: {b: "${AP}"}}}, routes: [{path: "${AH}", service: a}, {path: "${AH}", service: "${A}", listeners: ["${A}", x]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse("dir/x.yaml", data, env)
		if err == nil {
			if file == nil {
				t.Fatal("neither a file nor an error")
			}
			return
		}
		errs, ok := errors.AsType[*Errors](err)
		if !ok || len(*errs) == 0 {
			t.Fatalf("got %v, %T", file, err)
		}
		lines := strings.Split(string(data), "\n")
		for _, e := range *errs {
			checkError(t, e, lines)
			if strings.Contains(e.Message, "zq9") && !strings.Contains(strings.ToLower(string(data)), "zq9") {
				t.Errorf("%v shows an expanded value", e)
			}
		}
	})
}

func checkError(t *testing.T, e Error, lines []string) {
	if e.File != "x.yaml" || e.Message == "" || strings.Contains(e.Message, "\n") {
		t.Errorf("%+v is no error in one line", e)
	}
	if e.Line < 1 || e.Line > len(lines) || e.Column < 1 || e.Column > utf8.RuneCountInString(lines[e.Line-1])+1 {
		t.Errorf("%v is outside of the file", e)
	}
}
