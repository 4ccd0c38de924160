package gateway

import (
	"testing"

	"singlegate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m, "fasthttp.(*Server).serveConn") }
