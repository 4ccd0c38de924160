package gateway

import (
	"cmp"
	"fmt"
	"time"

	"singlegate/gateway/relay"
)

// Frames are what the frames of a route's WebSockets must keep to. Who breaks a
// rule gets a Close with the code that says why, the other side a 1001. The zero
// value has no rules.
type Frames struct {
	MaxMessage int64 // bytes of a message from either side, as on the wire; more: 1009; 0: no limit
	MaxFrame   int64 // likewise of a frame
	Rate       int   // messages a second from a client, with bursts of as many; more: 1008; 0: no limit
	Strict     bool  // what RFC 6455 section 5 forbids ends the tunnel with 1002
}

// A Ping is how quiet clients are asked whether they are still there.
type Ping struct {
	Every   time.Duration // after so much silence in both directions; 0: never
	Timeout time.Duration // a client from which then nothing comes for so long is gone; 0: DefaultPingTimeout
}

// DefaultPingTimeout is the wait for an answer to a Ping.
const DefaultPingTimeout = 20 * time.Second

// rulesOf are the rules for the relay, nil when there are none. Tunnels of one
// route share them.
func rulesOf(f Frames, p Ping) *relay.Rules {
	if f == (Frames{}) && p.Every <= 0 {
		return nil
	}
	return &relay.Rules{
		MaxFrame: f.MaxFrame, MaxMessage: f.MaxMessage, MessageRate: f.Rate, Strict: f.Strict,
		Ping: p.Every, PingTimeout: cmp.Or(p.Timeout, DefaultPingTimeout),
	}
}

// Rules below which chats break off; see warnings.
const (
	fewBytes    = 1 << 10
	fewMessages = 5
)

// warnings tells which rules are hardly meant so. Each begins with at, where the
// rules are written.
func (f Frames) warnings(at string) (list []string) {
	warn := func(format string, args ...any) { list = append(list, at+": frames: "+fmt.Sprintf(format, args...)) }
	if f.MaxMessage > 0 && f.MaxFrame > f.MaxMessage {
		warn("max_frame is %d bytes, and no message may have more than max_message, %d: leave max_frame away, or make it smaller", f.MaxFrame, f.MaxMessage)
	}
	if f.MaxMessage > 0 && f.MaxMessage < fewBytes {
		warn("max_message is %d bytes: many a chat message is longer, and ends the tunnel with 1009", f.MaxMessage)
	}
	if f.MaxFrame > 0 && f.MaxFrame < fewBytes && (f.MaxMessage == 0 || f.MaxFrame < f.MaxMessage) {
		warn("max_frame is %d bytes: clients that do not cut their messages into frames of that size are ended with 1009", f.MaxFrame)
	}
	if f.Rate > 0 && f.Rate < fewMessages {
		warn("rate is %d: %d messages at once, as clients send them after they connected, end the tunnel with 1008", f.Rate, f.Rate+1)
	}
	return list
}
