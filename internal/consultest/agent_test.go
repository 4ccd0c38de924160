package consultest

import (
	"context"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

// TestBinary makes sure of a Consul; `make setup` runs it for its effect.
func TestBinary(t *testing.T) {
	if Binary(t) == "" {
		t.Error("no path")
	}
}

func instances(t *testing.T, a *Agent) int {
	t.Helper()
	list, _, err := a.API.Health().Service("im", "", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// await waits for the instance, which an agent tells the servers of some time
// after it was registered or after a start.
func await(t *testing.T, a *Agent) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for index := uint64(1); ; {
		query := (&api.QueryOptions{WaitIndex: index, WaitTime: time.Second}).WithContext(ctx)
		list, meta, err := a.API.Health().Service("im", "", false, query)
		switch {
		case err != nil:
			t.Fatal(err)
		case len(list) == 1:
			return
		}
		index = max(meta.LastIndex, 1)
	}
}

func TestStateOnDisk(t *testing.T) {
	t.Parallel()
	a := Start(t, Options{Data: true})
	a.Register(api.AgentServiceRegistration{Name: "im", Port: 80})
	await(t, a)
	a.Kill()
	a.Start()
	await(t, a)
	a.Kill()
	a.Wipe()
	a.Start()
	if n := instances(t, a); n != 0 {
		t.Errorf("%d instances after a restart without data", n)
	}
}

func TestACL(t *testing.T) {
	t.Parallel()
	a := Start(t, Options{ACL: true})
	a.Register(api.AgentServiceRegistration{Name: "im", Port: 80})
	secret, accessor := a.TokenFor(`service "im" { policy = "read" }`)
	read := func() error {
		_, _, err := a.API.Health().Service("im", "", false, &api.QueryOptions{Token: secret})
		return err
	}
	if err := read(); err != nil {
		t.Error(err)
	}
	a.DropToken(accessor)
	if read() == nil {
		t.Error("a deleted token still reads")
	}
}
