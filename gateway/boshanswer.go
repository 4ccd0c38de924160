package gateway

import (
	"github.com/valyala/fasthttp"
)

// Why a session ends that the gateway ends (XEP-0124 section 17.2). These answers
// have the status 200: clients drop the session on 400 and above, or try the same
// again, and only the condition tells them what to do.
func boshMalformed() *problem {
	return &problem{status: 200, code: "bosh_malformed", condition: "bad-request",
		en: "The request is no BOSH message.", zh: "请求不是有效的 BOSH 消息。"}
}

func boshUnknownSession() *problem {
	return &problem{status: 200, code: "bosh_unknown_session", condition: "item-not-found",
		en: "The session id does not say which node has the session.", zh: "会话标识中没有节点信息。"}
}

func boshNodeGone() *problem {
	return &problem{status: 200, code: "bosh_node_gone", condition: "remote-connection-failed",
		en: "The node of the session is gone.", zh: "会话所在的节点已不存在。"}
}

// writeBOSH answers with a message that ends the session, in the form in which
// the client asks.
func (p *problem) writeBOSH(ctx *fasthttp.RequestCtx) {
	message := "<body xmlns='http://jabber.org/protocol/httpbind' type='terminate' condition='" + p.condition + "'/>"
	if ctx.IsGet() {
		ctx.Response.Header.SetContentType("text/javascript; charset=utf-8")
		ctx.Response.SetBodyString(`_BOSH_("` + message + `")`)
		return
	}
	ctx.Response.Header.SetContentType("text/xml; charset=utf-8")
	ctx.Response.SetBodyString(message)
}

// refuseBOSH makes a refusal on a BOSH route one that a page of another origin can
// read: without CORS headers it would see no status at all, and with a preflight
// that fails not even send the request that would tell it more. Nothing in it is
// secret. A policy of the route comes first. It returns what the client gets.
func (r *request) refuseBOSH(p *problem) *problem {
	r.server.metrics.bosh.refused(r.match.route.Service, p)
	if r.answerCORS() != nil {
		return p // refuse sees to it
	}
	resp := &r.ctx.Response
	h := &resp.Header
	origin := headerOf(r.ctx, "Origin")
	if len(origin) == 0 {
		h.Set("Access-Control-Allow-Origin", "*")
		return p
	}
	h.Set("Access-Control-Allow-Origin", printable(string(origin)))
	h.Set("Access-Control-Allow-Credentials", "true")
	h.Add("Vary", "Origin")
	if r.method != fasthttp.MethodOptions || len(headerOf(r.ctx, "Access-Control-Request-Method")) == 0 {
		return p
	}
	preflight := *p
	preflight.status = fasthttp.StatusNoContent
	resp.ResetBody()
	h.SetContentType("")
	resp.SetStatusCode(preflight.status)
	h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
	if asked := headerOf(r.ctx, "Access-Control-Request-Headers"); len(asked) > 0 {
		h.Set("Access-Control-Allow-Headers", printable(string(asked)))
	}
	return &preflight
}
