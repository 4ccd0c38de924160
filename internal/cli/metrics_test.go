package cli

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// failedQueries waits until /metrics counts failed queries to a Consul that is
// not there, of one kind only.
func failedQueries(t *testing.T, admin string) {
	t.Helper()
	series := `singlegate_consul_errors_total{kind="%s",service="im"} `
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		resp, err := http.Get("http://" + admin + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if says(t, string(text), fmt.Sprintf(series, "refused")+"0\n", fmt.Sprintf(series, "no_leader")+"0\n", fmt.Sprintf(series, "other")+"0\n"); t.Failed() {
			return
		}
		if _, n, ok := strings.Cut(string(text), fmt.Sprintf(series, "unreachable")); ok && n[0] != '0' {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("no failed query is counted:\n%s", text)
		}
	}
}

// A Consul that is not there is counted, and still is after a reload that asks
// for it in another way.
func TestConsulErrorsAreCounted(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	dir := t.TempDir()
	s := openTestSite(t, filepath.Join(dir, "singlegate.yaml"), `
admin: {address: "127.0.0.1:0"}
listeners: [{address: "127.0.0.1:0"}]
discovery: {consul: {address: "`+l.Addr().String()+`", wait: 1s}}
services: {im: {consul: im}}
routes: [{path: "/ws/{node}", service: im}]
`)
	failedQueries(t, s.admin.Addr().String())
	path := filepath.Join(dir, "singlegate.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	writeConfig(t, path, strings.Replace(string(text), "wait: 1s", "wait: 2s", 1))
	s.reload(load(path))
	failedQueries(t, s.admin.Addr().String())
}

// The READMEs list every metric of the gateway's own, and no other.
func TestREADMEsListTheMetrics(t *testing.T) {
	s := openTestSite(t, filepath.Join(t.TempDir(), "singlegate.yaml"), "listeners: [{address: \"127.0.0.1:0\"}]\nroutes: [{path: /, page: check}]\n")
	descs := make(chan *prometheus.Desc)
	go func() {
		defer close(descs)
		s.server.Metrics().(*prometheus.Registry).Describe(descs)
	}()
	var want []string
	named := regexp.MustCompile(`fqName: "(singlegate_\w+)"`)
	for d := range descs {
		if m := named.FindStringSubmatch(d.String()); m != nil {
			want = append(want, m[1])
		}
	}
	slices.Sort(want)
	for _, name := range []string{"README.md", "README.zh-CN.md"} {
		text, err := os.ReadFile(filepath.Join("..", "..", name))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range regexp.MustCompile("(?m)^\\| `(singlegate_\\w+)`").FindAllStringSubmatch(string(text), -1) {
			got = append(got, m[1])
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%s lists\n%q, there are\n%q", name, got, want)
		}
	}
}
