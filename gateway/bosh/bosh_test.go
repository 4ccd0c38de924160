package bosh

import (
	"strings"
	"testing"
)

const ns = "xmlns='http://jabber.org/protocol/httpbind'"

func TestParse(t *testing.T) {
	long := strings.Repeat("x", MaxTag)
	cases := []struct {
		name, text string
		form       Form
		want       Outcome
		tag        Tag // but for sidEnd
	}{
		{name: "creation", text: "<body " + ns + " rid='1' to='h' wait='60' hold='1'/>", want: Found},
		{name: "session", text: `<body sid="abc" rid="1" xmlns="x"><message/></body>`, want: Found, tag: Tag{SID: "abc"}},
		{name: "attributes", text: "<body type='terminate' condition='host-gone' inactivity='30' sid='s'></body>", want: Found,
			tag: Tag{SID: "s", Type: "terminate", Condition: "host-gone", Inactivity: "30"}},
		{name: "space everywhere", text: "\r\n\t <body\n sid \t=\r\n 's' \n/>", want: Found, tag: Tag{SID: "s"}},
		{name: "declaration", text: "<?xml version='1.0' encoding='UTF-8'?>\n<body sid='s'>", want: Found, tag: Tag{SID: "s"}},
		{name: "byte order mark", text: "\xef\xbb\xbf<body sid='s'>", want: Found, tag: Tag{SID: "s"}},
		{name: "quotes within quotes", text: `<body a="it's > x" sid='"'>`, want: Found, tag: Tag{SID: `"`}},
		{name: "references stay", text: "<body sid='a&amp;b'/>", want: Found, tag: Tag{SID: "a&amp;b"}},
		{name: "prefixed attributes", text: "<body xmpp:version='1.0' xmlns:xmpp='urn:xmpp:xbosh' x:sid='no' sid='s'>", want: Found, tag: Tag{SID: "s"}},
		{name: "no attributes", text: "<body>", want: Found},
		{name: "what follows does not matter", text: "<body sid='s'>< sid='t'>\x00", want: Found, tag: Tag{SID: "s"}},
		{name: "empty sid", text: "<body sid=''/>", want: Found},
		{name: "script", text: `_BOSH_("<body sid='s' a=\"b\"/>")`, form: Script, want: Found, tag: Tag{SID: "s"}},
		{name: "script, escaped", text: `_BOSH_("<body a='b' sid=\"s\"\/>")`, form: Script, want: Found, tag: Tag{SID: "s"}},
		{name: "script, without call", text: `<body sid='s'/>`, form: Script, want: None},

		{name: "nothing", text: "", want: More},
		{name: "white space", text: " \n", want: More},
		{name: "half a mark", text: "\xef\xbb", want: More},
		{name: "half a declaration", text: "<?xml version='1.0'", want: More},
		{name: "half a name", text: "<bod", want: More},
		{name: "half an attribute", text: "<body si", want: More},
		{name: "half a value", text: "<body sid='abc", want: More},
		{name: "half an end", text: "<body sid='abc'/", want: More},
		{name: "half a script", text: `_BOSH_("<body sid=\`, form: Script, want: More},

		{name: "not XML", text: "hello", want: None},
		{name: "another element", text: "<html>", want: None},
		{name: "a longer name", text: "<bodyguard sid='s'>", want: None},
		{name: "a prefixed name", text: "<b:body sid='s'>", want: None},
		{name: "a comment", text: "<!-- --><body sid='s'>", want: None},
		{name: "a document type", text: "<!DOCTYPE body><body sid='s'>", want: None},
		{name: "upper case", text: "<BODY SID='s'>", want: None},
		{name: "two sids", text: "<body sid='a' sid='b'>", want: None},
		{name: "no quotes", text: "<body sid=abc>", want: None},
		{name: "no value", text: "<body sid>", want: None},
		{name: "no space", text: "<body a='b'sid='s'>", want: None},
		{name: "a tag in a value", text: "<body sid='<'>", want: None},
		{name: "an unfinished value with a tag", text: "<body sid='<", want: None},
		{name: "a stray slash", text: "<body / sid='s'>", want: None},
		{name: "too long", text: "<body a='" + long + "' sid='s'>", want: None},
		{name: "too long, unfinished", text: "<body a='" + long, want: None},
		{name: "too much space", text: strings.Repeat(" ", MaxTag), want: None},
		{name: "script quotes in a plain one", text: `<body sid=\"s\">`, want: None},
	}
	for _, c := range cases {
		got, out := Parse([]byte(c.text), c.form)
		got.sidEnd = 0
		if out != c.want || got != c.tag {
			t.Errorf("%s: %+v %v, want %+v %v", c.name, got, out, c.tag, c.want)
		}
	}
}

func TestWithSID(t *testing.T) {
	for _, c := range []struct {
		text, sid, want string
		form            Form
	}{
		{text: "<body rid='1' sid='abc' x='abc'><a/></body>", sid: "z", want: "<body rid='1' sid='z' x='abc'><a/></body>"},
		{text: `<body sid="abc"/>`, sid: "a longer one", want: `<body sid="a longer one"/>`},
		{text: `_BOSH_("<body sid=\"abc\"/>")`, sid: "z", want: `_BOSH_("<body sid=\"z\"/>")`, form: Script},
		{text: `_BOSH_("<body sid='abc'/>")`, sid: "z", want: `_BOSH_("<body sid='z'/>")`, form: Script},
	} {
		tag, out := Parse([]byte(c.text), c.form)
		if out != Found {
			t.Fatalf("%s: %v", c.text, out)
		}
		if got := string(tag.WithSID([]byte(c.text), c.sid)); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

func TestMarks(t *testing.T) {
	a, b := Mark("xmpp", "node1"), Mark("xmpp", "node2")
	if a == b || a == Mark("xmpp2", "node1") || a == Mark("xmp", "pnode1") {
		t.Error("marks of different nodes are the same")
	}
	if want := "g42nvagxoc"; a != want { // gateways of different versions must agree
		t.Errorf("the mark is %q, want %q", a, want)
	}
	for _, c := range []struct{ sid, own, mark string }{
		{"abc", "abc", ""},
		{"", "", ""},
		{Join("abc", a), "abc", a},
		{Join(Join("abc", a), b), "abc~" + a, b},
		{"~" + a, "~" + a, ""}, // nothing is left without it
		{"abc~" + strings.ToUpper(a), "abc~" + strings.ToUpper(a), ""},
		{"abc~" + a[1:], "abc~" + a[1:], ""},
		{"abc-" + a, "abc-" + a, ""},
	} {
		if own, mark := Split(c.sid); own != c.own || mark != c.mark {
			t.Errorf("%q: %q %q, want %q %q", c.sid, own, mark, c.own, c.mark)
		}
	}
}

// Whatever is sent: the same is found in any part that is long enough, nothing
// beyond the tag matters, and a changed session id is found where the old one was.
func FuzzParse(f *testing.F) {
	f.Add([]byte("<body sid='abc' rid=\"1\"/>"), false)
	f.Add([]byte(`_BOSH_("<body sid=\"abc\"\/>")`), true)
	f.Add([]byte("\xef\xbb\xbf <?xml version='1.0'?>\n<body a = 'b'\nsid='s~'></body>"), false)
	f.Fuzz(func(t *testing.T, text []byte, script bool) {
		form := Plain
		if script {
			form = Script
		}
		tag, out := Parse(text, form)
		if out != Found {
			for n := range min(len(text), 500) { // nor was it found earlier
				if _, earlier := Parse(text[:n], form); earlier == Found {
					t.Fatalf("found in %q, not in %q", text[:n], text)
				}
			}
			return
		}
		if longer, out := Parse(append(text[:len(text):len(text)], "<x sid='no'>"...), form); out != Found || longer != tag {
			t.Fatalf("%+v became %+v %v", tag, longer, out)
		}
		if tag.SID == "" {
			return
		}
		changed := tag.WithSID(text, Join(tag.SID, Mark("s", "n")))
		again, out := Parse(changed, form)
		if len(changed) <= MaxTag && (out != Found || again.SID != Join(tag.SID, Mark("s", "n"))) {
			t.Fatalf("%q: %+v %v", changed, again, out)
		}
		if own, mark := Split(again.SID); out == Found && (own != tag.SID || mark == "") {
			t.Fatalf("%q splits into %q %q", again.SID, own, mark)
		}
		if back := again.WithSID(changed, tag.SID); out == Found && string(back) != string(text) {
			t.Fatalf("%q became %q", text, back)
		}
	})
}
