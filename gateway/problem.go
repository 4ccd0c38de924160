package gateway

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"
)

// Codes that others than clients go by.
const (
	codeTLSHandshake     = "tls_handshake"
	codeAuditUnavailable = "audit_unavailable"
)

// A problem is an answer that the gateway makes itself because it cannot do
// what was asked. The text says what to do, and nothing of how the inside looks.
type problem struct {
	status  int
	code    string // short and stable, for programs: "node_unknown"
	en, zh  string
	retry   int   // Retry-After in seconds; 0: none
	cause   error // for the log only
	endConn bool  // the connection cannot carry another request

	fields    []field // further headers
	body      []byte  // of somebody else's answer, which fields describe; nil: ours
	allow     string  // the methods that are allowed, of a 405
	condition string  // the answer is a BOSH message that ends the session with this condition
}

func (p *problem) because(err error) *problem {
	q := *p
	q.cause = err
	return &q
}

// allowing is the problem with the methods that are allowed instead.
func (p *problem) allowing(methods string) *problem {
	q := *p
	q.allow = methods
	return &q
}

func (p *problem) naming(args ...any) *problem {
	q := *p
	q.en, q.zh = fmt.Sprintf(p.en, args...), fmt.Sprintf(p.zh, args...)
	return &q
}

// closeCode is the WebSocket close code that says the same (RFC 6455 section 7.4.1).
func (p *problem) closeCode() uint16 {
	if p.status >= 500 || p.status == fasthttp.StatusTooManyRequests {
		return 1013
	}
	return 1008
}

// Every problem there is. A status of 502, 503 or 504 is about a node or the
// gateway, one of 400 to 499 about the request.
func badRequest(err error) *problem {
	return (&problem{status: 400, code: "bad_request", endConn: true,
		en: "The request is malformed: %s.", zh: "请求格式有误：%s。"}).naming(err).because(err)
}

func badHandshake(detail string) *problem {
	return (&problem{status: 400, code: "bad_handshake", endConn: true,
		en: "This is not a valid WebSocket handshake: %s.", zh: "WebSocket 握手无效：%s。"}).naming(detail)
}

func wrongVersion() *problem {
	return &problem{status: 426, code: "websocket_version", endConn: true,
		en: "Only WebSocket version 13 is spoken here.", zh: "此处只支持 WebSocket 版本 13。"}
}

func headTooLarge(limit int) *problem {
	return (&problem{status: 431, code: "head_too_large", endConn: true,
		en: "The request head is larger than %d bytes.", zh: "请求头超过 %d 字节。"}).naming(limit)
}

func headTimeout() *problem {
	return &problem{status: 408, code: "head_timeout", endConn: true,
		en: "The request did not arrive in time.", zh: "请求未在规定时间内到达。"}
}

func versionRefused() *problem {
	return &problem{status: 505, code: "version_not_supported", endConn: true,
		en: "Only HTTP/1.1 and HTTP/1.0 are spoken here.", zh: "此处只支持 HTTP/1.1 和 HTTP/1.0。"}
}

func methodRefused(method string) *problem {
	return (&problem{status: 405, code: "method_not_allowed", endConn: true, allow: "GET, HEAD",
		en: "The method %s is not allowed here.", zh: "此处不允许使用 %s 方法。"}).naming(method)
}

func expectationFailed() *problem {
	return &problem{status: 417, code: "expectation_failed", endConn: true,
		en: "Only \"Expect: 100-continue\" is understood.", zh: "只支持 “Expect: 100-continue”。"}
}

func noRoute() *problem {
	return &problem{status: 404, code: "no_route",
		en: "Nothing is served under this address.", zh: "该地址下没有任何服务。"}
}

func notFound() *problem {
	return &problem{status: 404, code: "not_found",
		en: "There is no such file.", zh: "文件不存在。"}
}

func nodeUnknown(name string) *problem {
	return (&problem{status: 404, code: "node_unknown",
		en: "There is no node %q.", zh: "没有名为 %q 的节点。"}).naming(name)
}

// portChanged has the status that lets clients ask again on another connection
// (RFC 9110 section 15.5.20).
func portChanged() *problem {
	return &problem{status: 421, code: "port_changed", endConn: true,
		en: "This port serves something else since this connection was opened: connect again.", zh: "此连接建立之后，该端口已改作他用，请重新连接。"}
}

func originRefused() *problem {
	return &problem{status: 403, code: "origin_refused",
		en: "The page's origin may not open this connection.", zh: "不允许该来源(Origin)的页面建立此连接。"}
}

func addressRefused() *problem {
	return &problem{status: 403, code: "address_refused",
		en: "This may not be used from your address.", zh: "不允许从您的地址访问。"}
}

func corsRefused() *problem {
	return &problem{status: 403, code: "cors_refused",
		en: "Pages of this origin may not ask for this.", zh: "不允许该来源(Origin)的页面访问。"}
}

// bodyTooLarge comes after so many bytes as are allowed.
func bodyTooLarge(limit int64) *problem {
	return (&problem{status: 413, code: "body_too_large", endConn: true,
		en: "The request's body is larger than %d bytes.", zh: "请求体超过 %d 字节。"}).naming(limit)
}

func rangeRefused() *problem {
	return &problem{status: 416, code: "range_not_satisfiable",
		en: "The requested range is not in the file.", zh: "请求的范围不在文件之内。"}
}

func noSnapshot(service string) *problem {
	return (&problem{status: 503, code: "no_snapshot", retry: 2,
		en: "Nothing is known yet of the nodes of %q.", zh: "尚未获知服务 %q 的节点。"}).naming(service)
}

func noTagRoutes() *problem {
	return &problem{status: 503, code: "no_snapshot", retry: 2,
		en: "Not every route is known yet, and none that is serves this address.", zh: "路由尚未全部获知，已知的路由中没有该地址。"}
}

func nodeDown(name string) *problem {
	return (&problem{status: 503, code: "node_down", retry: 5,
		en: "The node %q cannot be reached.", zh: "节点 %q 无法连接。"}).naming(name)
}

func nodeClosed(name string) *problem {
	return (&problem{status: 503, code: "node_draining", retry: 30,
		en: "The node %q takes no new connections: it is in maintenance or being drained.", zh: "节点 %q 正在维护或排空，不接受新连接。"}).naming(name)
}

func noNode(service string) *problem {
	return (&problem{status: 503, code: "no_node", retry: 5,
		en: "The service %q has no node at present.", zh: "服务 %q 目前没有可用节点。"}).naming(service)
}

func upstreamFailed() *problem {
	return &problem{status: 502, code: "upstream_failed",
		en: "The node did not give a usable answer.", zh: "节点没有给出有效的应答。"}
}

func noneReached(service string) *problem {
	return (&problem{status: 502, code: "no_node_reached",
		en: "No node of %q could be reached.", zh: "服务 %q 的节点都无法连接。"}).naming(service)
}

// loopDetected has the status of RFC 5842 section 7.2.
func loopDetected() *problem {
	return &problem{status: 508, code: "loop_detected",
		en: "The node's address leads back to the gateway. Its operator has to correct that address.", zh: "节点的地址指回了网关自身，请运维人员更正该地址。"}
}

func upstreamTimeout() *problem {
	return &problem{status: 504, code: "upstream_timeout",
		en: "The node did not answer in time.", zh: "节点未在规定时间内应答。"}
}

func overloaded() *problem {
	return &problem{status: 503, code: "overloaded", retry: spread(5), endConn: true,
		en: "The gateway has no capacity for another connection.", zh: "网关已无法接受更多连接。"}
}

func gatewayFull() *problem {
	return &problem{status: 503, code: "gateway_full", retry: spread(5),
		en: "The gateway has as many connections as it may have; try again in a while.", zh: "网关的连接数已达上限，请稍后再试。"}
}

func nodeFull(name string) *problem {
	return (&problem{status: 503, code: "node_full", retry: spread(5),
		en: "The node %q has as many connections as it may have; try again in a while.", zh: "节点 %q 的连接数已达上限，请稍后再试。"}).naming(name)
}

func serviceFull(service string) *problem {
	return (&problem{status: 503, code: "service_full", retry: spread(5),
		en: "No node of %q has room for another connection; try again in a while.", zh: "服务 %q 没有节点能再接受连接，请稍后再试。"}).naming(service)
}

func noPort() *problem {
	return &problem{status: 503, code: "no_local_port", retry: spread(5),
		en: "The gateway has no local port left for another connection to the node; try again in a while.", zh: "网关已没有可用于连接该节点的本地端口，请稍后再试。"}
}

// spread is a number of seconds between the least and three times as many, so
// that clients who were refused together do not come back together.
func spread(least int) int { return least + rand.N(2*least+1) }

// handshakeFailure reaches nobody: there is no connection to answer on.
func handshakeFailure() *problem {
	return &problem{status: 400, code: codeTLSHandshake, endConn: true,
		en: "The TLS handshake failed.", zh: "TLS 握手失败。"}
}

// clientLeft reaches only a client that has ended its sending and reads on; its
// status is that of nginx's logs.
func clientLeft() *problem {
	return &problem{status: 499, code: "client_left", endConn: true,
		en: "The client left.", zh: "客户端已断开。"}
}

// auditUnavailable says nothing of why: that is for the operator.
func auditUnavailable() *problem {
	return &problem{status: 503, code: codeAuditUnavailable, retry: spread(5),
		en: "The gateway must not serve anything at present, as it could not be noted; try again in a while.", zh: "网关目前无法写入审计日志，按规定暂停服务，请稍后再试。"}
}

func stopping() *problem {
	return &problem{status: 503, code: "stopping", retry: 1, endConn: true,
		en: "The gateway is stopping.", zh: "网关正在停止。"}
}

func internalError() *problem {
	return &problem{status: 500, code: "internal_error", endConn: true,
		en: "An internal error ended this request.", zh: "内部错误，请求已终止。"}
}

// write fills the response: short JSON, or a plain page for a browser that asks
// for one, in Chinese or English as the client prefers.
func (p *problem) write(ctx *fasthttp.RequestCtx, requestID string) {
	resp := &ctx.Response
	contentRange := resp.Header.Peek("Content-Range") // of a 416, see RFC 9110 section 15.5.17
	contentRange = append([]byte(nil), contentRange...)
	resp.Reset()
	if len(contentRange) > 0 {
		resp.Header.SetBytesV("Content-Range", contentRange)
	}
	resp.SetStatusCode(p.status)
	h := &resp.Header
	h.Set("X-Request-Id", requestID)
	h.Set("Cache-Control", "no-store")
	protect(h, nothingPolicy)
	if p.retry > 0 {
		h.Set("Retry-After", strconv.Itoa(p.retry))
	}
	if p.status == fasthttp.StatusUpgradeRequired {
		h.Set("Sec-WebSocket-Version", "13")
	}
	if p.allow != "" {
		h.Set("Allow", p.allow)
	}
	if p.condition != "" {
		p.writeBOSH(ctx)
		return
	}
	for _, f := range p.fields {
		h.Add(f.name, f.value)
	}
	if p.body != nil {
		resp.SetBody(p.body)
		return
	}
	chinese := prefersChinese(headerOf(ctx, "Accept-Language"))
	if wantsPage(headerOf(ctx, "Accept")) {
		h.SetContentType("text/html; charset=utf-8")
		h.Set("Content-Security-Policy", problemPolicy())
		resp.SetBodyString(p.page(requestID, chinese))
		return
	}
	h.SetContentType("application/json; charset=utf-8")
	resp.SetBody(p.json(requestID, chinese))
}

// headerOf is the first header of that name, whatever its case: fasthttp's Peek
// compares by letter, and many clients write their headers in lower case.
func headerOf(ctx *fasthttp.RequestCtx, name string) []byte {
	for k, v := range ctx.Request.Header.All() {
		if strings.EqualFold(string(k), name) {
			return v
		}
	}
	return nil
}

func (p *problem) text(chinese bool) string {
	if chinese {
		return p.zh
	}
	return p.en
}

func (p *problem) json(requestID string, chinese bool) []byte {
	body, _ := json.Marshal(struct {
		Error     string `json:"error"`
		Message   string `json:"message"`
		Status    int    `json:"status"`
		RequestID string `json:"request_id"`
	}{p.code, p.text(chinese), p.status, requestID})
	return append(body, '\n')
}

const problemStyle = `body{font:16px/1.6 system-ui,sans-serif;max-width:36rem;margin:18vh auto;padding:0 1.5rem;color:#222}
h1{font-size:1.25rem}code{color:#666;font-size:.85rem}
@media(prefers-color-scheme:dark){body{background:#16181c;color:#ddd}code{color:#999}}`

const problemPage = `<!doctype html>
<html lang="%s"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>%d</title>
<style>%s</style>
<h1>%d %s</h1><p>%s</p><p><code>%s %s</code></p></html>
`

func (p *problem) page(requestID string, chinese bool) string {
	lang, label := "en", "Request"
	if chinese {
		lang, label = "zh-CN", "请求编号"
	}
	title := fasthttp.StatusMessage(p.status)
	return fmt.Sprintf(problemPage, lang, p.status, problemStyle, p.status, html.EscapeString(title),
		html.EscapeString(p.text(chinese)), label, html.EscapeString(requestID))
}

// prefersChinese reads an Accept-Language: the first of English and Chinese in
// it counts, since browsers list languages in the order of their weights.
func prefersChinese(accept []byte) bool {
	for tag := range bytes.SplitSeq(bytes.ToLower(accept), []byte(",")) {
		tag = bytes.TrimSpace(tag)
		if bytes.HasPrefix(tag, []byte("zh")) {
			return true
		}
		if bytes.HasPrefix(tag, []byte("en")) {
			return false
		}
	}
	return false
}

// wantsPage tells browsers that navigate from programs.
func wantsPage(accept []byte) bool {
	return bytes.Contains(bytes.ToLower(accept), []byte("text/html"))
}
