//go:build !linux

package relay

// useSystem has no effect where there are no loops.
func useSystem(*Engine, calls) {}

// inLoop runs f where a tunnel of a loop may be touched, of which there is none.
func inLoop(Tunnel, func(*ending, *Options, signs)) { panic("there are no loops") }

// counted are no calls at all.
func counted(_, _ *gauge) calls { return calls{} }

func pingInLoop(Tunnel) {}

func useFaults(*Engine, fault) {}

func noticing(func()) calls { return calls{} }
