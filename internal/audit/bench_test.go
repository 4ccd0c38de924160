package audit

import (
	"testing"
)

var benchLine = []byte(`{"time":"2026-11-21T21:30:11.123+08:00","event":"request","success":true,"request_id":"2f1c6a7be0d94c55","client":"203.0.113.77:51544","listener":"tls","method":"GET","host":"im.example.gov","path":"/ws/node1?token=[redacted]","route":"/ws/{node}","service":"im","status":200,"node":"node1","bytes_out":1432,"duration_ms":12.345}`)

// What noting a line costs the one who notes it.
func BenchmarkNote(b *testing.B) {
	l := &Log{lines: newQueue(queueLimit)}
	var spare []byte
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.Note(benchLine, false)
		if i%1000 == 0 { // the owner comes
			spare, _ = l.lines.take(spare)
		}
	}
	if l.Stats().Dropped > 0 {
		b.Fatal("lines were dropped")
	}
}

// What sealing a line costs the owner.
func BenchmarkSeal(b *testing.B) {
	s := sealer{hash: hashOf(chainPlain, nil)}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = s.append(out[:0], benchLine)
	}
}
