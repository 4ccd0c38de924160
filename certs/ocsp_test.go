package certs

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// A responder answers OCSP questions on loopback as it is told.
type responder struct {
	*httptest.Server
	issuer *issuer

	mu     sync.Mutex
	answer func(template ocsp.Response) ([]byte, error)
	asked  int
}

func newResponder(t testing.TB) *responder {
	t.Helper()
	r := &responder{issuer: newCA(t, "issuer", nil)}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	r.set(r.good)
	return r
}

func (r *responder) set(answer func(ocsp.Response) ([]byte, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *responder) times() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

func (r *responder) good(template ocsp.Response) ([]byte, error) {
	return ocsp.CreateResponse(r.issuer.cert, r.issuer.cert, template, r.issuer.key)
}

func (r *responder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	question, parseErr := ocsp.ParseRequest(body)
	if err != nil || parseErr != nil || req.Header.Get("Content-Type") != "application/ocsp-request" {
		w.WriteHeader(400)
		return
	}
	now := time.Now()
	r.mu.Lock()
	r.asked++
	answer := r.answer
	r.mu.Unlock()
	raw, err := answer(ocsp.Response{Status: ocsp.Good, SerialNumber: question.SerialNumber, ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)})
	if err != nil {
		w.WriteHeader(500)
		return
	}
	w.Write(raw)
}

// source is a certificate that names the responder, and another one before it if
// told so.
func (r *responder) source(t testing.TB, more ...string) Source {
	t.Helper()
	key := ecKey(t)
	template := leaf("im.example.gov")
	template.SerialNumber = big.NewInt(7)
	template.OCSPServer = append(more, r.URL)
	return Source{At: "f:1:1", Cert: write(t, t.TempDir(), "im.pem", pemOf(sign(t, template, key, r.issuer), r.issuer.cert)+pemKey(t, key))}
}

// stapled is what a client gets.
func stapled(t testing.TB, address string) []byte {
	t.Helper()
	return mustDial(t, address, &tls.Config{ServerName: "im.example.gov"}).state.OCSPResponse
}

// awaitOCSP waits until the certificate's state is as wanted; every question
// and answer goes over a socket, so that no channel could tell.
func awaitOCSP(t testing.TB, s *Store, want func(OCSP) bool) OCSP {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if o := s.Infos()[0].OCSP; want(o) {
			return o
		} else if time.Now().After(end) {
			t.Fatalf("the state is %+v", o)
		}
	}
}

func TestStaple(t *testing.T) {
	r := newResponder(t)
	s, d := running(t, Config{Certificates: []Source{r.source(t)}}, quick())
	awaitOCSP(t, s, func(o OCSP) bool { return o.Stapled && o.Status == "good" && o.Fault == "" && o.Responder == r.URL })
	address := serve(t, s.TLSConfig(), "127.0.0.1:0")
	for range 2 {
		answer, err := ocsp.ParseResponse(stapled(t, address), r.issuer.cert)
		if err != nil || answer.Status != ocsp.Good || answer.SerialNumber.Int64() != 7 {
			t.Fatalf("stapled is %+v, %v", answer, err)
		}
	}
	if n := r.times(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	// A reload keeps the answer.
	if err := reload(s, s.current.Load().cfg); err != nil {
		t.Fatal(err)
	}
	if len(stapled(t, address)) == 0 {
		t.Error("a reload lost the answer")
	}
	if got := d.all(); len(got) != 0 {
		t.Errorf("the log is %q", got)
	}
}

// A responder that fails once is asked again, said once, and said to be back.
func TestResponderComesBack(t *testing.T) {
	r := newResponder(t)
	r.set(func(ocsp.Response) ([]byte, error) { return nil, io.EOF })
	s, d := running(t, Config{Certificates: []Source{r.source(t)}}, quick())
	awaitOCSP(t, s, func(o OCSP) bool { return o.Failures >= 3 })
	if n := d.count("an OCSP responder gives no answer that can be stapled"); n != 1 {
		t.Errorf("said %d times:\n%s", n, strings.Join(d.all(), "\n"))
	}
	address := serve(t, s.TLSConfig(), "127.0.0.1:0")
	if got := stapled(t, address); got != nil {
		t.Errorf("stapled are %d bytes", len(got))
	}
	r.set(r.good)
	d.await(t, 0, "info the OCSP responder answers again")
	awaitOCSP(t, s, func(o OCSP) bool { return o.Stapled && o.Fault == "" })
}

// Answers that must not be stapled are not, and the reason is told.
func TestAnswersThatAreNotStapled(t *testing.T) {
	r := newResponder(t)
	stranger := newCA(t, "issuer", nil)
	deputy := func(usage ...x509.ExtKeyUsage) *issuer {
		key := ecKey(t)
		return &issuer{sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "deputy"}, NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: usage}, key, r.issuer), key}
	}
	by := func(signer *issuer) func(ocsp.Response) ([]byte, error) {
		return func(template ocsp.Response) ([]byte, error) {
			if signer.cert.Subject.CommonName == "deputy" {
				template.Certificate = signer.cert
			}
			return ocsp.CreateResponse(r.issuer.cert, signer.cert, template, signer.key)
		}
	}
	with := func(change func(*ocsp.Response)) func(ocsp.Response) ([]byte, error) {
		return func(template ocsp.Response) ([]byte, error) {
			change(&template)
			return r.good(template)
		}
	}
	for _, c := range []struct {
		name, status, fault string
		stapled             bool
		answer              func(ocsp.Response) ([]byte, error)
	}{
		{"good", "good", "", true, r.good},
		{"by a deputy", "good", "", true, by(deputy(x509.ExtKeyUsageOCSPSigning))},
		{"by one who may not", "", "is not for signing OCSP answers", false, by(deputy(x509.ExtKeyUsageServerAuth))},
		{"by a stranger", "", "its answer is not usable", false, by(stranger)},
		{"revoked", "revoked", "", false, with(func(a *ocsp.Response) { a.Status, a.RevokedAt = ocsp.Revoked, time.Now().Add(-time.Hour) })},
		{"unknown", "unknown", "", false, with(func(a *ocsp.Response) { a.Status = ocsp.Unknown })},
		{"ended", "", "its answer ended on", false, with(func(a *ocsp.Response) { a.NextUpdate = time.Now().Add(-time.Second) })},
		{"to come", "", "its answer is of a time to come", false, with(func(a *ocsp.Response) { a.ThisUpdate = time.Now().Add(time.Hour) })},
		{"of another", "", "its answer is not usable", false, with(func(a *ocsp.Response) { a.SerialNumber = big.NewInt(8) })},
		{"no end", "good", "", true, with(func(a *ocsp.Response) { a.NextUpdate = time.Time{} })},
		{"garbage", "", "its answer is not usable", false, func(ocsp.Response) ([]byte, error) { return []byte("hello"), nil }},
		{"endless", "", "is larger than", false, func(ocsp.Response) ([]byte, error) { return make([]byte, 1<<20), nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.set(c.answer)
			p := quick()
			p.askAgain = time.Hour
			s, d := running(t, Config{Certificates: []Source{r.source(t)}}, p)
			o := awaitOCSP(t, s, func(o OCSP) bool { return o.Status != "" || o.Fault != "" })
			if o.Status != c.status || o.Stapled != c.stapled || (o.Fault == "") != (c.fault == "") || !strings.Contains(o.Fault, c.fault) {
				t.Errorf("the state is %+v", o)
			}
			if got := stapled(t, serve(t, s.TLSConfig(), "127.0.0.1:0")); (got != nil) != c.stapled {
				t.Errorf("stapled are %d bytes", len(got))
			}
			if c.name == "revoked" {
				d.await(t, 0, "error a certificate is revoked")
			}
		})
	}
}

// A responder that says nothing is given up; the next one that the certificate
// names is asked. Serving does not wait for any.
func TestSilentResponder(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	r := newResponder(t)
	p := quick()
	p.ask = 100 * time.Millisecond
	source := r.source(t, "http://"+silent.Addr().String()+"/ocsp")
	s, _ := running(t, Config{Certificates: []Source{source}}, p)
	mustDial(t, serve(t, s.TLSConfig(), "127.0.0.1:0"), &tls.Config{ServerName: "im.example.gov"})
	awaitOCSP(t, s, func(o OCSP) bool { return o.Stapled })

	// Alone, it is a failure; and Run ends while it is being asked.
	p.ask = time.Hour
	running(t, Config{Certificates: []Source{source}}, p)
}

// An answer goes on while its responder fails, and ends when it ends.
func TestAnswerEnds(t *testing.T) {
	r := newResponder(t)
	r.set(func(template ocsp.Response) ([]byte, error) {
		template.NextUpdate = time.Now().Add(2 * time.Second)
		r.set(func(ocsp.Response) ([]byte, error) { return nil, io.EOF })
		return r.good(template)
	})
	s, _ := running(t, Config{Certificates: []Source{r.source(t)}}, quick())
	awaitOCSP(t, s, func(o OCSP) bool { return o.Stapled && o.Fault != "" })
	awaitOCSP(t, s, func(o OCSP) bool { return !o.Stapled && o.Status == "" })
	if got := stapled(t, serve(t, s.TLSConfig(), "127.0.0.1:0")); got != nil {
		t.Error("an answer is stapled that has ended")
	}
}

// An answer that would end before the next question is not stapled, and its
// responder not asked without a pause.
func TestShortLivedAnswers(t *testing.T) {
	for life, want := range map[time.Duration]bool{40 * time.Second: false, 80 * time.Second: true} {
		state := answered(&ocsp.Response{Status: ocsp.Good, Raw: []byte{1}, NextUpdate: time.Now().Add(life)}, usualPace())
		if (state.staple != nil) != want || time.Until(state.due) < 29*time.Second {
			t.Errorf("of an answer that lives %v the state is %+v", life, state)
		}
	}
}

func TestNobodyIsAsked(t *testing.T) {
	r := newResponder(t)
	s, _ := running(t, Config{Certificates: []Source{r.source(t)}, NoStapling: true}, quick())
	s.scan(time.Now(), (&diary{}).log)
	next := s.askAll(t.Context(), http.DefaultClient, (&diary{}).log)
	if n := r.times(); n != 0 || time.Until(next) < time.Minute {
		t.Errorf("asked %d times, next in %v", n, time.Until(next))
	}
}

// Whatever a responder answers, it is taken or refused without a panic.
func FuzzOCSPAnswer(f *testing.F) {
	ca := newCA(f, "issuer", nil)
	key := ecKey(f)
	template := leaf("im.example.gov")
	template.SerialNumber = big.NewInt(7)
	cert := sign(f, template, key, ca)
	for _, status := range []int{ocsp.Good, ocsp.Revoked} {
		raw, err := ocsp.CreateResponse(ca.cert, ca.cert, ocsp.Response{Status: status, SerialNumber: cert.SerialNumber, ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour), IssuerHash: crypto.SHA1}, ca.key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if answer, err := checkAnswer(raw, cert, ca.cert, time.Now()); err == nil {
			answered(answer, usualPace())
		}
	})
}
