package gateway

import (
	"net/http"
	"strings"
)

// Reserved bits of a frame's first byte.
const (
	rsv1     = 0x40
	allOfRSV = 0x70
)

// reservedBits are those that frames may set by the extensions that the node
// chose in its answer. An extension that is not known may use any, and so may
// whatever a header that cannot be read means.
func reservedBits(answer http.Header) (bits byte) {
	for _, header := range answer[http.CanonicalHeaderKey("Sec-WebSocket-Extensions")] {
		bits |= bitsOfExtensions(header)
	}
	return bits
}

// bitsOfExtensions are those of the extensions in one header field (RFC 6455
// section 9.1).
func bitsOfExtensions(header string) (bits byte) {
	for rest, more := header, true; more; {
		var extension string
		var ok bool
		if extension, rest, more, ok = cutExtension(rest); !ok {
			return allOfRSV
		}
		name, _, _ := strings.Cut(extension, ";")
		switch name = strings.Trim(name, " \t"); {
		case name == "": // an empty element of the list, or one that is not
			if strings.Trim(extension, " \t") != "" {
				return allOfRSV
			}
		case strings.EqualFold(name, "permessage-deflate"): // RFC 7692 section 6
			bits |= rsv1
		default:
			return allOfRSV
		}
	}
	return bits
}

// cutExtension cuts a list at its first comma that is not within a quoted
// string. It is not ok when such a string does not end.
func cutExtension(list string) (extension, rest string, more, ok bool) {
	quoted := false
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++
		case c == ',' && !quoted:
			return list[:i], list[i+1:], true, true
		}
	}
	return list, "", false, !quoted
}
