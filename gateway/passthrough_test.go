package gateway

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// What a client asks about its copy or a part goes to the node, whose answer
// comes back as it is: the gateway caches, compresses and judges nothing. So it
// is also with every policy in force that changes headers.
func TestConditionalRequestsPassThrough(t *testing.T) {
	t.Parallel()
	modified := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	content := bytes.Repeat([]byte("0123456789"), 1000)
	var asked atomic.Int32
	node := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Etag", `"v1"`)
		w.Header().Set("Cache-Control", "public, max-age=3600")
		w.Header().Set("Content-Type", "text/plain")
		http.ServeContent(w, r, "", modified, bytes.NewReader(content))
	})
	policies := Policies{
		CORS: &CORS{Origins: []string{"*"}}, RewriteRedirects: true,
		ResponseHeaders: HeaderEdits{Set: []Header{{"X-A", "1"}}}, RequestHeaders: HeaderEdits{Set: []Header{{"X-A", "1"}}},
	}
	e := startEdge(t, []Route{
		{Paths: []string{"/app"}, Service: "app"},
		{Paths: []string{"/policed"}, Service: "app", Rewrite: "/", Policies: policies},
	}, map[string]map[string]string{"app": {"app1": node}})
	cases := []struct {
		headers []string
		status  int
		body    string
	}{
		{nil, 200, string(content)},
		{[]string{"If-None-Match", `"v1"`}, 304, ""},
		{[]string{"If-None-Match", `"v0"`}, 200, string(content)},
		{[]string{"If-Modified-Since", modified.Format(http.TimeFormat)}, 304, ""},
		{[]string{"If-Match", `"v0"`}, 412, ""},
		{[]string{"Range", "bytes=5-7"}, 206, "567"},
		{[]string{"Range", "bytes=-3", "If-Range", `"v1"`}, 206, "789"},
		{[]string{"Range", "bytes=5-7", "If-Range", `"v0"`}, 200, string(content)},
		{[]string{"Range", "bytes=99999-"}, 416, "invalid range: failed to overlap\n"},
		{[]string{"Accept-Encoding", "gzip, br"}, 200, string(content)},
		{[]string{"Cache-Control", "only-if-cached"}, 200, string(content)},
	}
	client := e.client()
	for _, path := range []string{"/app", "/policed"} {
		for _, c := range cases {
			for _, method := range []string{"GET", "HEAD"} {
				req, _ := http.NewRequest(method, "http://"+e.plain+path, nil)
				for i := 0; i < len(c.headers); i += 2 {
					req.Header.Set(c.headers[i], c.headers[i+1])
				}
				before := asked.Load()
				resp, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				want := c.body
				if method == "HEAD" {
					want = ""
				}
				if err != nil || resp.StatusCode != c.status || string(body) != want {
					t.Errorf("%s %s %q: %s, %d bytes, %v", method, path, c.headers, resp.Status, len(body), err)
				}
				if h := resp.Header; c.status != 416 && h.Get("Etag") != `"v1"` || h.Get("Content-Encoding") != "" || c.status < 300 && h.Get("Cache-Control") != "public, max-age=3600" {
					t.Errorf("%s %s %q: %v", method, path, c.headers, h)
				}
				if asked.Load() != before+1 {
					t.Errorf("%s %s %q: the node was asked %d times", method, path, c.headers, asked.Load()-before)
				}
			}
		}
	}
}

// What a node has compressed arrives byte for byte.
func TestEncodedAnswersPassThrough(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	io.WriteString(w, "compressed by the node")
	w.Close()
	node := httpNode(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", r.Header.Get("Accept-Encoding"))
		w.Write(b.Bytes())
	})
	e := startEdge(t, []Route{{Paths: []string{"/app"}, Service: "app"}}, map[string]map[string]string{"app": {"app1": node}})
	for _, encoding := range []string{"gzip", "br", "x-own"} {
		resp, body := e.answerTo("GET /app HTTP/1.1\r\nHost: h\r\nAccept-Encoding: " + encoding + "\r\nConnection: close\r\n\r\n")
		if resp.Header.Get("Content-Encoding") != encoding || body != b.String() || resp.ContentLength != int64(b.Len()) {
			t.Errorf("%s: %v, %q", encoding, resp.Header, body)
		}
	}
}
