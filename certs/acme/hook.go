package acme

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// A hook is a program that is called, without a shell, as
//
//	PROGRAM present|cleanup _acme-challenge.im.example.gov. VALUE
//
// to set a TXT record, and to remove it. When present returns, the record must
// be visible to the ACME server.
type hook string

// hookTime bounds a call.
const hookTime = 3 * time.Minute

// Present implements acmez.Solver.
func (h hook) Present(ctx context.Context, c acme.Challenge) error { return h.call(ctx, "present", c) }

// CleanUp implements acmez.Solver. It is called also when ctx has ended.
func (h hook) CleanUp(ctx context.Context, c acme.Challenge) error {
	return h.call(context.WithoutCancel(ctx), "cleanup", c)
}

func (h hook) call(ctx context.Context, what string, c acme.Challenge) error {
	ctx, cancel := context.WithTimeout(ctx, hookTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, string(h), what, strings.TrimSuffix(c.DNS01TXTRecordName(), ".")+".", c.DNS01KeyAuthorization())
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("the hook %s %s: %w; it said %q", h, what, err, tail(out))
	}
	return nil
}

// tail is the end of what a program said.
func tail(out []byte) string {
	const most = 500
	return strings.TrimSpace(string(out[max(0, len(out)-most):]))
}
