package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// A writeCounter counts the writes to nodes.
type writeCounter struct {
	net.Dialer
	writes atomic.Int64
}

type countedConn struct {
	net.Conn
	of *writeCounter
}

func (d *writeCounter) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := d.Dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &countedConn{conn, d}, nil
}

func (c *countedConn) Write(p []byte) (int, error) {
	c.of.writes.Add(1)
	return c.Conn.Write(p)
}

func echoBody(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Write(body)
}

// A small upload leaves in one write with its head: one packet, one wake-up.
func TestSmallUploadIsOneWrite(t *testing.T) {
	node := httpNode(t, echoBody)
	counter := &writeCounter{}
	e := startEdgeOver(t, NewDescriptors(0), counter, []Route{{Paths: []string{"/app"}, Service: "app"}},
		nodesOf(map[string]map[string]string{"app": {"app1": node}}))
	for i := range 5 {
		resp, body := e.answerTo(post("Content-Length: 5", "hello"))
		if resp.StatusCode != 200 || body != "hello" {
			t.Errorf("got %d %q", resp.StatusCode, body)
		}
		if n := counter.writes.Load(); n != int64(i+1) {
			t.Errorf("%d writes for %d requests", n, i+1)
		}
	}
}

// Uploads of every size on both sides of what is taken over are tried at the next
// node when one refuses, and keep the connection.
func TestSmallUploadsGoToTheNextNode(t *testing.T) {
	node := httpNode(t, echoBody)
	e := startEdge(t, []Route{{Paths: []string{"/app"}, Service: "app"}}, map[string]map[string]string{"app": {}})
	conn := e.dial()
	br := bufio.NewReader(conn)
	for _, size := range []int{1, 5, smallBody - 1, smallBody, smallBody + 1} {
		e.Publish(inOrder("app", refusedAddr(t), node))
		text := strings.Repeat("x", size)
		io.WriteString(conn, post(fmt.Sprintf("Content-Length: %d", size), text))
		if resp, body := readAnswer(t, br); resp.StatusCode != 200 || body != text || resp.Close {
			t.Errorf("%d bytes: got %d, %d bytes, close %v", size, resp.StatusCode, len(body), resp.Close)
		}
	}
}
