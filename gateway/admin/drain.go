package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"

	"singlegate/gateway"
)

// What a request to drain may be.
const (
	maxBody      = 4 << 10
	maxPerSecond = 100_000
)

// A DrainRequest is the body of /api/drain and, without PerSecond, of
// /api/undrain.
type DrainRequest struct {
	Service   string `json:"service,omitempty"` // "": the only one that has the node
	Node      string `json:"node"`              // its id, or one of its names
	PerSecond int    `json:"per_second,omitempty"`
}

func drain(w http.ResponseWriter, r *http.Request, gw Gateway) {
	req, ok := readDrain(w, r)
	if !ok {
		return
	}
	if req.PerSecond < 0 || req.PerSecond > maxPerSecond {
		refuse(w, http.StatusBadRequest, "bad_request",
			fmt.Sprintf("per_second is %d, expected 1 to %d, or 0 for the service's own pace", req.PerSecond, maxPerSecond))
		return
	}
	err := gw.Drain(req.Service, req.Node, req.PerSecond)
	note(r, gw, "drain", req, err)
	answer(w, err, "draining")
}

func undrain(w http.ResponseWriter, r *http.Request, gw Gateway) {
	req, ok := readDrain(w, r)
	if !ok {
		return
	}
	if req.PerSecond != 0 {
		refuse(w, http.StatusBadRequest, "bad_request", "per_second is for /api/drain")
		return
	}
	err := gw.Undrain(req.Service, req.Node)
	note(r, gw, "undrain", req, err)
	answer(w, err, "open")
}

// note tells the audit log who has done what.
func note(r *http.Request, gw Gateway, action string, req DrainRequest, err error) {
	client, _ := netip.ParseAddrPort(r.RemoteAddr) // of a socket: it is one
	gw.NoteAdmin(gateway.AdminAction{
		Action: action, Client: client, Service: req.Service, Node: req.Node, PerSecond: req.PerSecond, Err: err,
	})
}

// answer says what has become of a node.
func answer(w http.ResponseWriter, err error, status string) {
	switch {
	case err == nil:
		reply(w, http.StatusAccepted, map[string]string{"status": status})
	case errors.Is(err, gateway.ErrNoNode):
		refuse(w, http.StatusNotFound, "no_node", err.Error()+"; /api/nodes lists those there are")
	case errors.Is(err, gateway.ErrSeveralNodes):
		refuse(w, http.StatusConflict, "several_nodes", err.Error())
	default:
		refuse(w, http.StatusInternalServerError, "failed", err.Error())
	}
}

// readDrain reads the body of a request, or refuses it.
func readDrain(w http.ResponseWriter, r *http.Request) (req DrainRequest, ok bool) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		refuse(w, http.StatusUnsupportedMediaType, "not_json", "the body must be sent as Content-Type: application/json")
		return req, false
	}
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&req)
	if err == nil {
		if _, err = decoder.Token(); err == nil {
			err = errors.New("something follows it")
		} else if err == io.EOF {
			err = nil
		}
	}
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		refuse(w, http.StatusRequestEntityTooLarge, "body_too_large", fmt.Sprintf("the body is larger than %d bytes", maxBody))
	case err != nil:
		refuse(w, http.StatusBadRequest, "bad_request", `expected one JSON object such as {"service": "im", "node": "node1"}: `+err.Error())
	case req.Node == "":
		refuse(w, http.StatusBadRequest, "bad_request", `"node" is missing: the node's id, or one of its names`)
	default:
		return req, true
	}
	return req, false
}
