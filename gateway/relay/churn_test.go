package relay

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"
)

// TestChurn: tunnels come and go, killed at any moment, while others of the same
// engine echo. Descriptors are used again all the time, and no byte goes astray.
func TestChurn(t *testing.T) {
	before := descriptors(t)
	e := newEngine(t)
	over := make(chan struct{})
	var survivors, churners sync.WaitGroup
	for i := range 8 {
		survivors.Go(func() { survivor(t, e, i%2 == 0, byte(i), over) })
	}
	for range 6 {
		churners.Go(func() {
			for range 40 {
				shortLived(t, e)
			}
		})
	}
	churners.Wait()
	close(over)
	survivors.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := e.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	e.Close()
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// ends are the four ends of a tunnel's legs, the client's over TLS or not.
func ends(secure bool) (client, near, upstream, far net.Conn, err error) {
	if client, near, err = connect(); err != nil {
		return
	}
	if far, upstream, err = connect(); err != nil || !secure {
		return
	}
	client, near, err = overTLS(client, &swapper{near}, false)
	return
}

// survivor echoes frames that only this tunnel knows until the test is over.
func survivor(t *testing.T, e *Engine, secure bool, id byte, over <-chan struct{}) {
	client, near, upstream, far, err := ends(secure)
	if err != nil {
		t.Error(err)
		return
	}
	defer client.Close()
	tunnel := e.Start(Leg{Conn: near}, Leg{Conn: far}, Options{Kind: WebSocket, Idle: time.Hour})
	defer tunnel.Kill()
	node := make(chan struct{})
	go func() { defer close(node); defer upstream.Close(); echo(upstream) }()
	defer func() { tunnel.Kill(); <-node }()
	random := rand.New(rand.NewPCG(uint64(id), 0))
	for round := 0; ; round++ {
		payload := bytes.Repeat([]byte{id, byte(round)}, random.IntN(10000))
		f := frame{fin | binaryOp, payload}
		client.SetDeadline(time.Now().Add(patience))
		upstream.SetDeadline(time.Now().Add(patience))
		sent := make(chan error, 1)
		go func() { _, err := client.Write(f.wireBytes(true)); sent <- err }()
		got, masked, err := readFrame(client)
		if err != nil || masked || got.first != f.first || !bytes.Equal(got.payload, payload) {
			t.Errorf("tunnel %d, round %d: got %x of %d bytes, %v; want %d", id, round, got.first, len(got.payload), err, len(payload))
			client.Close()
			<-sent
			return
		}
		if err := <-sent; err != nil {
			t.Error(err)
			return
		}
		select {
		case <-over:
			return
		default:
		}
	}
}

// shortLived is a tunnel that somebody ends at some moment.
func shortLived(t *testing.T, e *Engine) {
	client, near, upstream, far, err := ends(rand.IntN(4) == 0)
	if err != nil {
		t.Error(err)
		return
	}
	ended := make(chan Report, 1)
	var early []byte
	if rand.IntN(4) == 0 {
		early = frame{fin | text, noise(rand.IntN(3000))}.wireBytes(true)
	}
	tunnel := e.Start(Leg{near, early}, Leg{Conn: far}, Options{Kind: WebSocket, Ended: func(r Report) { ended <- r }})
	var peers sync.WaitGroup
	for _, c := range []net.Conn{client, upstream} {
		c.SetDeadline(time.Now().Add(patience))
		peers.Go(func() {
			b := frame{fin | binaryOp, noise(rand.IntN(20000))}.wireBytes(c == client)
			c.Write(b[:rand.IntN(len(b)+1)])
			for _, err := c.Read(b); err == nil; {
				_, err = c.Read(b)
			}
		})
	}
	for range rand.IntN(200) { // some time, or none
		runtime.Gosched()
	}
	switch rand.IntN(5) {
	case 0:
		tunnel.Close(1012, "churn")
		tunnel.Kill()
	case 1:
		reset(client)
		tunnel.Kill()
	case 2:
		reset(upstream)
		tunnel.Kill()
	default:
		tunnel.Kill()
	}
	select {
	case r := <-ended:
		if r.EndedBy == EndPanic {
			t.Errorf("report %+v", r)
		}
	case <-time.After(patience):
		t.Error("a killed tunnel has not ended")
	}
	client.Close()
	upstream.Close()
	peers.Wait()
}
