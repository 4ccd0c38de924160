package cli

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"testing"
	"time"
)

func TestSpeak(t *testing.T) {
	for _, c := range []struct {
		name    string
		env     map[string]string
		chinese bool
	}{
		{"nothing set", nil, false},
		{"LANG", map[string]string{"LANG": "zh_CN.UTF-8"}, true},
		{"upper case", map[string]string{"LANG": "ZH_TW"}, true},
		{"LC_MESSAGES over LANG", map[string]string{"LC_MESSAGES": "en_US.UTF-8", "LANG": "zh_CN.UTF-8"}, false},
		{"LC_ALL over the others", map[string]string{"LC_ALL": "zh_CN", "LC_MESSAGES": "C", "LANG": "C"}, true},
		{"an empty one counts as unset", map[string]string{"LC_ALL": "", "LANG": "zh_CN"}, true},
		{"LC_ALL=C over a Chinese LANG", map[string]string{"LC_ALL": "C", "LANG": "zh_CN"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			say := speak(func(name string) string { return c.env[name] })
			want := english()
			if c.chinese {
				want = chinese()
			}
			if say.columns != want.columns {
				t.Errorf("the headings are %q", say.columns)
			}
		})
	}
}

var verb = regexp.MustCompile(`%[a-z]`)

// Both languages say everything, with the same verbs in the same order.
func TestLanguagesAgree(t *testing.T) {
	en, zh := texts(reflect.ValueOf(english())), texts(reflect.ValueOf(chinese()))
	if len(en) < 40 {
		t.Fatalf("only %d texts were found", len(en))
	}
	for name, text := range en {
		if text == "" || zh[name] == "" {
			t.Errorf("%s: one language has nothing: %q, %q", name, text, zh[name])
		}
		if a, b := verb.FindAllString(text, -1), verb.FindAllString(zh[name], -1); !slices.Equal(a, b) {
			t.Errorf("%s: verbs %q and %q", name, a, b)
		}
	}
	if len(zh) != len(en) {
		t.Errorf("%d texts in English, %d in Chinese", len(en), len(zh))
	}
}

// texts are all strings in v by their place.
func texts(v reflect.Value) map[string]string {
	all := map[string]string{}
	var walk func(string, reflect.Value)
	walk = func(name string, v reflect.Value) {
		switch v.Kind() {
		case reflect.String:
			all[name] = v.String()
		case reflect.Array:
			for i := range v.Len() {
				walk(fmt.Sprintf("%s[%d]", name, i), v.Index(i))
			}
		case reflect.Map:
			for _, key := range v.MapKeys() {
				walk(name+"["+key.String()+"]", v.MapIndex(key))
			}
		case reflect.Struct:
			for i := range v.NumField() {
				walk(v.Type().Field(i).Name, v.Field(i))
			}
		}
	}
	walk("", v)
	return all
}

func TestSpan(t *testing.T) {
	say := english()
	for d, want := range map[time.Duration]string{
		-time.Second:             "0s",
		0:                        "0s",
		time.Millisecond:         "1s",
		5600 * time.Millisecond:  "6s",
		119 * time.Second:        "119s",
		2 * time.Minute:          "2m",
		119 * time.Minute:        "119m",
		3 * time.Hour:            "3h",
		49 * time.Hour:           "2d",
		24 * 400 * time.Hour:     "400d",
		2*time.Minute + 1:        "3m",
		47*time.Hour + time.Hour: "2d",
	} {
		if got := say.span(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
}
