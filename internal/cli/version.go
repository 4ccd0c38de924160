package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// version is that of the newest entry in CHANGELOG.md, unless make dist had the
// linker put in what git calls the sources. Nothing writes to it.
var version = "0.1.0"

type versionCommand struct{}

func (versionCommand) Run(s streams) error {
	fmt.Fprintf(s.out, "singlegate %s%s %s %s/%s\n", version, revision(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return nil
}

// revision is what the Go tool knows of the sources, where it was told.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return " (" + s.Value[:12] + ")"
		}
	}
	return ""
}
