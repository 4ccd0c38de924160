package gateway

import (
	"fmt"

	"singlegate/gateway/relay"
)

// A violation is why a tunnel was ended that broke a rule of its route.
type violation struct {
	service string
	from    relay.End // who broke it
	rule    string    // "size", "rate", "protocol", "silent"; "": none was broken
}

func (v violation) values() []string { return []string{v.service, string(v.from), v.rule} }

// violationOf tells which rule ended a tunnel. The relay's causes say it in
// words; the report's code is that of the first Close, which may be another's.
func violationOf(service string, report relay.Report) violation {
	v := violation{service: service}
	if report.Cause == nil {
		return v
	}
	cause := report.Cause.Error()
	if cause == "the client did not answer a Ping" {
		v.from, v.rule = relay.EndClient, "silent"
		return v
	}
	var code int
	if n, _ := fmt.Sscanf(cause, "the %s broke a rule (%d)", &v.from, &code); n == 2 {
		v.rule = map[int]string{1002: "protocol", 1008: "rate", 1009: "size"}[code]
	}
	return v
}
