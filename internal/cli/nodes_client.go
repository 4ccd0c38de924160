package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"singlegate/gateway/admin"
	"singlegate/internal/config"
)

// adminToken says which token is shown there.
type adminToken struct {
	AdminTokenFile string `env:"SINGLEGATE_ADMIN_TOKEN_FILE" placeholder:"FILE" help:"The file with the token of the admin address, where it wants one (default: those of --config)."`
}

// adminFlags say where a running gateway is to be asked.
type adminFlags struct {
	Admin  string `placeholder:"HOST:PORT" help:"The gateway's admin address (default: that of --config, else 127.0.0.1:9180)."`
	Config string `placeholder:"FILE" help:"Take the admin address, and its token, from this config file."`

	adminToken
}

// What a question to the admin address may take.
const (
	adminTimeout = 5 * time.Second
	maxAnswer    = 64 << 20
)

// An adminClient asks a running gateway.
type adminClient struct {
	address string
	token   string // "": none is shown
	say     words
	http    *http.Client
}

func (f adminFlags) client(say words) (*adminClient, error) {
	address, token, err := f.target(say)
	if err != nil {
		return nil, err
	}
	return &adminClient{
		address: address,
		token:   token,
		say:     say,
		// No proxy, whatever the environment says: the admin address is near.
		http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: adminTimeout},
	}, nil
}

// target is where the gateway is to be asked, and the token for it.
func (f adminFlags) target(say words) (address, token string, err error) {
	var file config.File
	if f.Config != "" {
		loaded, err := config.Load(f.Config)
		if err != nil {
			return "", "", err
		}
		file = *loaded
	}
	if address, err = f.address(file.Admin.Address, say); err != nil {
		return "", "", err
	}
	token, err = tokenOf(f.AdminTokenFile, file.Admin)
	return address, token, err
}

// address takes the address that the config names, if one was given.
func (f adminFlags) address(configured string, say words) (string, error) {
	address := "127.0.0.1:9180"
	switch {
	case f.Admin != "":
		address = f.Admin
	case f.Config != "":
		if address = configured; address == "" {
			return "", fmt.Errorf(say.noAdmin, f.Config)
		}
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return "", fmt.Errorf(say.notAddress, address)
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "localhost" // it listens on every address, and is asked on one
	}
	return net.JoinHostPort(host, port), nil
}

// nodes asks for /api/nodes.
func (c *adminClient) nodes(ctx context.Context) (n admin.Nodes, err error) {
	body, err := c.do(ctx, http.MethodGet, "/api/nodes", nil)
	if err == nil {
		if err = json.Unmarshal(body, &n); err != nil {
			err = fmt.Errorf(c.say.noSinglegate, c.address, err)
		}
	}
	return n, err
}

// post asks for a drain, or its end.
func (c *adminClient) post(ctx context.Context, path string, req admin.DrainRequest) error {
	body, err := json.Marshal(req)
	if err == nil {
		_, err = c.do(ctx, http.MethodPost, path, body)
	}
	return err
}

func (c *adminClient) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.address+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf(c.say.notAddress, c.address)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, c.unreachable(err)
	}
	if resp.StatusCode >= 300 {
		var problem admin.Error
		if json.Unmarshal(answer, &problem) != nil || problem.Message == "" || problem.Code == "not_found" {
			return nil, fmt.Errorf(c.say.noSinglegate, c.address, resp.Status)
		}
		return nil, errors.New(shown(problem.Message))
	}
	return answer, nil
}

// unreachable says what to look at.
func (c *adminClient) unreachable(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // the rest repeats the address
	}
	return fmt.Errorf(c.say.unreachable, c.address, err)
}
