package relay

import (
	"crypto/rand"
	"strings"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// Close codes of the IANA registry that gobwas/ws has no names for.
const codeBadGateway = 1014

// maxReason is what a control frame leaves for the reason (RFC 6455 §5.5.1).
const maxReason = ws.MaxControlFramePayloadSize - 2

// closeFrame builds a Close towards a client, with a sendable code and a
// reason that fits.
func closeFrame(code uint16, reason string) []byte {
	return ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusCode(code), reason)))
}

// maskedCloseFrame builds a Close towards an upstream. Masks are unpredictable
// (RFC 6455 §5.3).
func maskedCloseFrame(code uint16, reason string) []byte {
	var mask [4]byte
	rand.Read(mask[:]) // never fails
	f := ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusCode(code), reason))
	return ws.MustCompileFrame(ws.MaskFrameInPlaceWith(f, mask))
}

// sendable returns the code, or 1001 in place of one that must not be sent (RFC
// 6455 §7.4).
func sendable(code uint16) uint16 {
	switch c := ws.StatusCode(code); {
	case c < 1000, c > 4999,
		c == ws.StatusNoMeaningYet, c == ws.StatusNoStatusRcvd, c == ws.StatusAbnormalClosure, c == ws.StatusTLSHandshake:
		return uint16(ws.StatusGoingAway)
	default:
		return code
	}
}

// clip makes a reason valid UTF-8 that fits into a Close.
func clip(reason string) string {
	reason = strings.ToValidUTF8(reason, "?")
	if len(reason) <= maxReason {
		return reason
	}
	end := maxReason
	for !utf8.RuneStart(reason[end]) {
		end--
	}
	return reason[:end]
}
