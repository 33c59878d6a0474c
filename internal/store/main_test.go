package store_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"resource-lock-manager/internal/testdb"
)

func TestMain(m *testing.M) {
	if path, asked := os.LookupEnv(openOnly); asked {
		os.Exit(openAndSay(path))
	}
	code := testdb.Main(m)
	if err := goleak.Find(); err != nil && code == 0 {
		println(err.Error())
		code = 1
	}
	os.Exit(code)
}
