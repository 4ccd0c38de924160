//go:build !unix

package audit

import "os"

const hasModes = false

// lock does nothing: there are no such locks here.
func lock(*os.File) error { return nil }
