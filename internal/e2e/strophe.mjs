// strophe.js as XMPP clients over BOSH and WebSocket, led by the test through
// puppet.mjs. Each client does what an app does: it says that it is there, and
// when its session ends it begins another one, if the test wants that.

import http from 'node:http';
import https from 'node:https';
import { $msg, $pres, Strophe } from 'strophe.js';
import { obey, tell } from './puppet.mjs';

Strophe.setLogLevel(Strophe.LogLevel.FATAL); // what goes wrong is told as an event
const again = 200; // ms before a client begins another session

// Node has no XMLHttpRequest. This one has as much of it as strophe uses, keeps
// connections as browsers do, and tells how long each answer took.
globalThis.XMLHttpRequest = class {
  static agents = { 'http:': new http.Agent({ keepAlive: true }), 'https:': new https.Agent({ keepAlive: true }) };

  readyState = 0;
  status = 0;
  responseText = '';
  headers = {};

  open(method, url) {
    this.method = method;
    this.url = new URL(url);
    this.readyState = 1;
  }

  setRequestHeader(name, value) {
    this.headers[name] = value;
  }

  getAllResponseHeaders() {
    return '';
  }

  send(body) {
    const begun = Date.now();
    const done = (status, text) => {
      if (this.readyState === 4) return;
      Object.assign(this, { readyState: 4, status, responseText: text });
      if (status === 200 && text) this.responseXML = new DOMParser().parseFromString(text, 'text/xml');
      const found = /^<body[^>]*? condition=['"]([^'"]*)/.exec(text);
      tell({ event: 'answer', path: this.url.pathname, status, held: Date.now() - begun, text: found ? found[1] : '' });
      this.onreadystatechange();
    };
    const headers = { ...this.headers, 'Content-Length': Buffer.byteLength(body) };
    const agent = XMLHttpRequest.agents[this.url.protocol];
    const module = this.url.protocol === 'https:' ? https : http;
    this.request = module.request(this.url, { method: this.method, headers, agent }, (answer) => {
      let text = '';
      answer.setEncoding('utf8');
      answer.on('data', (part) => { text += part; });
      answer.on('end', () => done(answer.statusCode, text));
      answer.on('error', () => done(0, ''));
    });
    this.request.on('error', () => done(0, ''));
    this.request.end(body);
  }

  abort() {
    this.readyState = 4;
    this.request?.destroy();
  }
};

const statuses = Object.fromEntries(Object.entries(Strophe.Status).map(([name, code]) => [code, name]));
const clients = {};

// dial begins a session.
function dial(client) {
  const { name, url, jid, password, wait } = client;
  const connection = new Strophe.Connection(url, { keepalive: false });
  client.connection = connection;
  connection.addHandler((stanza) => {
    const body = stanza.getElementsByTagName('body')[0];
    if (body) tell({ name, event: 'message', from: stanza.getAttribute('from'), text: body.textContent });
    return true;
  }, null, 'message');
  connection.addHandler((stanza) => {
    tell({ name, event: 'presence', from: stanza.getAttribute('from'), text: stanza.getAttribute('type') ?? 'available' });
    return true;
  }, null, 'presence');
  connection.connect(jid, password, (status, condition) => {
    if (client.connection !== connection) return; // strophe may tell an end twice
    if (status === Strophe.Status.CONNECTED) connection.send($pres());
    tell({ name, event: statuses[status], text: condition ?? '', sid: connection._proto.sid ?? '' });
    if (status === Strophe.Status.DISCONNECTED) {
      client.connection = null;
      if (client.again) setTimeout(dial, again, client);
    }
  }, wait);
}

obey({
  connect(client) {
    clients[client.name] = client;
    dial(client);
  },
  say({ name, to, text }) {
    clients[name].connection.send($msg({ to, type: 'chat' }).c('body').t(text));
  },
  greet({ name, to }) { // presence for one other
    clients[name].connection.send($pres({ to }));
  },
  move({ name, url }) { // the session goes on, its next request goes elsewhere
    clients[name].url = url;
    clients[name].connection.service = url;
  },
  settle({ name }) { // tells when the client has said all and has one request held
    const { connection } = clients[name];
    const timer = setInterval(() => {
      if (connection._data.length > 0 || connection._proto._requests.length !== 1) return;
      clearInterval(timer);
      tell({ name, event: 'settled' });
    }, 10);
  },
  leave({ name }) {
    clients[name].again = false;
    clients[name].connection.disconnect('leave');
  },
});
