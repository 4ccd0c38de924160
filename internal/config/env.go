package config

import (
	"fmt"
	"strings"
)

// maxValue is how long a value may become when its variables are put in.
const maxValue = 64 << 10

// expand puts the values of ${NAME} and ${NAME:-default} into a value. As in a
// shell, the default is for a variable that is not set or empty. $${ stands for
// a literal ${. An error names the variable and never shows what it holds.
func expand(raw string, env func(string) (string, bool)) (string, error) {
	var b strings.Builder
	rest := raw
	for {
		i := strings.Index(rest, "${")
		if i < 0 {
			b.WriteString(rest)
			break
		}
		if i > 0 && rest[i-1] == '$' {
			b.WriteString(rest[:i-1] + "${")
			rest = rest[i+2:]
			continue
		}
		b.WriteString(rest[:i])
		reference, after, ok := strings.Cut(rest[i+2:], "}")
		if !ok {
			return "", fmt.Errorf("a ${ without its }; a literal one is written $${")
		}
		text, err := lookup(reference, env)
		if err != nil {
			return "", err
		}
		b.WriteString(text)
		if b.Len() > maxValue {
			return "", fmt.Errorf("longer than %d bytes with its variables", maxValue)
		}
		rest = after
	}
	return b.String(), nil
}

func lookup(reference string, env func(string) (string, bool)) (string, error) {
	name, fallback, hasDefault := strings.Cut(reference, ":-")
	if !isVariableName(name) {
		return "", fmt.Errorf("${%s} names no variable; write ${NAME} or ${NAME:-default}, and $${ for a literal ${", brief(name))
	}
	if strings.Contains(fallback, "${") {
		return "", fmt.Errorf("the default of ${%s} holds another variable, which is not supported", brief(name))
	}
	text, ok := env(name)
	switch {
	case hasDefault && text == "":
		return fallback, nil
	case !ok:
		return "", fmt.Errorf("the environment variable %s is not set; set it, or write ${%s:-default}", brief(name), brief(name))
	}
	return text, nil
}

func isVariableName(s string) bool {
	for i, r := range s {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}
