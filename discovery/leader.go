package discovery

import (
	"cmp"
	"context"
	"fmt"

	"github.com/hashicorp/consul/api"
)

// Leader asks Consul, once, for the address of its leader; "": it has none. The
// error says in one sentence why there is no answer.
func Leader(ctx context.Context, cfg ConsulConfig) (string, error) {
	c, err := newConsulClient(cfg)
	if err != nil {
		return "", err
	}
	defer c.close()
	opts := &api.QueryOptions{Datacenter: c.datacenter}
	leader, err := c.api.Status().LeaderWithQueryOptions(opts.WithContext(ctx))
	if err != nil {
		return "", fmt.Errorf("%s", c.explain(err, ""))
	}
	return leader, nil
}

// Where is the address at which Consul is asked, for messages.
func (cfg ConsulConfig) Where() string {
	return withoutUser(cmp.Or(cfg.Address, api.DefaultConfig().Address))
}
