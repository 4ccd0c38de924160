// The bench: the gateway beside its peers. A module of its own, so that the
// gateway's module gains no dependency from it.
module singlegate/bench

go 1.26.0
