package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// The client's and the node's side of long polling.

// What sessions send and get: an empty poll, and the answer to one that was held
// in vain.
const (
	pollPath   = "/http-bind"
	pollBody   = `<body rid='1573741820' sid='SomeSID' xmlns='http://jabber.org/protocol/httpbind'/>`
	pollAnswer = `<body xmlns='http://jabber.org/protocol/httpbind'/>`
	pollType   = "text/xml; charset=utf-8"
)

// servePolls is the node of polls: net/http, which holds each for as long as its
// query says.
func servePolls(address string, failed chan<- error) error {
	l, err := net.Listen("tcp4", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(answerPoll)}
	go func() { failed <- server.Serve(l) }()
	return nil
}

func answerPoll(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	hold, errHold := time.ParseDuration(r.URL.Query().Get("hold"))
	if r.Method != http.MethodPost || r.URL.Path != pollPath || string(body) != pollBody || errors.Join(err, errHold) != nil {
		http.Error(w, "that is no poll", http.StatusBadRequest)
		return
	}
	if hold > 0 {
		held := time.NewTimer(hold)
		defer held.Stop()
		select {
		case <-held.C:
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("Content-Type", pollType)
	io.WriteString(w, pollAnswer)
}

// A session is a client that polls over one connection.
type session struct {
	*client
	in *bufio.Reader
}

// send sends a poll.
func (s *session) send(hold time.Duration) error {
	s.SetDeadline(time.Now().Add(hold + echoWithin))
	_, err := fmt.Fprintf(s, "POST %s?hold=%s HTTP/1.1\r\nHost: localhost\r\nOrigin: https://localhost\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36\r\n"+
		"Accept: */*\r\nAccept-Encoding: gzip, deflate, br\r\nAccept-Language: zh-CN,zh;q=0.9\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s", pollPath, hold, pollType, len(pollBody), pollBody)
	return err
}

// receive reads the answer to a poll.
func (s *session) receive() error {
	status, err := s.in.ReadString('\n')
	if err != nil {
		return fmt.Errorf("waiting for the answer to a poll: %w", err)
	}
	length := -1
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			return err
		}
		if line == "\r\n" {
			break
		}
		if name, value, _ := strings.Cut(line, ":"); strings.EqualFold(name, "Content-Length") {
			length, _ = strconv.Atoi(strings.TrimSpace(value))
		}
	}
	body := make([]byte, max(length, 0))
	if _, err := io.ReadFull(s.in, body); err != nil {
		return err
	}
	if !strings.HasPrefix(status, "HTTP/1.1 200 ") || string(body) != pollAnswer {
		return fmt.Errorf("a poll was answered with %q and %d bytes", status, length)
	}
	return nil
}

func (s *session) poll(hold time.Duration) error {
	if err := s.send(hold); err != nil {
		return err
	}
	return s.receive()
}

// openSessions opens N sessions, Parallel at a time, with one poll each.
func (l *loader) openSessions(ctx context.Context, o Order) Answer {
	d := newDialer(o.Target, &l.next)
	var t tally
	var left atomic.Int64
	left.Store(int64(o.N))
	for range min(o.Parallel, o.N) {
		t.Go(func() {
			for left.Add(-1) >= 0 && t.fails.Load() == 0 {
				c, err := d.dial(ctx)
				if err != nil {
					t.fail(err)
					return
				}
				s := &session{c, bufio.NewReaderSize(c, 1024)}
				l.mu.Lock()
				l.sessions[o.Pool] = append(l.sessions[o.Pool], s)
				l.mu.Unlock()
				if err := s.poll(0); err != nil {
					t.fail(err)
					return
				}
				t.count.Add(1)
			}
		})
	}
	t.Wait()
	return t.answer()
}

func (l *loader) pollers(name string) []*session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sessions[name]
}

// hold has every session of the pool send a poll that is held.
func (l *loader) hold(o Order) Answer {
	var t tally
	for _, s := range l.pollers(o.Pool) {
		if err := s.send(o.Hold); err != nil {
			t.fail(err)
			break
		}
		t.count.Add(1)
	}
	return t.answer()
}

// polls has every session of the pool poll over and over. They begin spread over
// the time of one poll, so that answers come evenly.
func (l *loader) polls(o Order) Answer {
	pool := l.pollers(o.Pool)
	var t tally
	start := time.Now()
	for i, s := range pool {
		t.Go(func() {
			time.Sleep(o.Hold * time.Duration(i) / time.Duration(len(pool)))
			for done := false; !done; done = time.Since(start) > o.For {
				if err := s.poll(o.Hold); err != nil {
					t.fail(err)
					return
				}
				t.count.Add(1)
				l.polled.Add(1)
			}
		})
	}
	t.Wait()
	a := t.answer()
	a.Took = time.Since(start)
	return a
}

// drop closes the sessions of the pool, whatever they wait for.
func (l *loader) drop(o Order) Answer {
	l.mu.Lock()
	pool := l.sessions[o.Pool]
	delete(l.sessions, o.Pool)
	l.mu.Unlock()
	var t tally
	for _, s := range pool {
		s.SetDeadline(time.Now().Add(echoWithin))
		if err := s.Close(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.fail(err)
		}
		t.count.Add(1)
	}
	return t.answer()
}
