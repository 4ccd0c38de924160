package checkpage

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// asset returns a file that the page must have.
func asset(t *testing.T, name string) string {
	t.Helper()
	body, _, ok := Asset(name)
	if !ok {
		t.Fatalf("there is no %q", name)
	}
	return string(body)
}

func TestAsset(t *testing.T) {
	for name, want := range map[string]string{
		"":             "text/html; charset=utf-8",
		"index.html":   "text/html; charset=utf-8",
		"check.css":    "text/css; charset=utf-8",
		"check.js":     "text/javascript; charset=utf-8",
		"strings.json": "application/json",
		"icon.svg":     "image/svg+xml",
	} {
		body, contentType, ok := Asset(name)
		if !ok || len(body) == 0 || contentType != want {
			t.Errorf("Asset(%q): %d bytes of %q, %v; want %q", name, len(body), contentType, ok, want)
		}
	}
	for _, name := range []string{"nodes.json", "checkpage.go", "../config.go", "/check.css", "."} {
		if _, _, ok := Asset(name); ok {
			t.Errorf("Asset(%q) serves something", name)
		}
	}
}

func TestCallerOwnsBody(t *testing.T) {
	body, _, _ := Asset("check.css")
	body[0] ^= 0xff
	if again, _, _ := Asset("check.css"); again[0] == body[0] {
		t.Error("changing a body changed the file")
	}
}

// references finds what the page's files load: attributes of the HTML, imports
// and loads of the scripts.
var references = map[string]*regexp.Regexp{
	"check.html": regexp.MustCompile(`(?:src|href)="([^"]*)"`),
	"check.js":   regexp.MustCompile(`from '([^']*)'|loadJSON\('([^']*)'\)`),
	"probe.js":   regexp.MustCompile(`from '([^']*)'`),
	"view.js":    regexp.MustCompile(`from '([^']*)'`),
	"check.css":  regexp.MustCompile(`url\(([^)]*)\)|@import\s+(\S+)`),
}

func TestEverythingReferencedExists(t *testing.T) {
	var found []string
	for file, pattern := range references {
		for _, match := range pattern.FindAllStringSubmatch(asset(t, file), -1) {
			name := strings.TrimPrefix(strings.Join(match[1:], ""), "./")
			found = append(found, name)
			if name != "nodes.json" { // the gateway's
				asset(t, name)
			}
		}
	}
	for _, name := range []string{"check.css", "check.js", "probe.js", "view.js", "strings.json", "nodes.json", "icon.svg"} {
		if !slices.Contains(found, name) {
			t.Errorf("nothing refers to %s: is the pattern that looks for it still right?", name)
		}
	}
}

// TestNothingInline holds what the page's Content-Security-Policy needs.
func TestNothingInline(t *testing.T) {
	page := asset(t, "")
	for what, pattern := range map[string]string{
		"a style attribute":            `(?i)<[^>]*\sstyle\s*=`,
		"an event attribute":           `(?i)<[^>]*\son[a-z]+\s*=`,
		"a style element":              `(?i)<style`,
		"a script without src":         `(?i)<script(?:\s+[a-rt-z][^\s>]*)*\s*>`,
		"a script with a body":         `(?i)<script[^>]*>[^<]`,
		"a javascript or data address": `(?i)(?:src|href)="(?:javascript|data):`,
	} {
		if found := regexp.MustCompile(pattern).FindString(page); found != "" {
			t.Errorf("check.html has %s: %s", what, found)
		}
	}
	for _, script := range []string{"check.js", "probe.js", "view.js"} {
		if found := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(`).FindString(asset(t, script)); found != "" {
			t.Errorf("%s has %s: data goes in as text", script, found)
		}
	}
}

// languages returns the tables of strings.
func languages(t *testing.T) map[string]map[string]string {
	t.Helper()
	var tables map[string]map[string]string
	if err := json.Unmarshal([]byte(asset(t, "strings.json")), &tables); err != nil {
		t.Fatal(err)
	}
	return tables
}

func TestLanguagesSayTheSame(t *testing.T) {
	tables := languages(t)
	en, zh := tables["en"], tables["zh"]
	if len(tables) != 2 || len(en) == 0 {
		t.Fatalf("%d languages, %d English strings", len(tables), len(en))
	}
	keys := slices.Sorted(maps.Keys(en))
	if other := slices.Sorted(maps.Keys(zh)); !slices.Equal(keys, other) {
		t.Fatalf("keys differ:\nen %v\nzh %v", keys, other)
	}
	placeholder := regexp.MustCompile(`\{\w+\}`)
	for _, key := range keys {
		if en[key] == "" || zh[key] == "" {
			t.Errorf("%s is empty", key)
		}
		a, b := placeholder.FindAllString(en[key], -1), placeholder.FindAllString(zh[key], -1)
		slices.Sort(a)
		slices.Sort(b)
		if !slices.Equal(a, b) {
			t.Errorf("%s fills in %v in English, %v in Chinese", key, a, b)
		}
	}
}

func TestEveryStringIsThereAndUsed(t *testing.T) {
	en := languages(t)["en"]
	page := asset(t, "")
	for _, match := range regexp.MustCompile(`data-(?:text|label|placeholder)="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if en[match[1]] == "" {
			t.Errorf("check.html asks for string %q", match[1])
		}
	}
	scripts := asset(t, "check.js") + asset(t, "probe.js") + asset(t, "view.js")
	for _, match := range regexp.MustCompile(`(?:word|sentence|hint|line)\('(\w+)'[,)]`).FindAllStringSubmatch(scripts, -1) {
		if en[match[1]] == "" {
			t.Errorf("a script asks for string %q", match[1])
		}
	}
	composed := regexp.MustCompile(`^(?:state[A-Z]|http\d{3}$|code\d{4}$)`)
	for key := range en {
		if !composed.MatchString(key) && !strings.Contains(page, `"`+key+`"`) && !regexp.MustCompile(`'`+key+`'|\.`+key+`\b`).MatchString(scripts) {
			t.Errorf("nothing uses string %q", key)
		}
	}
}

// TestNamedCodesHaveWords holds the keys that the scripts compose.
func TestNamedCodesHaveWords(t *testing.T) {
	en := languages(t)["en"]
	for name, prefix := range map[string]string{"namedCodes": "code", "namedStatus": "http"} {
		match := regexp.MustCompile(`const ` + name + ` = \[([^\]]*)\]`).FindStringSubmatch(asset(t, "probe.js"))
		if match == nil {
			t.Fatalf("probe.js has no %s", name)
		}
		for number := range strings.SplitSeq(match[1], ", ") {
			if en[prefix+number] == "" {
				t.Errorf("there is no string %q", prefix+number)
			}
		}
	}
	for _, state := range []string{"Idle", "Connecting", "Open", "Answered", "Closed", "Failed"} {
		if en["state"+state] == "" {
			t.Errorf("there is no string %q", "state"+state)
		}
	}
}
