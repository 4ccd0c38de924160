package gateway

import (
	"errors"

	"singlegate/gateway/relay"
)

// A violation is why a tunnel was ended that broke a rule of its route.
type violation struct {
	service string
	from    relay.End // who broke it
	rule    string    // "size", "rate", "protocol", "silent"; "": none was broken
}

func (v violation) values() []string { return []string{v.service, string(v.from), v.rule} }

// violationOf tells which rule ended a tunnel. The report's code would not do: it
// is that of the first Close, which may be another's.
func violationOf(service string, report relay.Report) violation {
	v := violation{service: service}
	if errors.Is(report.Cause, relay.ErrSilent) {
		v.from, v.rule = relay.EndClient, "silent"
	}
	if broken, ok := errors.AsType[*relay.RuleError](report.Cause); ok {
		v.from, v.rule = broken.From, ruleOf(broken.Code)
	}
	return v
}

// ruleOf names rules by the code of the Close that the sender gets.
func ruleOf(code uint16) string {
	switch code {
	case 1008:
		return "rate"
	case 1009:
		return "size"
	default:
		return "protocol"
	}
}
