package discovery

import (
	"fmt"
	"net/http"

	"github.com/hashicorp/consul/api"
)

// API is a client of the Consul that the config names, for what else a gateway
// keeps there. The token is read anew for each request. done gives its idle
// connections back.
func (cfg ConsulConfig) API() (client *api.Client, done func(), err error) {
	conf, transport, token, err := cfg.connection()
	if err != nil {
		return nil, nil, err
	}
	conf.Datacenter = cfg.Datacenter
	conf.HttpClient.Transport = withToken{conf.HttpClient.Transport, token}
	if client, err = api.NewClient(conf); err != nil {
		return nil, nil, fmt.Errorf("discovery.consul: %w", err)
	}
	return client, transport.CloseIdleConnections, nil
}

// withToken gives every request the token of the moment.
type withToken struct {
	http.RoundTripper
	token *token
}

func (t withToken) RoundTrip(req *http.Request) (*http.Response, error) {
	secret, err := t.token.read()
	if err != nil {
		return nil, err
	}
	if secret != "" {
		req = req.Clone(req.Context())
		req.Header.Set("X-Consul-Token", secret)
	}
	return t.RoundTripper.RoundTrip(req)
}
