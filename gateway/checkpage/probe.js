// Opens WebSockets and makes plain requests, and puts what happened into
// sentences. A sentence is {key, values}: a key of strings.json and what to fill
// in. Nothing here touches the page.

const handshakeLimit = 15_000; // ms; more than the 10 s a gateway gives a node
const requestLimit = 10_000; // ms
const maxAnswer = 4096; // bytes of an answer that are read for its message
const refusalWithin = 2_000; // ms; a Close so soon after opening is a refusal

export const sentence = (key, values = {}) => ({ key, values });

// addressOf returns the URL an entry is checked under: its own on the page's
// host when it is only a path, in the scheme of its kind, with extra appended.
// It throws a TypeError for what is not an address.
export function addressOf(entry, extra, page) {
  const url = new URL(entry.url, page);
  const secure = url.protocol === 'https:' || url.protocol === 'wss:';
  if (!secure && url.protocol !== 'http:' && url.protocol !== 'ws:') throw new TypeError('scheme');
  url.hash = '';
  return append(inScheme(url, entry.kind === 'http' ? 'http' : 'ws', secure), extra);
}

function inScheme(url, scheme, secure) {
  return new URL(scheme + (secure ? 's:' : ':') + url.href.slice(url.protocol.length));
}

function append(url, extra) {
  if (!extra) return url;
  const cut = extra.indexOf('?');
  const path = cut < 0 ? extra : extra.slice(0, cut);
  const query = cut < 0 ? '' : extra.slice(cut + 1);
  const joined = new URL(url);
  if (path) joined.pathname = url.pathname.replace(/\/$/, '') + '/' + path.replace(/^\//, '');
  if (query) joined.search = url.search ? url.search + '&' + query : '?' + query;
  return joined;
}

// withoutSecrets returns an address in which credentials, the values of the query
// and query items that are values alone are blotted out.
export function withoutSecrets(url) {
  return String(url)
    .replace(/\/\/[^/?#@]*@/, '//…@')
    .replace(/([?&])(?:([^=&#]*=)[^&#]*|[^=&#]+(?=[&#]|$))/g, '$1$2…');
}

// openSocket opens a WebSocket and calls on.opened(ms, protocol), on.message(data)
// and at last on.closed(ending), or, when it does not open, either
// on.failed(sentences) or on.refused(): the browser does not say why, explain
// may. It returns {send, close}.
export function openSocket(url, protocols, on) {
  const started = performance.now();
  let openedAt = 0;
  let closedHere = false;
  let timedOut = false;
  const socket = new WebSocket(url, protocols);
  const timer = setTimeout(() => {
    timedOut = true;
    socket.close();
  }, handshakeLimit);
  socket.binaryType = 'arraybuffer';
  socket.onopen = () => {
    clearTimeout(timer);
    openedAt = performance.now();
    on.opened(openedAt - started, socket.protocol);
  };
  socket.onmessage = (event) => on.message(event.data);
  socket.onclose = (event) => {
    clearTimeout(timer);
    if (openedAt) on.closed(judgeClose(event, performance.now() - openedAt, closedHere));
    else if (timedOut) on.failed([sentence('timeout', { time: handshakeLimit })]);
    else on.refused();
  };
  return {
    send: (data) => socket.send(data),
    close: () => {
      closedHere = true;
      socket.close(1000);
    },
  };
}

// judgeClose says how a WebSocket that had opened ended: a tone (good, warn or
// bad) and sentences.
function judgeClose(event, after, closedHere) {
  if (closedHere) return { tone: 'good', said: [sentence('closedHere', { after })] };
  const { code } = event;
  const values = { after, code, meaning: meaningOf(code) };
  const reason = event.reason ? [sentence('reason', { reason: event.reason })] : [];
  if (code === 1000 || code === 1005) {
    return { tone: 'good', said: [sentence('closedWorks', values), sentence('silentClients'), ...reason] };
  }
  if (code === 1006) return { tone: 'warn', said: [sentence('closedCut', values)] };
  if (after < refusalWithin && (code === 1008 || code === 1013)) {
    return { tone: 'bad', said: [sentence('closedRefused', values), ...reason] };
  }
  return { tone: 'warn', said: [sentence('closedOther', values), ...reason] };
}

const namedCodes = [1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011, 1012, 1013, 1014];

function meaningOf(code) {
  return sentence(namedCodes.includes(code) ? `code${code}` : 'codeOther');
}

// explain finds out why a handshake failed, which a browser does not tell: it
// asks the same address in plain HTTP. It returns sentences.
export async function explain(url) {
  const known = blockedByBrowser(url);
  if (known) return [known];
  const plain = inScheme(url, 'http', url.protocol === 'wss:');
  const answer = await request(plain);
  if (answer.response) return explainAnswer(answer.response);
  return answer.hidden ? [sentence('hidden'), sentence('askProtocol'), sentence('hiddenStatus')] : unreachable(plain);
}

// blockedByBrowser returns why the browser would not even try, or undefined.
export function blockedByBrowser(url) {
  if (badPorts.has(Number(url.port))) return sentence('badPort', { port: url.port });
  const plain = url.protocol === 'ws:' || url.protocol === 'http:';
  if (plain && location.protocol === 'https:' && !isLoopback(url.hostname)) return sentence('mixed');
  return undefined;
}

function isLoopback(host) {
  return host === 'localhost' || host.endsWith('.localhost') || host === '[::1]' || /^127\./.test(host);
}

function unreachable(plain) {
  const why = plain.protocol === 'https:' ? sentence('unreachableTLS', { origin: plain.origin }) : sentence('unreachable');
  return [sentence('noAnswer'), why];
}

async function explainAnswer(response) {
  if (response.type === 'opaqueredirect') return [sentence('redirected')];
  const { status } = response;
  if (![401, 403, 404, 429].includes(status) && status < 500) {
    return [sentence('refused', { status }), sentence('askProtocol')];
  }
  const said = await gatewayWords(response);
  return [statusSentence(status), ...said];
}

const namedStatus = [401, 403, 404, 429, 502, 503, 504];

function statusSentence(status) {
  return namedStatus.includes(status) ? sentence(`http${status}`) : sentence('httpError', { status });
}

// gatewayWords returns what the gateway's JSON answer says, if it is one.
async function gatewayWords(response) {
  try {
    const answer = JSON.parse(await readStart(response));
    const said = [];
    if (typeof answer.message === 'string') said.push(sentence('gatewaySays', { message: answer.message.replace(/[.。]$/, '') }));
    if (typeof answer.request_id === 'string') said.push(sentence('requestID', { id: answer.request_id }));
    return said;
  } catch {
    return []; // not JSON, or cut off: the status has to do
  }
}

async function readStart(response) {
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return text;
    text += decoder.decode(value, { stream: true });
    if (text.length > maxAnswer) {
      reader.cancel();
      return text;
    }
  }
}

// request makes a plain GET. It returns {response, ms}, or {hidden: true, ms}
// when another origin answers and the browser keeps the answer to itself, or {}
// when nothing answers.
async function request(url) {
  const started = performance.now();
  const options = { cache: 'no-store', credentials: 'same-origin', redirect: 'manual' };
  try {
    const response = await limited((signal) => fetch(url, { ...options, signal }));
    return { response, ms: performance.now() - started };
  } catch {
    if (url.origin === location.origin) return {};
  }
  try {
    await limited((signal) => fetch(url, { ...options, redirect: 'follow', mode: 'no-cors', signal }));
    return { hidden: true, ms: performance.now() - started };
  } catch {
    return {};
  }
}

// limited runs a request that is given up when its head does not come in time.
// Its body may still be read for as long again.
async function limited(start) {
  const abort = new AbortController();
  setTimeout(() => abort.abort(), 2 * requestLimit);
  const timer = setTimeout(() => abort.abort(), requestLimit);
  try {
    return await start(abort.signal);
  } finally {
    clearTimeout(timer);
  }
}

// checkHTTP checks an HTTP entry: {state, tone, ms, said}.
export async function checkHTTP(url) {
  const blocked = blockedByBrowser(url);
  if (blocked) return { state: 'failed', tone: 'bad', said: [blocked] };
  const { response, hidden, ms } = await request(url);
  if (hidden) return { state: 'open', tone: 'warn', ms, said: [sentence('answeredHidden', { time: ms })] };
  if (!response) return { state: 'failed', tone: 'bad', said: unreachable(url) };
  const { status, type } = response;
  if (type === 'opaqueredirect') return { state: 'open', tone: 'good', ms, said: [sentence('answered', { status: '3xx', time: ms })] };
  const answered = sentence('answered', { status, time: ms });
  if (status === 404 || status >= 500) {
    return { state: 'failed', tone: 'bad', ms, said: [statusSentence(status), ...(await gatewayWords(response))] };
  }
  if (status >= 400) return { state: 'open', tone: 'warn', ms, said: [answered, sentence('answeredOddly')] };
  return { state: 'open', tone: 'good', ms, said: [answered] };
}

// badPorts are the ports that browsers never use (the Fetch standard, "port
// blocking"); 10080 is one of them.
const badPorts = new Set([
  1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111, 113, 115, 117,
  119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636,
  989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
]);
