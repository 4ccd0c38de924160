package audit

import (
	"testing"

	"singlegate/internal/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }
