package gateway

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
)

func TestProblemsAreJSONOrAPage(t *testing.T) {
	e, _ := appEdge(t)
	const browser = "text/html,application/xhtml+xml,*/*;q=0.8"
	cases := []struct {
		headers string
		page    bool
		text    string
	}{
		{"X-A: b", false, "Nothing is served under this address."},
		{"Accept: */*", false, "Nothing is served"},
		{"Accept: application/json\r\nAccept-Language: zh-CN,zh;q=0.9,en;q=0.8", false, "该地址下没有任何服务"},
		{"Accept: " + browser, true, "Nothing is served"},
		{"accept: " + browser + "\r\naccept-language: zh-CN", true, "该地址下没有任何服务"},
		{"Accept: TEXT/HTML\r\nAccept-Language: ZH", true, "该地址下没有任何服务"},
		{"Accept: text/html\r\nAccept-Language: en-US,zh;q=0.5", true, "Nothing is served"},
		{"Accept: text/html\r\nAccept-Language: de, fr", true, "Nothing is served"},
	}
	for _, c := range cases {
		resp, body := e.answerTo("GET /nowhere HTTP/1.1\r\nHost: h\r\n" + c.headers + "\r\n\r\n")
		h := resp.Header
		if got := h.Get("Content-Type"); (got == "text/html; charset=utf-8") != c.page || !c.page && got != "application/json; charset=utf-8" {
			t.Errorf("%s: Content-Type %q", c.headers, got)
		}
		if !strings.Contains(body, c.text) {
			t.Errorf("%s: got %s", c.headers, body)
		}
		if id := h.Get("X-Request-Id"); id == "" || !strings.Contains(body, id) {
			t.Errorf("%s: the request id %q is not in %s", c.headers, id, body)
		} else {
			e.logs.wait(t, `"request_id":"`+id+`"`, `"status":404`)
		}
		if h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %v", c.headers, h)
		}
		if c.page && !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s: %v", c.headers, h)
		}
	}
}

func TestProblemFields(t *testing.T) {
	e, _ := appEdge(t)
	resp, body := e.answerTo("GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n")
	var p struct {
		Error, Message string
		Status         int
		RequestID      string `json:"request_id"`
	}
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatal(err)
	}
	if p.Error != "no_route" || p.Message == "" || p.Status != 404 || p.RequestID != resp.Header.Get("X-Request-Id") {
		t.Errorf("got %+v", p)
	}
	head := e.raw("HEAD /nowhere HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(head, "HTTP/1.1 404 ") || !strings.HasSuffix(head, "\r\n\r\n") {
		t.Errorf("HEAD: got %q", head)
	}
	if got := (recorded{head: head}).values("Content-Length"); len(got) != 1 || got[0] != strconv.Itoa(len(body)) {
		t.Errorf("HEAD: Content-Length %q, of GET %d", got, len(body))
	}
}

// A request id is taken over from a trusted proxy only, and only a tame one.
func TestRequestIDs(t *testing.T) {
	const path = "GET /nowhere HTTP/1.1\r\nHost: h\r\n"
	trusted, _ := appEdge(t, trusting("127.0.0.0/8"))
	other, _ := appEdge(t)
	cases := []struct {
		e     *edge
		id    string
		taken bool
	}{
		{trusted, "X-Request-Id: abc-1.2_~3", true},
		{trusted, "X-Request-ID: abc", true},
		{trusted, "x-request-id: abc", true},
		{trusted, "X-Request-Id: a b", false},
		{trusted, "X-Request-Id: <b>", false},
		{trusted, `X-Request-Id: a"b`, false},
		{trusted, "X-Request-Id: " + strings.Repeat("a", 65), false},
		{trusted, "X-Request-Id: abc\r\nX-Request-Id: def", false},
		{trusted, "X-Request-Id:", false},
		{other, "X-Request-Id: abc", false},
	}
	for _, c := range cases {
		resp, _ := c.e.answerTo(path + c.id + "\r\n\r\n")
		_, sent, _ := strings.Cut(c.id, ": ")
		if got := resp.Header.Get("X-Request-Id"); (got == sent) != c.taken || got == "" {
			t.Errorf("%s: the id is %q", c.id, got)
		}
	}
}

// What a client writes into a path is shown, not run.
func TestProblemsEscapeWhatTheyQuote(t *testing.T) {
	e := startEdge(t, []Route{{Paths: []string{"/ws/{node}"}, Service: "im"}}, map[string]map[string]string{"im": {}})
	const request = "GET /ws/%3Cscript%3E%22'&%5C HTTP/1.1\r\nHost: h\r\n"
	for _, language := range []string{"en", "zh"} {
		_, page := e.answerTo(request + "Accept: text/html\r\nAccept-Language: " + language + "\r\n\r\n")
		if strings.Contains(page, "<script") || !strings.Contains(page, "&lt;script&gt;") {
			t.Errorf("got %s", page)
		}
		_, body := e.answerTo(request + "Accept-Language: " + language + "\r\n\r\n")
		if !json.Valid([]byte(body)) || strings.Contains(body, "<script") || problemCode(body) != "node_unknown" {
			t.Errorf("got %s", body)
		}
	}
}

// Every code is what a program that reads it may rely on.
func TestCloseCodesOfProblems(t *testing.T) {
	for p, want := range map[*problem]uint16{nodeDown("a"): 1013, noSnapshot("a"): 1013, upstreamTimeout(): 1013, nodeUnknown("a"): 1008, originRefused(): 1008} {
		if got := p.closeCode(); got != want {
			t.Errorf("%s: %d", p.code, got)
		}
	}
}
