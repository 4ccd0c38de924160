package gateway

import (
	"fmt"
	"slices"
	"strings"

	"github.com/gobwas/ws"
)

// wsCases are grouped like those of the Autobahn test suite.
func wsCases() []wsCase {
	return slices.Concat(
		framingCases(), maskCases(), pingCases(), reservedBitCases(), opcodeCases(), fragmentCases(),
		validTextCases(), invalidTextCases(), closeCodeCases(), closeCases(), cutCases(), chunkCases(),
		deflateCases(), negotiationCases(),
	)
}

func text(payload string) frame { return frame{op: ws.OpText, payload: payload} }
func blob(payload string) frame { return frame{op: ws.OpBinary, payload: payload} }
func more(payload string) frame { return frame{op: ws.OpContinuation, payload: payload} }
func ping(payload string) frame { return frame{op: ws.OpPing, payload: payload} }
func pong(payload string) frame { return frame{op: ws.OpPong, payload: payload} }
func closes(body string) frame  { return frame{op: ws.OpClose, payload: body} }

func closing(code int, reason string) frame {
	return closes(string([]byte{byte(code >> 8), byte(code)}) + reason)
}

func bye() frame { return closing(1000, "") }

// What a script is made of: one write of frames; waiting for so many frames to
// have come, or for so many bytes of frames to have reached the other side.
func tell(frames ...frame) step { return step{kind: says, frames: frames} }
func heard(frames int) step     { return step{kind: hears, count: frames} }
func passed(bytes int) step     { return step{kind: reaches, count: bytes} }
func hangUp() step              { return step{kind: hangsUp} }
func reset() step               { return step{kind: resets} }

func (s step) inChunks(of int) step { s.chunk = of; return s }
func (s step) upTo(byte int) step   { s.to = byte; return s }
func (s step) after(byte int) step  { s.from = byte; return s }

// scripted is a script of one write.
func scripted(frames ...frame) []step { return []step{tell(frames...)} }

func words(n int) string {
	const some = "the same words again and again, "
	return strings.Repeat(some, n/len(some)+1)[:n]
}

func noise(n int) string { return string(randomBytes(n)) }

// inPieces is a message in fragments of n bytes.
func inPieces(message frame, n int) []frame {
	var list []frame
	rest := message.payload
	for first := true; first || rest != ""; first = false {
		f := more("")
		if first {
			f = message
		}
		f.payload = rest[:min(n, len(rest))]
		rest = rest[len(f.payload):]
		f.more = rest != ""
		list = append(list, f)
	}
	return list
}

func framingCases() []wsCase {
	var list []wsCase
	for _, n := range []int{0, 1, 125, 126, 127, 128, 65535, 65536, 65537, 1 << 20} {
		list = append(list,
			wsCase{name: fmt.Sprintf("framing: text of %d bytes", n), script: scripted(text(words(n)), bye()), want: fmt.Sprintf("text:%d close:1000", n)},
			wsCase{name: fmt.Sprintf("framing: binary of %d bytes", n), script: scripted(blob(noise(n)), bye()), want: fmt.Sprintf("binary:%d close:1000", n)})
	}
	for _, n := range []int{0, 5, 125} {
		list = append(list, wsCase{name: fmt.Sprintf("framing: length %d in 2 bytes", n), script: scripted(text(words(n)).widened(2)), want: "close:1002"})
	}
	for _, n := range []int{0, 5, 126, 65535} {
		list = append(list, wsCase{name: fmt.Sprintf("framing: length %d in 8 bytes", n), script: scripted(text(words(n)).widened(8)), want: "close:1002"})
	}
	return append(list, []wsCase{
		{name: "framing: length with the top bit", script: scripted(text("x").claiming(1 << 63)), want: "close:1002"},
		{name: "framing: all bits of the length", script: scripted(text("x").claiming(1<<64 - 1)), want: "close:1002"},
		{name: "framing: too big a length", script: scripted(blob("only this").claiming(1 << 62)), want: "close:1009"},
		{name: "framing: too big a length at last", script: scripted(blob("x"), blob("only this").claiming(1<<32)), want: "binary:1 close:1009"},
		{name: "framing: many frames in one write", script: scripted(text("a"), blob(noise(300)), ping("p"), pong("q"), text(""), blob(noise(70000)), bye()),
			want: "text:1 binary:300 pong:1 text:0 binary:70000 close:1000"},
		{name: "framing: a thousand messages in one write", script: scripted(append(slices.Repeat([]frame{text("hello")}, 1000), bye())...),
			want: strings.Repeat("text:5 ", 1000) + "close:1000"},
		{name: "framing: one message after the other", script: []step{tell(text("a")), heard(1), tell(blob("bc")), heard(2), tell(text("def")), heard(3), tell(bye())},
			want: "text:1 binary:2 text:3 close:1000"},
		{name: "framing: nothing but a Close", script: scripted(bye()), want: "close:1000"},
		{name: "framing: a message with the head", early: true, script: []step{tell(text("early")), heard(1), tell(bye())}, want: "text:5 close:1000"},
		{name: "framing: everything with the head", early: true, script: scripted(text("early"), ping("p"), bye()), want: "text:5 pong:1 close:1000"},
		{name: "framing: a Close with the head", early: true, script: scripted(bye()), want: "close:1000"},
		{name: "framing: half a header with the head", early: true, script: []step{tell(text(words(200)), bye()).upTo(1), tell(text(words(200)), bye()).after(1)}, want: "text:200 close:1000"},
		{name: "framing: half a frame with the head", early: true, script: []step{tell(text(words(200)), bye()).upTo(100), passed(100), tell(text(words(200)), bye()).after(100)},
			want: "text:200 close:1000"},
		{name: "framing: no frame with the head", early: true, script: scripted(frame{op: 11, payload: "?"}), want: "close:1002"},
	}...)
}

func maskCases() []wsCase {
	return []wsCase{
		{name: "masks: of zeros", only: clientOnly, script: scripted(text("hello").masked("\x00\x00\x00\x00"), bye()), want: "text:5 close:1000"},
		{name: "masks: of ones", only: clientOnly, script: scripted(text("hello").masked("\xff\xff\xff\xff"), bye()), want: "text:5 close:1000"},
		{name: "masks: like a header", only: clientOnly, script: scripted(text("hello").masked("\x88\x82\x03\xe8"), bye()), want: "text:5 close:1000"},
		{name: "masks: of an empty frame", only: clientOnly, script: scripted(text("").masked("\x01\x02\x03\x04"), bye()), want: "text:0 close:1000"},
		{name: "masks: payload that is its mask", only: clientOnly, script: scripted(blob("abcdabcd").masked("abcd"), bye()), want: "binary:8 close:1000"},
		{name: "masks: another for each frame", only: clientOnly, script: scripted(text("a").masked("1234"), ping("b").masked("5678"), text("c").masked("90ab"), bye().masked("cdef")),
			want: "text:1 pong:1 text:1 close:1000"},
		{name: "masks: of the wrong side on text", script: scripted(text("hello").wronglyMasked()), want: "close:1002"},
		{name: "masks: of the wrong side on an empty frame", script: scripted(blob("").wronglyMasked()), want: "close:1002"},
		{name: "masks: of the wrong side on a ping", script: scripted(ping("hello").wronglyMasked()), want: "close:1002"},
		{name: "masks: of the wrong side on a Close", script: scripted(bye().wronglyMasked()), want: "close:1002"},
		{name: "masks: of the wrong side on the second frame", script: scripted(text("a"), text("b").wronglyMasked(), text("c")), want: "text:1 close:1002"},
	}
}

func pingCases() []wsCase {
	var list []wsCase
	var every []frame
	answers := ""
	for n := range 126 {
		every = append(every, ping(noise(n)))
		answers += fmt.Sprintf("pong:%d ", n)
	}
	for _, n := range []int{0, 1, 5, 124, 125} {
		list = append(list,
			wsCase{name: fmt.Sprintf("pings: of %d bytes", n), script: scripted(ping(noise(n)), bye()), want: fmt.Sprintf("pong:%d close:1000", n)},
			wsCase{name: fmt.Sprintf("pings: of %d bytes within a message", n), script: scripted(text("a").unfinished(), ping(noise(n)), more("b"), bye()),
				want: fmt.Sprintf("pong:%d text:2 close:1000", n)},
			wsCase{name: fmt.Sprintf("pings: unasked pong of %d bytes", n), script: scripted(pong(noise(n)), text("a"), bye()), want: "text:1 close:1000"})
	}
	return append(list, []wsCase{
		{name: "pings: of every size", script: scripted(append(every, bye())...), want: answers + "close:1000"},
		{name: "pings: of 126 bytes", script: scripted(ping(noise(126))), want: "close:1002"},
		{name: "pings: of 65536 bytes", script: scripted(ping(noise(65536))), want: "close:1002"},
		{name: "pings: pong of 126 bytes", script: scripted(pong(noise(126))), want: "close:1002"},
		{name: "pings: ten in a row", script: scripted(append(every[1:11:11], bye())...), want: "pong:1 pong:2 pong:3 pong:4 pong:5 pong:6 pong:7 pong:8 pong:9 pong:10 close:1000"},
		{name: "pings: ten alike", script: scripted(append(slices.Repeat([]frame{ping("x")}, 10), bye())...), want: strings.Repeat("pong:1 ", 10) + "close:1000"},
		{name: "pings: one after the other's answer", script: []step{tell(ping("a")), heard(1), tell(ping("b")), heard(2), tell(bye())}, want: "pong:1 pong:1 close:1000"},
		{name: "pings: unasked pong before a ping", script: scripted(pong("unasked"), ping("asked"), pong("asked"), bye()), want: "pong:5 close:1000"},
		{name: "pings: between messages", script: scripted(text("a"), ping("b"), blob("c"), ping(""), bye()), want: "text:1 pong:1 binary:1 pong:0 close:1000"},
		{name: "pings: not UTF-8", script: scripted(ping("\xff\xfe\x00\x80"), bye()), want: "pong:4 close:1000"},
		{name: "pings: fragmented", script: scripted(ping("a").unfinished(), more("b")), want: "close:1002"},
		{name: "pings: pong fragmented", script: scripted(pong("a").unfinished(), more("b")), want: "close:1002"},
		{name: "pings: length in 2 bytes", script: scripted(ping("hello").widened(2)), want: "close:1002"},
		{name: "pings: length in 8 bytes", script: scripted(ping("hello").widened(8)), want: "close:1002"},
	}...)
}

const deflate = "permessage-deflate"

func offers(lines ...string) []string {
	return slices.Collect(func(yield func(string) bool) {
		for _, l := range lines {
			if !yield("Sec-WebSocket-Extensions: " + l) {
				return
			}
		}
	})
}

func reservedBitCases() []wsCase {
	var list []wsCase
	for rsv := byte(1); rsv < 8; rsv++ {
		list = append(list,
			wsCase{name: fmt.Sprintf("reserved bits: %03b on text", rsv), script: scripted(text("hello").bits(rsv)), want: "close:1002"},
			wsCase{name: fmt.Sprintf("reserved bits: %03b on a second message", rsv), script: scripted(text("a"), blob("b").bits(rsv), ping("c")), want: "text:1 close:1002"},
			wsCase{name: fmt.Sprintf("reserved bits: %03b on a ping", rsv), script: scripted(ping("hello").bits(rsv)), want: "close:1002"},
			wsCase{name: fmt.Sprintf("reserved bits: %03b on a Close", rsv), script: scripted(bye().bits(rsv)), want: "close:1002"},
			wsCase{name: fmt.Sprintf("reserved bits: %03b on a fragment", rsv), script: scripted(text("a").unfinished(), more("b").bits(rsv)), want: "close:1002"},
			wsCase{name: fmt.Sprintf("reserved bits: %03b of an extension", rsv), offer: offers("x-bits"), answer: offers("x-bits"), rules: rules{bits: 7},
				script: scripted(text("a").bits(rsv), ping("b").bits(rsv), blob("c").bits(rsv).unfinished(), more("d").bits(rsv), bye().bits(rsv)),
				want:   "text:1 pong:1 binary:2 close:1000"})
	}
	return list
}

func opcodeCases() []wsCase {
	var list []wsCase
	for _, op := range []ws.OpCode{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		f := frame{op: op}
		full := frame{op: op, payload: "hello"}
		list = append(list,
			wsCase{name: fmt.Sprintf("opcodes: %d, empty", op), script: scripted(f), want: "close:1002"},
			wsCase{name: fmt.Sprintf("opcodes: %d", op), script: scripted(full, text("ignored"), bye()), want: "close:1002"},
			wsCase{name: fmt.Sprintf("opcodes: %d after a message", op), script: scripted(text("a"), full, ping("ignored")), want: "text:1 close:1002"},
			wsCase{name: fmt.Sprintf("opcodes: %d within a message", op), script: scripted(text("a").unfinished(), full.unfinished(), more("b")), want: "close:1002"})
	}
	return list
}

func fragmentCases() []wsCase {
	pinged := []frame{text("").unfinished()}
	for range 10 {
		pinged = append(pinged, more("x").unfinished(), ping("y"))
	}
	return []wsCase{
		{name: "fragments: two of text", script: scripted(text("a").unfinished(), more("b"), bye()), want: "text:2 close:1000"},
		{name: "fragments: two of binary", script: scripted(blob("\x00\xff").unfinished(), more("\x80"), bye()), want: "binary:3 close:1000"},
		{name: "fragments: two writes", script: []step{tell(text("a").unfinished()), tell(more("b")), tell(bye())}, want: "text:2 close:1000"},
		{name: "fragments: second once the first is there", script: []step{tell(text("a").unfinished()), passed(3), tell(more("b"), bye())}, want: "text:2 close:1000"},
		{name: "fragments: of one byte", script: scripted(append(inPieces(text(words(200)), 1), bye())...), want: "text:200 close:1000"},
		{name: "fragments: of one byte, one write each", script: append(eachTold(inPieces(text(words(100)), 1)...), tell(bye())), want: "text:100 close:1000"},
		{name: "fragments: two thousand", script: scripted(append(inPieces(blob(noise(6000)), 3), bye())...), want: "binary:6000 close:1000"},
		{name: "fragments: of 64 KiB", script: scripted(append(inPieces(blob(noise(300000)), 64<<10), bye())...), want: "binary:300000 close:1000"},
		{name: "fragments: empty first", script: scripted(text("").unfinished(), more("ab"), bye()), want: "text:2 close:1000"},
		{name: "fragments: empty last", script: scripted(text("ab").unfinished(), more(""), bye()), want: "text:2 close:1000"},
		{name: "fragments: empty between", script: scripted(text("a").unfinished(), more("").unfinished(), more("b"), bye()), want: "text:2 close:1000"},
		{name: "fragments: all empty", script: scripted(text("").unfinished(), more("").unfinished(), more(""), bye()), want: "text:0 close:1000"},
		{name: "fragments: ping between", script: scripted(text("a").unfinished(), ping("p"), more("b"), bye()), want: "pong:1 text:2 close:1000"},
		{name: "fragments: ping between, its answer awaited", script: []step{tell(text("a").unfinished(), ping("p")), heard(1), tell(more("b"), bye())}, want: "pong:1 text:2 close:1000"},
		{name: "fragments: a ping after each", script: scripted(append(pinged, more("end"), bye())...), want: strings.Repeat("pong:1 ", 10) + "text:13 close:1000"},
		{name: "fragments: pong between", script: scripted(text("a").unfinished(), pong("p"), more("b"), bye()), want: "text:2 close:1000"},
		{name: "fragments: Close between", script: scripted(text("a").unfinished(), bye(), more("b")), want: "close:1000"},
		{name: "fragments: Close instead of the last", script: scripted(text("a").unfinished(), more("b").unfinished(), closing(1001, "enough")), want: "close:1001"},
		{name: "fragments: two messages", script: scripted(text("a").unfinished(), more("b"), blob("c").unfinished(), more("d"), bye()), want: "text:2 binary:2 close:1000"},
		{name: "fragments: and whole messages", script: scripted(text("a"), text("b").unfinished(), more("c"), text("d"), bye()), want: "text:1 text:2 text:1 close:1000"},
		{name: "fragments: no beginning", script: scripted(more("a"), text("b"), bye()), want: "close:1002"},
		{name: "fragments: no beginning, unfinished", script: scripted(more("a").unfinished(), text("b"), bye()), want: "close:1002"},
		{name: "fragments: no beginning, empty", script: scripted(more("")), want: "close:1002"},
		{name: "fragments: one too many", script: scripted(text("a").unfinished(), more("b"), more("c"), text("d")), want: "text:2 close:1002"},
		{name: "fragments: one after a whole message", script: scripted(text("a"), more("b"), text("c")), want: "text:1 close:1002"},
		{name: "fragments: text within text", script: scripted(text("a").unfinished(), text("b"), more("c")), want: "close:1002"},
		{name: "fragments: binary within text", script: scripted(text("a").unfinished(), blob("b"), more("c")), want: "close:1002"},
		{name: "fragments: another message begun within", script: scripted(text("a").unfinished(), text("b").unfinished(), more("c")), want: "close:1002"},
		{name: "fragments: message within, after a ping", script: scripted(blob("a").unfinished(), ping("p"), blob("b")), want: "pong:1 close:1002"},
		{name: "fragments: no beginning after a ping", script: scripted(ping("p"), more("a")), want: "pong:1 close:1002"},
		{name: "fragments: Close fragmented", script: scripted(bye().unfinished(), more("x")), want: "close:1002"},
	}
}

// eachTold is a script of one write for each frame.
func eachTold(frames ...frame) []step {
	var script []step
	for _, f := range frames {
		script = append(script, tell(f))
	}
	return script
}

func validTextCases() []wsCase {
	var list []wsCase
	for _, s := range []string{
		"κόσμε", "Hello-µ@ßöäüàá-UTF-8!!", "你好，世界", "👩‍👩‍👧‍👦", "\x00", "\x7f", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufdd0",
		"\ufffd", "\ufffe", "\uffff", "\U00010000", "\U0010fffe", "\U0010ffff", "\ufeffwith a mark", "a\u0301\u200f",
	} {
		want := fmt.Sprintf("text:%d close:1000", len(s))
		list = append(list,
			wsCase{name: fmt.Sprintf("UTF-8: %+q", s), script: scripted(text(s), bye()), want: want},
			wsCase{name: fmt.Sprintf("UTF-8: %+q in fragments of a byte", s), script: scripted(append(inPieces(text(s), 1), bye())...), want: want},
			wsCase{name: fmt.Sprintf("UTF-8: %+q in writes of a byte", s), script: []step{tell(text(s), bye()).inChunks(1)}, want: want})
	}
	return append(list,
		wsCase{name: "UTF-8: ping within a character", script: scripted(text("\xe4\xbd").unfinished(), ping("p"), more("\xa0"), bye()), want: "pong:1 text:3 close:1000"},
		wsCase{name: "UTF-8: 64 KiB of it", script: scripted(text(strings.Repeat("你", 21846)), bye()), want: "text:65538 close:1000"},
		wsCase{name: "UTF-8: 64 KiB of it in fragments of 1000 bytes", script: scripted(append(inPieces(text(strings.Repeat("你", 21846)), 1000), bye())...), want: "text:65538 close:1000"},
		wsCase{name: "UTF-8: none of it in binary", script: scripted(blob("\xff\xc0\x80\xed\xa0\x80"), bye()), want: "binary:6 close:1000"},
		wsCase{name: "UTF-8: none of it in fragmented binary", script: scripted(blob("\xe4").unfinished(), more("\xe4"), bye()), want: "binary:2 close:1000"},
	)
}

func invalidTextCases() []wsCase {
	var list []wsCase
	for _, s := range []string{
		"\x80", "\xbf", "\x80\xbf\x80", "\xc0\x80", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf",
		"\xed\xa0\x80", "\xed\xbf\xbf", "\xed\xa0\x80\xed\xb0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80", "\xfe", "\xff",
		"\xfe\xfe\xff\xff", "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", "hello \xc3\x28", "\xe2\x28\xa1", "\xf0\x28\x8c\xbc",
	} {
		list = append(list,
			wsCase{name: fmt.Sprintf("not UTF-8: %+q", s), script: scripted(text(s), text("ignored")), want: "close:1007"},
			wsCase{name: fmt.Sprintf("not UTF-8: %+q in fragments of a byte", s), script: scripted(append(inPieces(text(s), 1), ping("ignored"))...), want: "close:1007"})
	}
	for _, s := range []string{"\xc3", "\xe4", "\xe4\xbd", "\xf0", "\xf0\x9f", "\xf0\x9f\x98", "hello \xe4\xbd"} {
		list = append(list, wsCase{name: fmt.Sprintf("not UTF-8: %+q and no more", s), script: scripted(text(s), text("ignored")), want: "close:1007"})
	}
	return append(list,
		wsCase{name: "not UTF-8: an unfinished message", script: scripted(text("\xff").unfinished()), want: "close:1007"},
		wsCase{name: "not UTF-8: a later fragment", script: scripted(text("fine").unfinished(), more("\xc0").unfinished(), more("fine")), want: "close:1007"},
		wsCase{name: "not UTF-8: an empty end of a character", script: scripted(text("\xe4\xbd").unfinished(), more("")), want: "close:1007"},
		wsCase{name: "not UTF-8: in writes of a byte", script: []step{tell(text("hello \xc3\x28")).inChunks(1)}, want: "close:1007"},
		wsCase{name: "not UTF-8: after a good message", script: scripted(text("fine"), text("\xff"), text("ignored")), want: "text:4 close:1007"},
	)
}

func closeCodeCases() []wsCase {
	var list []wsCase
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3001, 3999, 4000, 4001, 4500, 4999} {
		want := fmt.Sprintf("close:%d", code)
		list = append(list,
			wsCase{name: fmt.Sprintf("close codes: %d", code), script: scripted(closing(code, "")), want: want},
			wsCase{name: fmt.Sprintf("close codes: %d with a reason", code), script: scripted(closing(code, fmt.Sprintf("because of %d", code))), want: want})
	}
	for _, code := range []int{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000, 2999, 5000, 5001, 65535} {
		list = append(list,
			wsCase{name: fmt.Sprintf("close codes: %d", code), script: scripted(closing(code, "")), want: "close:1002"},
			wsCase{name: fmt.Sprintf("close codes: %d with a reason", code), script: scripted(closing(code, "no such code")), want: "close:1002"})
	}
	return list
}

func closeCases() []wsCase {
	var list []wsCase
	for _, n := range []int{1, 2, 121, 122, 123} {
		list = append(list, wsCase{name: fmt.Sprintf("close: reason of %d bytes", n), script: scripted(closing(1000, words(n))), want: "close:1000"})
	}
	for _, n := range []int{124, 125, 1000} {
		list = append(list, wsCase{name: fmt.Sprintf("close: reason of %d bytes", n), script: scripted(closing(1000, words(n))), want: "close:1002"})
	}
	return append(list, []wsCase{
		{name: "close: no body", script: scripted(closes("")), want: "close"},
		{name: "close: body of one byte", script: scripted(closes("\x03")), want: "close:1002"},
		{name: "close: reason in Chinese", script: scripted(closing(4000, "会话已过期，请重新登录")), want: "close:4000"},
		{name: "close: reason of control characters", script: scripted(closing(1000, "\x00\r\n\x1b[0m")), want: "close:1000"},
		{name: "close: reason that is not UTF-8", script: scripted(closing(1000, "\xc3\x28")), want: "close:1007"},
		{name: "close: reason cut within a character", script: scripted(closing(1000, "\xe4\xbd")), want: "close:1007"},
		{name: "close: reason with a surrogate", script: scripted(closing(1000, "\xed\xa0\x80")), want: "close:1007"},
		{name: "close: length in 2 bytes", script: scripted(bye().widened(2)), want: "close:1002"},
		{name: "close: in writes of a byte", script: []step{tell(closing(4321, "bye")).inChunks(1)}, want: "close:4321"},
		{name: "close: after a big message", script: scripted(blob(noise(300000)), bye()), want: "binary:300000 close:1000"},
		{name: "close: after a ping", script: scripted(ping("p"), bye()), want: "pong:1 close:1000"},
		{name: "close: text after it", script: scripted(bye(), text("late")), want: "close:1000"},
		{name: "close: ping after it", script: scripted(bye(), ping("late")), want: "close:1000"},
		{name: "close: another after it", script: scripted(bye(), closing(4000, "again")), want: "close:1000"},
		{name: "close: 200 KiB after it", script: scripted(bye(), blob(noise(200000))), want: "close:1000"},
		{name: "close: no frames after it", script: scripted(bye(), frame{op: 15, payload: "x", rsv: 7}, text("late")), want: "close:1000"},
		{name: "close: half a frame after it", script: []step{tell(bye(), text(words(50))).upTo(20)}, want: "close:1000"},
		{name: "close: text after its answer", script: []step{tell(bye()), heard(1), tell(text("late"))}, want: "close:1000"},
		{name: "close: stream ended with it", script: []step{tell(bye()), hangUp()}, want: "close:1000"},
		{name: "close: stream ended after a ping and it", script: []step{tell(ping("p"), bye()), hangUp()}, want: "pong:1 close:1000"},
		{name: "close: both at once", script: scripted(closing(4001, "one")), peer: scripted(closing(4002, "two")), want: "close:4002"},
		{name: "close: both at once, alike", script: scripted(bye()), peer: scripted(bye()), want: "close:1000"},
		{name: "close: both at once, without a body", script: scripted(closes("")), peer: scripted(closes("")), want: "close"},
		{name: "close: both at once, after messages", script: scripted(text("a"), closing(4001, "")), peer: scripted(blob("bc"), closing(4002, "")), want: "binary:2 close:4002"},
		{name: "close: crossing a big message", script: scripted(bye()), peer: scripted(blob(noise(200000)), bye()), want: "binary:200000 close:1000"},
		{name: "close: answered with another code", script: scripted(closing(4001, "one")), peer: []step{heard(1), tell(closing(4002, "two"))}, want: "close:4002"},
		{name: "close: answered after more messages", script: scripted(bye()), peer: []step{heard(1), tell(text("a"), text("b"), bye())}, want: "text:1 text:1 close:1000"},
		{name: "close: answered without a code", script: scripted(closing(4001, "one")), peer: []step{heard(1), tell(closes(""))}, want: "close"},
		{name: "close: answered with a wrong code", script: scripted(closing(4001, "one")), peer: []step{heard(1), tell(closing(1005, ""))}, want: "close:1005"},
		{name: "close: left unanswered", script: []step{heard(1), hangUp()}, peer: scripted(bye()), want: "close:1000"},
		{name: "close: left unanswered by a reset", script: []step{heard(1), reset()}, peer: scripted(bye()), want: "close:1000", byClient: "client reset", byNode: "node reset in a frame"},
		{name: "close: reset after its answer", script: []step{tell(bye()), heard(1), reset()}, want: "close:1000", only: nodeOnly, byNode: "node reset in a frame"},
		{name: "close: within a message of the other side", script: scripted(bye()), want: "binary:70000 close:1000",
			peer: []step{tell(blob(noise(70000))).upTo(30000), heard(1), tell(blob(noise(70000)), bye()).after(30000)}},
		{name: "close: after a message of each side at once", script: scripted(blob(noise(300000)), bye()), peer: scripted(blob(noise(300000)), bye()), want: "binary:300000 close:1000"},
		{name: "close: a failure left unanswered", script: []step{tell(frame{op: 3}), heard(1), hangUp()}, want: "close:1002"},
		{name: "close: a failure answered", script: []step{tell(frame{op: 3}), heard(1), tell(closing(1002, ""))}, want: "close:1002"},
		{name: "close: two sides talk before it", script: []step{tell(text("a")), heard(1), tell(text("c")), heard(2), tell(bye())},
			peer: []step{heard(1), tell(text("b")), heard(2), tell(text("d")), heard(3), tell(bye())}, want: "text:1 text:1 close:1000"},
	}...)
}

func cutCases() []wsCase {
	const between, afterReset = "node lost", "node reset"
	return []wsCase{
		{name: "no close: nothing at all", script: []step{hangUp()}, want: "", byNode: between},
		{name: "no close: after a message", script: []step{tell(text("a")), hangUp()}, want: "text:1", byNode: between},
		{name: "no close: after the answer to a message", script: []step{tell(text("a")), heard(1), hangUp()}, want: "text:1", byNode: between},
		{name: "no close: after a ping", script: []step{tell(ping("a")), hangUp()}, want: "pong:1", byNode: between},
		{name: "no close: after a big message", script: []step{tell(blob(noise(300000))), hangUp()}, want: "binary:300000", byNode: between},
		{name: "no close: between fragments", script: []step{tell(text("a").unfinished()), hangUp()}, want: "", byNode: between},
		{name: "no close: after a ping between fragments", script: []step{tell(text("a").unfinished(), ping("p")), hangUp()}, want: "pong:1", byNode: between},
		{name: "no close: within a header", script: []step{tell(text("a")).upTo(1), hangUp()}, want: "", byNode: "node lost in a header"},
		{name: "no close: within a length of 2 bytes", script: []step{tell(text(words(300))).upTo(3), hangUp()}, want: "", byNode: "node lost in a header"},
		{name: "no close: within a length of 8 bytes", script: []step{tell(text("a"), blob(noise(70000))).upTo(8), hangUp()}, want: "text:1", byNode: "node lost in a header", only: nodeOnly},
		{name: "no close: within a mask", script: []step{tell(text("a")).upTo(5), hangUp()}, want: "", only: clientOnly},
		{name: "no close: before the payload", script: []step{tell(text(words(100))).upTo(2), hangUp()}, want: "", only: nodeOnly},
		{name: "no close: within a payload", script: []step{tell(text(words(100))).upTo(50), hangUp()}, want: ""},
		{name: "no close: before the last byte of a payload", script: []step{tell(text(words(100))).upTo(101), hangUp()}, want: ""},
		{name: "no close: within a big payload", script: []step{tell(blob(noise(100000))).upTo(70000), hangUp()}, want: ""},
		{name: "no close: within a ping", script: []step{tell(ping("hello")).upTo(6), hangUp()}, want: ""},
		{name: "no close: within a Close", script: []step{tell(closing(1000, "because")).upTo(8), hangUp()}, want: ""},
		{name: "no close: within a message's last fragment", script: []step{tell(text("a").unfinished(), more(words(100))).upTo(60), hangUp()}, want: ""},
		{name: "no close: after what is no frame", script: []step{tell(frame{op: 5, payload: "x"}), hangUp()}, want: "close:1002"},
		{name: "no close: the other side goes on", script: []step{tell(text("a")), hangUp()}, peer: []step{heard(1), tell(blob(noise(300000)), bye())}, want: "binary:300000 close:1000", byNode: "node lost, the client sends on"},
		{name: "no close: with the head", early: true, script: []step{tell(text("a")), hangUp()}, want: "text:1", byNode: between},
		{name: "reset: after the answer to a message", script: []step{tell(text("a")), heard(1), reset()}, want: "text:1", byClient: "client reset", byNode: afterReset},
		{name: "reset: between fragments", script: []step{tell(text("a").unfinished(), ping("p")), heard(1), reset()}, want: "pong:1", byClient: "client reset", byNode: afterReset},
		{name: "reset: within a payload", script: []step{tell(text(words(100))).upTo(50), passed(50), reset()}, want: "", byClient: "client reset", byNode: "node reset in a frame"},
	}
}

func chunkCases() []wsCase {
	var list []wsCase
	for _, of := range []int{1, 2, 3, 7} {
		for _, n := range []int{0, 1, 5, 125, 126, 300} {
			list = append(list, wsCase{name: fmt.Sprintf("chunks: of %d, text of %d bytes", of, n), script: []step{tell(text(words(n)), bye()).inChunks(of)},
				want: fmt.Sprintf("text:%d close:1000", n)})
		}
		list = append(list, wsCase{name: fmt.Sprintf("chunks: of %d, many frames", of),
			script: []step{tell(text("a").unfinished(), ping("p"), more("b"), blob(noise(200)), pong("q"), closing(4000, "bye")).inChunks(of)},
			want:   "pong:1 text:2 binary:200 close:4000"})
	}
	for _, of := range []int{997, 4096, 4097, 16384, 32768, 32771} {
		list = append(list, wsCase{name: fmt.Sprintf("chunks: of %d, binary of 65536 bytes thrice", of),
			script: []step{tell(blob(noise(65536)), blob(noise(65536)), ping("p"), blob(noise(65536)), bye()).inChunks(of)},
			want:   "binary:65536 binary:65536 pong:1 binary:65536 close:1000"})
	}
	big := tell(blob(noise(70000)), bye())
	return append(list, []wsCase{
		{name: "chunks: length of 8 bytes, byte by byte", script: []step{big.upTo(20).inChunks(1), big.after(20)}, want: "binary:70000 close:1000"},
		{name: "chunks: header and payload", script: []step{big.upTo(10), big.after(10)}, want: "binary:70000 close:1000", only: nodeOnly},
		{name: "chunks: header with mask, and payload", script: []step{big.upTo(14), big.after(14)}, want: "binary:70000 close:1000", only: clientOnly},
		{name: "chunks: the rest once the beginning is there", script: []step{big.upTo(15), passed(15), big.upTo(16).after(15), passed(16), big.after(16)}, want: "binary:70000 close:1000"},
		{name: "chunks: the last byte once all others are there", script: []step{big.upTo(70010), passed(70010), big.after(70010)}, want: "binary:70000 close:1000", only: nodeOnly},
		{name: "chunks: two frames and half of a third", script: []step{tell(text("a"), text("b"), text(words(100)), bye()).upTo(40), heard(2), tell(text("a"), text("b"), text(words(100)), bye()).after(40)},
			want: "text:1 text:1 text:100 close:1000"},
		{name: "chunks: what is no frame, byte by byte", script: []step{tell(frame{op: 7, payload: "hello"}, text("ignored")).inChunks(1)}, want: "close:1002"},
	}...)
}

func deflateCases() []wsCase {
	one, two, three := newPacker(), newPacker(), newPacker()
	a, b, c := one.pack("hello"), one.pack("hello"), one.pack(words(100))
	long, other := two.pack(words(200000)), two.pack(words(200000))
	raw := three.pack(noise(50000))
	hello, empty := newPacker().pack("hello"), newPacker().pack("")
	wide := newPacker().pack(words(3000))
	packed := func(s string) frame { return text(s).bits(4) }
	list := []wsCase{
		{name: "one message", script: scripted(packed(hello), bye()), want: fmt.Sprintf("text:%d close:1000", len(hello))},
		{name: "messages with their context", script: scripted(packed(a), packed(b), packed(c), bye()), want: fmt.Sprintf("text:%d text:%d text:%d close:1000", len(a), len(b), len(c))},
		{name: "one after the other's answer", script: []step{tell(packed(a)), heard(1), tell(packed(b)), heard(2), tell(packed(c), bye())},
			want: fmt.Sprintf("text:%d text:%d text:%d close:1000", len(a), len(b), len(c))},
		{name: "messages without a context", script: scripted(packed(hello), packed(hello), bye()), want: fmt.Sprintf("text:%d text:%d close:1000", len(a), len(b))},
		{name: "an empty message", script: scripted(packed(empty), bye()), want: fmt.Sprintf("text:%d close:1000", len(empty))},
		{name: "a message of no bytes at all", script: scripted(packed(""), bye()), want: "close:1007"},
		{name: "400 KB in two messages", script: scripted(packed(long), packed(other), bye()), want: fmt.Sprintf("text:%d text:%d close:1000", len(long), len(other))},
		{name: "noise", script: scripted(blob(raw).bits(4), bye()), want: fmt.Sprintf("binary:%d close:1000", len(raw))},
		{name: "not deflated", script: scripted(text("hello"), bye()), want: "text:5 close:1000"},
		{name: "deflated and not", script: scripted(packed(a), text("plain"), packed(b), bye()), want: fmt.Sprintf("text:%d text:5 text:%d close:1000", len(a), len(b))},
		{name: "fragments", script: scripted(append(inPieces(packed(wide), 10), bye())...), want: fmt.Sprintf("text:%d close:1000", len(wide))},
		{name: "fragments of a byte", script: scripted(append(inPieces(packed(wide), 1), bye())...), want: fmt.Sprintf("text:%d close:1000", len(wide))},
		{name: "fragments, the last one empty", script: scripted(packed(hello).unfinished(), more(""), bye()), want: fmt.Sprintf("text:%d close:1000", len(hello))},
		{name: "fragments with pings between", script: scripted(packed(hello[:2]).unfinished(), ping("p"), more(hello[2:]), bye()), want: fmt.Sprintf("pong:1 text:%d close:1000", len(hello))},
		{name: "in writes of a byte", script: []step{tell(packed(wide), bye()).inChunks(1)}, want: fmt.Sprintf("text:%d close:1000", len(wide))},
		{name: "with the head", early: true, script: scripted(packed(hello), bye()), want: fmt.Sprintf("text:%d close:1000", len(hello))},
		{name: "a stored block", script: scripted(packed("\x00\x05\x00\xfa\xffhello\x00"), bye()), want: fmt.Sprintf("text:%d close:1000", len(hello))},
		{name: "a last block", script: scripted(packed("\x01\x05\x00\xfa\xffhello\x00"), bye()), want: fmt.Sprintf("text:%d close:1000", len(hello))},
		{name: "a block that is none", script: scripted(packed("\xff\xff\xff\xff")), want: "close:1007"},
		{name: "a distance beyond the context", script: scripted(packed(b)), want: "close:1007"},
		{name: "not UTF-8 within", script: scripted(packed(newPacker().pack("\xc3\x28"))), want: "close:1007"},
		{name: "not UTF-8 within binary", script: scripted(blob(newPacker().pack("\xc3\x28")).bits(4), bye()), want: fmt.Sprintf("binary:%d close:1000", len(newPacker().pack("\xc3\x28")))},
		{name: "RSV1 on a later fragment", script: scripted(packed(hello[:2]).unfinished(), more(hello[2:]).bits(4)), want: "close:1002"},
		{name: "RSV1 on a ping", script: scripted(ping("p").bits(4)), want: "close:1002"},
		{name: "RSV1 on a Close", script: scripted(bye().bits(4)), want: "close:1002"},
		{name: "RSV2", script: scripted(text("hello").bits(2)), want: "close:1002"},
		{name: "RSV1 and RSV3", script: scripted(packed(hello).bits(5)), want: "close:1002"},
		{name: "no close", script: []step{tell(packed(hello)), heard(1), hangUp()}, want: fmt.Sprintf("text:%d", len(hello)), byNode: "node lost"},
	}
	for i := range list {
		list[i].name = "deflate: " + list[i].name
		list[i].offer, list[i].answer, list[i].rules = offers(deflate), offers(deflate), rules{deflate: true}
	}
	return list
}

func negotiationCases() []wsCase {
	const protocol, cookie = "Sec-WebSocket-Protocol: ", "Set-Cookie: "
	list := []wsCase{
		{name: "nothing"},
		{name: "a subprotocol", offer: []string{protocol + "mqtt"}, answer: []string{protocol + "mqtt"}},
		{name: "the second of three subprotocols", offer: []string{protocol + "a, xmpp, c"}, answer: []string{protocol + "xmpp"}},
		{name: "subprotocols in two lines", offer: []string{protocol + "a", protocol + "xmpp, c"}, answer: []string{protocol + "c"}},
		{name: "subprotocols without spaces", offer: []string{protocol + "a,xmpp,c"}, answer: []string{protocol + "a"}},
		{name: "no subprotocol chosen", offer: []string{protocol + "mqtt"}},
		{name: "a subprotocol that nobody offered", offer: []string{protocol + "a"}, answer: []string{protocol + "b"}},
		{name: "a subprotocol without an offer", answer: []string{protocol + "b"}},
		{name: "a subprotocol in other letters", offer: []string{protocol + "MQTT"}, answer: []string{protocol + "mqtt"}},
		{name: "an odd subprotocol", offer: []string{protocol + "v1.im.example.gov!#$%&'*+-.^_`|~"}, answer: []string{protocol + "v1.im.example.gov!#$%&'*+-.^_`|~"}},
		{name: "empty fields", offer: []string{protocol, "Sec-WebSocket-Extensions: "}, answer: []string{protocol, "Sec-WebSocket-Extensions: "}},
		{name: "deflate", offer: offers(deflate), answer: offers(deflate)},
		{name: "deflate refused", offer: offers(deflate)},
		{name: "deflate with every parameter", offer: offers(deflate + "; client_max_window_bits; server_max_window_bits=10; client_no_context_takeover; server_no_context_takeover"),
			answer: offers(deflate + "; client_max_window_bits=12; server_max_window_bits=10; client_no_context_takeover; server_no_context_takeover")},
		{name: "deflate with a quoted parameter", offer: offers(deflate + `; server_max_window_bits="10"`), answer: offers(deflate + `; server_max_window_bits="10"`)},
		{name: "deflate with a fallback", offer: offers(deflate + "; server_max_window_bits=10, " + deflate), answer: offers(deflate)},
		{name: "deflate without spaces", offer: offers(deflate + ";client_max_window_bits"), answer: offers(deflate + ";client_max_window_bits=9")},
		{name: "deflate without an offer", answer: offers(deflate)},
		{name: "deflate with a wrong parameter", offer: offers(deflate), answer: offers(deflate + "; server_max_window_bits=99; x")},
		{name: "the old deflate of WebKit", offer: offers("x-webkit-deflate-frame"), answer: offers("x-webkit-deflate-frame; no_context_takeover")},
		{name: "two extensions", offer: offers("x-one; a=1, x-two"), answer: offers("x-one; a=2, x-two")},
		{name: "extensions in two lines", offer: offers("x-one", "x-two; b"), answer: offers("x-two", "x-one")},
		{name: "an extension that nobody knows", offer: offers(`x-foo; bar="a, b"`), answer: offers(`x-foo; bar="a, b"`)},
		{name: "an extension and a subprotocol", offer: append(offers(deflate), protocol+"mqtt"), answer: append(offers(deflate), protocol+"mqtt")},
		{name: "cookies", offer: []string{"Cookie: a=1; b=2", "Origin: weapp://x"}, answer: []string{cookie + "a=1; Path=/", cookie + "b=2; HttpOnly"}},
	}
	for i := range list {
		list[i].name = "negotiation: " + list[i].name
		list[i].only = clientOnly
		list[i].script, list[i].want = scripted(text("hello"), bye()), "text:5 close:1000"
	}
	return list
}
