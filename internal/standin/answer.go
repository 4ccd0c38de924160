package standin

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
)

// problem is the JSON of an answer that is not what the client hoped for.
type problem struct {
	Node    string `json:"node"`
	Message string `json:"message"`
}

// answerJSON writes value as the whole answer.
func answerJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(encode(value))
}

// refuse answers with a status and the reason in words.
func (n *Node) refuse(w http.ResponseWriter, status int, message string) {
	answerJSON(w, status, problem{n.options.ID, message})
}

// version answers GET /api/version.
func (n *Node) version(w http.ResponseWriter) {
	answerJSON(w, http.StatusOK, struct {
		Node    string `json:"node"`
		Version string `json:"version"`
	}{n.options.ID, "standin"})
}

// encode makes JSON of the package's own types, which cannot fail, without
// escaping what only HTML would mind.
func encode(value any) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic("standin: " + err.Error())
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// rawPath and rawQuery are the two parts of the request target as it came over
// the wire, so that a test sees what a gateway made of it.
func rawPath(r *http.Request) string {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	return path
}

func rawQuery(r *http.Request) string {
	_, query, _ := strings.Cut(r.RequestURI, "?")
	return query
}
