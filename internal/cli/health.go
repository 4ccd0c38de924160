package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

type healthCommand struct {
	adminFlags
	Ready bool `help:"Ask for readiness (may clients be sent here?) instead of health."`
}

// Run succeeds when the gateway answers 200.
func (c *healthCommand) Run(s streams) error {
	address, token, err := c.target(english())
	if err != nil {
		return err
	}
	path := "/healthz"
	if c.Ready {
		path = "/readyz"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
	if err != nil {
		return fmt.Errorf("--admin %q is not HOST:PORT: %w", address, err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	direct := &http.Transport{} // no proxy of the environment stands before an admin address
	defer direct.CloseIdleConnections()
	resp, err := direct.RoundTrip(req)
	if err != nil {
		return fmt.Errorf("no answer from the admin address %s: %w; is the gateway running, and is this its admin address (--admin, --config)?", address, err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s: %s", address, resp.Status, strings.TrimSpace(string(body)))
	}
	fmt.Fprint(s.out, string(body))
	return nil
}
