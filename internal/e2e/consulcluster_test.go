package e2e

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

// The files of the cluster are whole: every config passes a check, and every
// definition can be read and says where its service is.
func testConsulCluster(t *testing.T, e *example) {
	for _, name := range []string{"gateway-a.yaml", "gateway-b.yaml", "services/gateway.yaml"} {
		if r := runCommand(t, e.dir, "check", "--config", name); r.code != 0 {
			t.Errorf("check of %s: exit code %d\n%s", name, r.code, r.err)
		}
	}
	if r := runToEnd(t, e.shell(t, "sh -n run.sh")); r.code != 0 {
		t.Errorf("run.sh: %s", r.err)
	}
	gateway := readFile(t, filepath.Join(e.dir, "services", "gateway.yaml"))
	for _, folder := range []string{"nodes", "services"} {
		files, err := filepath.Glob(filepath.Join(e.dir, folder, "*.json"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no definitions in %s: %v", folder, err)
		}
		for _, file := range files {
			for _, s := range definitions(t, file) {
				if s.ID == "" || s.Address == "" || s.Port == 0 {
					t.Errorf("%s: the definition %+v lacks its id, address or port", file, s)
				}
				if s.Name == "" || !strings.Contains(gateway, s.Name) {
					t.Errorf("%s: services/gateway.yaml takes no service %q", file, s.Name)
				}
			}
		}
	}
}

type definition struct {
	ID, Name, Address string
	Port              uint16
}

// definitions are those of a file as `consul services register` takes it.
func definitions(t *testing.T, file string) []definition {
	t.Helper()
	var content struct {
		Service  *definition
		Services []definition
	}
	if err := json.Unmarshal([]byte(readFile(t, file)), &content); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if content.Service != nil {
		content.Services = append(content.Services, *content.Service)
	}
	if len(content.Services) == 0 {
		t.Errorf("%s defines no service", file)
	}
	return content.Services
}
