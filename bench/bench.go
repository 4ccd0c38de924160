package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// What one process may hold here: 20,000 descriptors, two a tunnel.
const (
	maxDescriptor = 20_000
	maxTunnels    = 9_800
)

// options are what the flags say.
type options struct {
	singlegates []string
	peers       []string
	scenarios   []string
	rounds      int           // of the rows with a ratio
	repeats     int           // of the rows that start gateways anew: memory, storm, churn
	slice       time.Duration // of one gateway in one round
	settle      time.Duration // before memory is read
	tunnels     []int         // memory: how many
	storm       int           // clients that connect at once
	churn       int           // tunnels of one round of churn
	polls       int           // sessions that poll
	idle        []int         // idle tunnels beside the active ones
	active      int           // active tunnels in a closed loop
	rates       []pace
	sizes       []int
	workers     int
}

// A pace is messages a second over so many tunnels.
type pace struct{ rate, tunnels int }

// A bench is one run.
type bench struct {
	ctx      context.Context
	options  options
	rigs     []*rig
	results  *results
	progress *progress
	before   share // of the machine
}

// A scenario is one thing to measure.
type scenario struct {
	name  string
	run   func(*bench) error
	takes func(o options, gateways int) time.Duration // about
}

var scenarios = []scenario{
	{"memory", memory, memoryTakes},
	{"messages", messages, messagesTakes},
	{"paced", paced, pacedTakes},
	{"connects", connects, connectsTakes},
	{"slope", slope, slopeTakes},
	{"storm", storm, stormTakes},
	{"attacks", attacks, attacksTakes},
	{"churn", churn, churnTakes},
	{"syscalls", syscalls, syscallsTakes},
	{"bosh", bosh, boshTakes},
}

// openBench finds the gateways and starts a rig for each.
func openBench(ctx context.Context, o options, dir string, p *progress) (b *bench, err error) {
	ours, err := findSinglegates(ctx, o.singlegates, dir)
	if err != nil {
		return nil, err
	}
	peers, skipped := findPeers(ctx, o.peers)
	names := make(map[string]bool)
	for _, p := range slices.Concat(ours, peers) {
		if names[p.name] {
			return nil, fmt.Errorf("two gateways are called %s; name the binaries: -singlegate old=path -singlegate new=path", p.name)
		}
		names[p.name] = true
	}
	for _, s := range skipped {
		p.say("skipped %s", s)
	}
	cert, err := newCertificate(dir)
	if err != nil {
		return nil, err
	}
	b = &bench{ctx: ctx, options: o, progress: p, results: newResults(o, slices.Concat(ours, peers), skipped)}
	// A gateway that is between two starts keeps its ports from nobody: other runs
	// begin elsewhere.
	free := &ports{next: uint16(21_000 + os.Getpid()%100*100)}
	for _, p := range slices.Concat(ours, peers) {
		r, err := newRig(p, dir, cert, free, o)
		if err != nil {
			b.close()
			return nil, err
		}
		b.rigs = append(b.rigs, r)
		b.results.Curves[p.name] = r.curves
	}
	return b, nil
}

func (b *bench) close() {
	for _, r := range b.rigs {
		r.close()
	}
}

// run runs the scenarios that the options name, and calls save after each, so
// that a run which is cut short leaves what it had.
func (b *bench) run(save func() error) error {
	var err error
	if b.before, err = machineUse(); err != nil {
		return err
	}
	for _, s := range scenarios {
		if slices.Contains(b.options.scenarios, s.name) {
			b.progress.total += s.takes(b.options, len(b.rigs))
		}
	}
	for _, s := range scenarios {
		if !slices.Contains(b.options.scenarios, s.name) {
			continue
		}
		if err := s.run(b); err != nil {
			return fmt.Errorf("scenario %s: %w", s.name, err)
		}
		b.progress.passed(s.takes(b.options, len(b.rigs)))
		if err := errors.Join(b.took(), save()); err != nil {
			return err
		}
	}
	return nil
}

// took notes how long the run has taken so far, and how quiet the machine was.
func (b *bench) took() error {
	now, err := machineUse()
	res := b.results
	res.Took = time.Since(b.progress.start)
	machine := float64(res.Took) * float64(res.Machine.Cores)
	res.Machine.Others = max(0, float64(now.all-b.before.all-(now.ours-b.before.ours))/machine)
	res.Machine.Stolen = float64(now.steal-b.before.steal) / machine
	return err
}

// able are the rigs whose gateway carries a kind of tunnel.
func (b *bench) able(kind string) []*rig {
	var able []*rig
	for _, r := range b.rigs {
		if r.peer.kinds[kind] {
			able = append(able, r)
		}
	}
	return able
}

// restart starts the gateways of some rigs anew.
func (b *bench) restart(rigs []*rig) error {
	for _, r := range rigs {
		if err := r.restart(b.ctx); err != nil {
			return err
		}
	}
	return nil
}

// each does something on every rig.
func (b *bench) each(rigs []*rig, do func(*rig) error) error {
	for _, r := range rigs {
		if err := errors.Join(b.ctx.Err(), do(r)); err != nil {
			return err
		}
	}
	return nil
}

// rounds has the gateways take turns, the first one another each round and the
// direction the other way every second time round, so that no one of them always follows the same.
func (b *bench) rounds(what string, n int, rigs []*rig, do func(*rig) error) error {
	for round := range n {
		order := slices.Clone(rigs)
		shift := round % len(order)
		order = slices.Concat(order[shift:], order[:shift])
		if round/len(order)%2 == 1 {
			slices.Reverse(order)
		}
		b.progress.say("%s: round %d of %d", what, round+1, n)
		if err := b.each(order, do); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// pause waits, unless the run is interrupted.
func (b *bench) pause(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-b.ctx.Done():
		return b.ctx.Err()
	}
}

// A certificate is the one that every gateway shows.
type certificate struct {
	certFile, keyFile string
	leaf              []byte
}

// newCertificate makes a P-256 certificate, valid for a day.
func newCertificate(dir string) (c certificate, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return c, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if c.leaf, err = x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key); err != nil {
		return c, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return c, err
	}
	c.certFile, c.keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	return c, errors.Join(
		os.WriteFile(c.certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.leaf}), 0o644),
		os.WriteFile(c.keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600))
}
