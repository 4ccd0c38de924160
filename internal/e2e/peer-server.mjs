// A WebSocket server that does for each connection what its case says (the query
// parameter "case" is the number). It prints its port, then one JSON line per
// connection that has ended: what it saw.

import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';
import { cases, digest, shown } from './peer.mjs';

const print = (value) => process.stdout.write(JSON.stringify(value) + '\n');

function serverFor({ protocol, deflate, maxPayload }) {
  return new WebSocketServer({
    noServer: true,
    perMessageDeflate: deflate === true,
    maxPayload,
    handleProtocols: (offered) => protocol ?? [...offered][0],
  });
}

function play(socket, script, request, note) {
  socket.on('message', (data, binary) => {
    note('message', binary ? 'binary' : 'text', shown(data, binary));
    if (script.echo) socket.send(data, { binary });
    if (script.terminateOn === data.toString()) socket.terminate();
  });
  socket.on('ping', (data) => note('ping', digest(data)));
  socket.on('pong', (data) => {
    note('pong', digest(data));
    if (script.ping) socket.send('the pong has come');
  });
  socket.on('error', (error) => note('error', error.code ?? error.message));
  socket.on('close', (code, reason) => {
    note('close', code, reason.toString());
    note.end();
  });
  const { headers, url } = request;
  if (script.tellHeaders) {
    const { authorization, cookie, origin, 'user-agent': agent, 'x-custom': custom } = headers;
    socket.send(JSON.stringify({ authorization, cookie, origin, agent, custom, version: headers['sec-websocket-version'] }));
  }
  if (script.tellTarget) socket.send(url.replace(/[?&]case=\d+$/, ''));
  if (script.greet) socket.send(script.greet);
  if (script.pong) socket.pong(script.pong);
  if (script.ping) socket.ping(script.ping);
  if (script.fragments) ['one ', 'two ', 'three'].forEach((part, i) => socket.send(part, { fin: i === 2 }));
  if (script.close) socket.close(script.close.code, script.close.reason);
}

function refuse(socket, { status, headers, body }) {
  const length = Buffer.byteLength(body);
  socket.end([`HTTP/1.1 ${status} Whatever`, ...headers, `Content-Length: ${length}`, 'Connection: close', '', body].join('\r\n'));
}

const http = createServer((request, response) => response.writeHead(426).end());
http.on('upgrade', (request, socket, head) => {
  socket.on('error', () => {}); // the case notes what matters
  const number = Number(new URL(request.url, 'http://x').searchParams.get('case'));
  const { server: script } = cases[number];
  const events = [];
  const note = (...event) => events.push(event);
  note.end = () => print({ case: number, events });
  if (script.refuse) return refuse(socket, script.refuse);
  const server = serverFor(script);
  server.on('headers', (lines) => lines.push(...(script.headers ?? [])));
  server.handleUpgrade(request, socket, head, (ws) => play(ws, script, request, note));
});
http.listen(0, '127.0.0.1', () => print({ port: http.address().port }));
