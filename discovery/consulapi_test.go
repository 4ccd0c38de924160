package discovery

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/consul/api"

	"singlegate/internal/consultest"
)

// The client reads its token anew for each request.
func TestConsulAPI(t *testing.T) {
	t.Parallel()
	a := consultest.Start(t, consultest.Options{ACL: true})
	secret, _ := a.TokenFor(`key_prefix "p/" { policy = "write" }`)
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("wrong")
	client, done, err := ConsulConfig{Address: a.Address, TokenFile: file}.API()
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	put := func() error {
		_, err := client.KV().Put(&api.KVPair{Key: "p/k", Value: []byte("v")}, nil)
		return err
	}
	if put() == nil {
		t.Error("a wrong token is taken")
	}
	write(secret)
	if err := put(); err != nil {
		t.Error(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if put() == nil {
		t.Error("no token is read")
	}
}
