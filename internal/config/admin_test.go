package config

import (
	"path/filepath"
	"reflect"
	"testing"
)

func TestAdmin(t *testing.T) {
	const rest = "\nlisteners: [{address: \":80\"}]\nroutes: [{path: /, page: check}]\n"
	for text, want := range map[string]Admin{
		"": {},
		`admin: {address: ":9180", token_file: t, hosts: [GW1.mgmt]}`:           {Address: ":9180", TokenFile: filepath.Join("conf", "t"), Hosts: []string{"gw1.mgmt"}},
		`admin: {address: "10.0.0.1:9180", write_token_file: /etc/t}`:           {Address: "10.0.0.1:9180", WriteTokenFile: "/etc/t"},
		`admin: {address: "[::1]:9180", write_token_file: w, token_file: /r/t}`: {Address: "[::1]:9180", TokenFile: "/r/t", WriteTokenFile: filepath.Join("conf", "w")},
	} {
		f, err := Parse(filepath.Join("conf", "a.yaml"), []byte(text+rest), testEnv)
		if err != nil || !reflect.DeepEqual(f.Admin, want) {
			t.Errorf("%s:\n%+v, %v\nwant %+v", text, f.Admin, err, want)
		}
	}
}
