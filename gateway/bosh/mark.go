package bosh

import (
	"crypto/sha256"
	"encoding/base32"
	"strings"
)

// markLength is that of a mark without what sets it apart: 50 bits, so that two
// nodes of a service practically never share one.
const markLength = 10

// apart stands between a server's own session id and the mark. It needs no
// escaping in XML, in a URL and in JavaScript.
const apart = "~"

var letters = base32.StdEncoding.WithPadding(base32.NoPadding)

// Mark names a node of a service within the session ids that clients see. It is
// the same in every gateway that calls service and node alike.
func Mark(service, node string) string {
	sum := sha256.Sum256([]byte(service + "\x00" + node))
	return strings.ToLower(letters.EncodeToString(sum[:]))[:markLength]
}

// Join is the session id that the client sees.
func Join(sid, mark string) string { return sid + apart + mark }

// Split takes a client's session id apart. Without a mark the id is the server's.
func Split(sid string) (own, mark string) {
	i := len(sid) - markLength - len(apart)
	if i <= 0 || sid[i:i+len(apart)] != apart || strings.ContainsFunc(sid[i+len(apart):], notLetter) {
		return sid, ""
	}
	return sid[:i], sid[i+len(apart):]
}

func notLetter(c rune) bool { return (c < 'a' || c > 'z') && (c < '2' || c > '7') }
