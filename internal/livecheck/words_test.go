package livecheck

import (
	"bufio"
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"singlegate/discovery"
	"singlegate/gateway"
)

// codes are the constants of causes.go.
func codes(t *testing.T) map[Code]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "causes.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := map[Code]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || spec.Type == nil || spec.Type.(*ast.Ident).Name != "Code" {
			return true
		}
		value, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		if other := all[Code(value)]; other != "" {
			t.Errorf("%s and %s are both %q", other, spec.Names[0].Name, value)
		}
		all[Code(value)] = spec.Names[0].Name
		return true
	})
	return all
}

// Both languages have a text for every code, with the same parts and gaps.
func TestTextsOfBothLanguages(t *testing.T) {
	en, zh := englishTexts().texts, chineseTexts().texts
	all := codes(t)
	if len(all) < 90 || len(en) != len(all) || len(zh) != len(all) {
		t.Errorf("%d codes, %d English texts, %d Chinese ones", len(all), len(en), len(zh))
	}
	gap := regexp.MustCompile(`\{[a-z]+\}`)
	for code, name := range all {
		for _, pair := range [][2]string{{en[code].short, zh[code].short}, {en[code].why, zh[code].why}, {en[code].todo, zh[code].todo}} {
			if (pair[0] == "") != (pair[1] == "") {
				t.Errorf("%s: %q in English, %q in Chinese", name, pair[0], pair[1])
			}
		}
		gapsOf := func(x text) []string {
			return slices.Compact(slices.Sorted(slices.Values(gap.FindAllString(x.short+x.why+x.todo, -1))))
		}
		if a, b := gapsOf(en[code]), gapsOf(zh[code]); !slices.Equal(a, b) {
			t.Errorf("%s: %v in English, %v in Chinese", name, a, b)
		}
		if strings.ContainsFunc(en[code].short+en[code].why+en[code].todo, func(r rune) bool { return r > unicode.MaxASCII }) {
			t.Errorf("%s: the English text is not in ASCII", name)
		}
	}
	for code := range maps.Keys(en) {
		if all[code] == "" {
			t.Errorf("there is no code %q", code)
		}
	}
}

func TestIsChinese(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		want bool
	}{
		{nil, false},
		{map[string]string{"LANG": "zh_CN.UTF-8"}, true},
		{map[string]string{"LANG": "zh_TW.UTF-8", "LC_MESSAGES": "C"}, false},
		{map[string]string{"LANG": "C", "LC_MESSAGES": "zh_CN"}, true},
		{map[string]string{"LANG": "C", "LC_MESSAGES": "C", "LC_ALL": "ZH_cn"}, true},
		{map[string]string{"LANG": "zh_CN", "LC_ALL": "en_US.UTF-8"}, false},
	} {
		if got := IsChinese(func(name string) string { return c.env[name] }); got != c.want {
			t.Errorf("%v: %v", c.env, got)
		}
	}
}

func TestCells(t *testing.T) {
	for s, want := range map[string]int{"": 0, "node1": 5, "节点": 4, "连接\uff08a\uff09": 9, "✓": 1} {
		if got := cells(s); got != want {
			t.Errorf("%q takes %d cells, want %d", s, got, want)
		}
	}
}

func TestWithoutSecrets(t *testing.T) {
	for in, want := range map[string]string{
		"":                                     "",
		"/login?token=s":                       "/login?…",
		"https://u:p@h.example.gov/a?x#y":      "https://h.example.gov/a?…",
		"https://h.example.gov":                "https://h.example.gov",
		"https://h.example.gov/":               "https://h.example.gov/",
		"https://h.example.gov/#access_token=": "https://h.example.gov/?…",
	} {
		if got := withoutSecrets(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

// A route that another one hides is said, unless it is a redirect that does.
func TestHiddenRoute(t *testing.T) {
	s := newSite(t, siteConfig)
	s.file.Gateway.Routes = append(s.file.Gateway.Routes,
		gateway.Route{At: "site.yaml:90:5", Host: "im.example.gov", Paths: []string{"/api"}, Listeners: []string{"tls"}, Service: "chat"},
		gateway.Route{At: "site.yaml:91:5", Host: "im.example.gov", Paths: []string{"/api"}, Listeners: []string{"plain"}, Redirect: "https"})
	r := s.check()
	is(t, one(t, r, titleService, "https://im.example.gov/api"), Warn, hiddenRoute, "place=site.yaml:90:5")
	if hidden := find(r, titleService, "http://im.example.gov/api"); len(hidden) > 0 {
		t.Errorf("a redirect on purpose is reported: %v", hidden)
	}
}

func TestPaths(t *testing.T) {
	for _, c := range []struct{ rewrite, pattern, name, path, sent string }{
		{"", "/ws/{node}", "node1", "/ws/node1", "/ws/node1"},
		{"/", "/ws/{node}/", "node 1", "/ws/node%201", "/"},
		{"/", "/app/", "", "/app/", "/"},
		{"/v2", "/app/", "", "/app/", "/v2/"},
		{"/v2", "/app", "", "/app", "/v2"},
		{"/base/", "/", "", "/", "/base/"},
		{"", "/", "node1", "/", "/"},
	} {
		path := pathFor(c.pattern, c.name)
		if sent := sentPath(&gateway.Route{Rewrite: c.rewrite}, c.pattern, path); path != c.path || sent != c.sent {
			t.Errorf("%+v: %s, sent as %s", c, path, sent)
		}
	}
}

func TestPublicPort(t *testing.T) {
	n := discovery.Node{ID: "node3", Ports: map[string]uint16{"tcp": 1883}, Meta: map[string]string{"p": "5020", "bad": "70000"}}
	for _, c := range []struct {
		rule gateway.PortRule
		id   string
		want uint16
		ok   bool
	}{
		{gateway.PortRule{Map: map[string]uint16{"node3": 5021}}, "node3", 5021, true},
		{gateway.PortRule{Map: map[string]uint16{}}, "node3", 0, true},
		{gateway.PortRule{Meta: "p"}, "node3", 5020, true},
		{gateway.PortRule{Meta: "bad"}, "node3", 0, false},
		{gateway.PortRule{Meta: "none"}, "node3", 0, false},
		{gateway.PortRule{Same: true}, "node3", 1883, true},
		{gateway.PortRule{Base: 10080}, "node3", 10083, true},
		{gateway.PortRule{Base: 10080}, "node", 0, false},
		{gateway.PortRule{Base: 65535}, "node3", 0, false},
	} {
		n.ID = c.id
		port, ok := publicPort(c.rule, &n, "tcp")
		if ok != c.ok || ok && port != c.want {
			t.Errorf("%+v of %s: %d, %v", c.rule, c.id, port, ok)
		}
	}
}

func TestListeningOnIPv6(t *testing.T) {
	const table = "  sl  local_address\n   0: 00000000000000000000000001000000:1F90 0:0 0A\n   1: 00000000000000000000000000000000:1F91 0:0 0A\n"
	m := machine{addresses: func() []netip.Addr { return nil }, readFile: func(name string) ([]byte, error) {
		if strings.HasSuffix(name, "6") {
			return []byte(regexp.MustCompile(`01000000:`).ReplaceAllString(table, wordOne()+":")), nil
		}
		return nil, nil
	}}
	if list, known := m.listening(8080); !known || addressList(list) != "::1" {
		t.Errorf("8080: %v", list)
	}
	list, _ := m.listening(8081)
	if !reaches(list, netip.MustParseAddr("127.0.0.1")) || !reaches(list, netip.MustParseAddr("::1")) {
		t.Errorf("8081: %v does not reach this machine", list)
	}
	if list, _ := m.listening(8080); reaches(list, netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("8080: %v reaches 127.0.0.1", list)
	}
}

// wordOne is how the kernel writes the last 32 bits of ::1.
func wordOne() string {
	var b [4]byte
	b[3] = 1
	if littleEndian("0100007F:") != "0100007F:" {
		return "00000001"
	}
	return "01000000"
}

func FuzzListeners(f *testing.F) {
	f.Add("  sl\n   0: 0100007F:1F90 00000000:0000 0A\n", uint16(8080))
	f.Add("   0: 00000000000000000000000001000000:1F90 0:0 0A", uint16(8080))
	f.Add("x: :: 0A 0A\n\n0: 7F:1F90 0 0A", uint16(0))
	f.Fuzz(func(t *testing.T, table string, port uint16) {
		for _, ip := range listeners(table, port) {
			if !ip.IsValid() {
				t.Error("an address that is none")
			}
		}
	})
}

// answering is a connection to a server that says something and ends.
type answering struct {
	net.Conn
	io.Reader
}

func (answering) Write(p []byte) (int, error)      { return len(p), nil }
func (a answering) Read(p []byte) (int, error)     { return a.Reader.Read(p) }
func (answering) SetDeadline(time.Time) error      { return nil }
func (answering) SetReadDeadline(time.Time) error  { return nil }
func (answering) SetWriteDeadline(time.Time) error { return nil }

// Whatever a server answers: something is found, it can be said, and it does
// nothing to a terminal.
func FuzzAnswers(f *testing.F) {
	for _, s := range []string{
		accepted, badAccept, status("404 Not Found"), withBody("400 Bad Request", goTLSPort), "SSH-2.0-x\r\n", "\x15\x03\x01\x00\x02\x02\x46",
		accepted + closing(4401, "\x1b[2J"), status("302 Found", "Location: //u:p@h/?token=x"), "HTTP", "",
		"HTTP/1.1 503 X\r\nX-Request-Id: 7\r\n\r\n{\"error\":\"\x1b\",\"request_id\":\"7\"}", accepted + "\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		u := upgrade{path: "/", prefix: "/", byClose: true}
		for _, r := range []role{toGateway, toNode} {
			u.role = r
			conn := answering{Reader: bytes.NewReader(data)}
			a, fault := ask(conn, u.target, "")
			switch {
			case fault != nil:
			case a.StatusCode == 101:
				found := u.opened(a, goodbye(t.Context(), conn, a))
				fault = &found
			default:
				found := u.refusal(a)
				fault = &found
			}
			sure(t, *fault)
			report := Report{Sections: []Section{{Title: fine(titleNodes), Lines: []Line{{Finding: *fault}}}}}
			var b bytes.Buffer
			if err := report.WriteText(&b, true, true); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(&b)
			for lines.Scan() {
				if strings.ContainsFunc(lines.Text(), unicode.IsControl) {
					t.Errorf("control characters in %q", lines.Text())
				}
			}
		}
	})
}
