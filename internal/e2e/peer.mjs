// The list of cases that peer-server.mjs and peer-client.mjs play with each
// other, and what both of them write down.
//
// A case: {name, path, protocols, options, server, client}. options are those of
// the ws client; server says what the server does, client(socket) what the client
// does once it is open.

import { createHash } from 'node:crypto';

// digest stands for a payload in a transcript.
export function digest(data) {
  const bytes = Buffer.isBuffer(data) ? data : Buffer.from(data);
  return `${bytes.length} bytes ${createHash('sha256').update(bytes).digest('hex').slice(0, 16)}`;
}

// shown is what a transcript has of a message: short texts as they are.
export function shown(data, binary) {
  return binary || data.length > 200 ? digest(data) : data.toString();
}

// noise is the same seemingly random bytes on every run: nothing compresses them.
export function noise(length) {
  const bytes = Buffer.alloc(length);
  let x = 0x2545f491;
  for (let i = 0; i < length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    bytes[i] = x;
  }
  return bytes;
}

const MiB = 1 << 20;
const words = (length) => 'the same words again and again, '.repeat(Math.ceil(length / 32)).slice(0, length);

// sendAndLeave sends messages, awaits as many, and closes with 1000.
const sendAndLeave = (...messages) => (socket) => {
  let left = messages.length;
  socket.on('message', () => --left || socket.close(1000, 'done'));
  for (const message of messages) socket.send(message);
};

const leaveOn = (event) => (socket) => socket.once(event, () => socket.close(1000, 'done'));
const deflate = { perMessageDeflate: true };

const serverCloses = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999].map((code) => ({
  name: `server closes with ${code}`,
  server: { close: { code, reason: `because of ${code}` } },
}));

const clientCloses = [1000, 1001, 1008, 1011, 3000, 4999].map((code) => ({
  name: `client closes with ${code}`,
  server: {},
  client: (socket) => socket.close(code, `because of ${code}`),
}));

const refusals = [
  { status: 200, headers: ['Content-Type: text/plain'], body: 'a page' },
  { status: 302, headers: ['Location: https://login.example.gov/?next=%2Fws'], body: '' },
  { status: 400, headers: ['Content-Type: application/json'], body: '{"error":"bad"}' },
  { status: 401, headers: ['WWW-Authenticate: Bearer realm="im", error="invalid_token"', 'X-Reason: expired'], body: 'log in' },
  { status: 403, headers: ['Set-Cookie: a=1; Path=/', 'Set-Cookie: b=2; HttpOnly', 'Content-Type: text/html'], body: '<p>no</p>' },
  { status: 404, headers: [], body: '' },
  { status: 429, headers: ['Retry-After: 7'], body: 'slowly' },
  { status: 503, headers: ['Retry-After: 120', 'Content-Type: text/plain; charset=utf-8'], body: '稍后再试' },
].map((refusal) => ({ name: `refused with ${refusal.status}`, server: { refuse: refusal } }));

export const cases = [
  { name: 'text', server: { echo: true }, client: sendAndLeave('hello') },
  { name: 'text in Chinese', server: { echo: true }, client: sendAndLeave('你好，世界 🌏') },
  { name: 'empty text', server: { echo: true }, client: sendAndLeave('') },
  { name: 'binary', server: { echo: true }, client: sendAndLeave(noise(1000)) },
  { name: 'empty binary', server: { echo: true }, client: sendAndLeave(Buffer.alloc(0)) },
  { name: 'lengths around the header sizes', server: { echo: true }, client: sendAndLeave(...[1, 125, 126, 127, 65535, 65536].map(noise)) },
  { name: 'text and binary mixed', server: { echo: true }, client: sendAndLeave('a', noise(2), 'b', noise(3)) },
  { name: '300 messages at once', server: { echo: true }, client: sendAndLeave(...Array.from({ length: 300 }, (_, i) => `message ${i}`)) },
  { name: '1 MiB', server: { echo: true }, client: sendAndLeave(noise(MiB)) },
  { name: '5 MiB', server: { echo: true }, client: sendAndLeave(noise(5 * MiB)) },
  { name: '5 MiB of text', server: { echo: true }, client: sendAndLeave(words(5 * MiB)) },

  { name: 'fragments from the client', server: { echo: true }, client: fragments },
  { name: 'fragments with a ping between', server: { echo: true }, client: (socket) => fragments(socket, true) },
  { name: 'fragments from the server', server: { fragments: true }, client: leaveOn('message') },

  { name: 'ping from the client', server: {}, client: (socket) => (socket.ping('are you there'), leaveOn('pong')(socket)) },
  { name: 'empty ping from the client', server: {}, client: (socket) => (socket.ping(), leaveOn('pong')(socket)) },
  { name: 'ping from the server', server: { ping: 'are you there' }, client: leaveOn('message') },
  { name: 'unasked pongs', server: { echo: true, pong: 'unasked' }, client: (socket) => (socket.pong('also unasked'), sendAndLeave('x')(socket)) },

  { name: 'deflate text', options: deflate, server: { echo: true, deflate: true }, client: sendAndLeave(words(100_000), words(100_000)) },
  { name: 'deflate binary', options: deflate, server: { echo: true, deflate: true }, client: sendAndLeave(noise(100_000)) },
  { name: 'deflate 5 MiB', options: deflate, server: { echo: true, deflate: true }, client: sendAndLeave(words(5 * MiB)) },
  {
    name: 'deflate without context takeover',
    options: { perMessageDeflate: { clientNoContextTakeover: true, serverNoContextTakeover: true, clientMaxWindowBits: 10, serverMaxWindowBits: 11 } },
    server: { echo: true, deflate: true },
    client: sendAndLeave(words(5000), words(5000)),
  },
  { name: 'deflate fragments', options: deflate, server: { echo: true, deflate: true }, client: fragments },
  { name: 'deflate offered in vain', options: deflate, server: { echo: true }, client: sendAndLeave(words(5000)) },

  { name: 'one subprotocol', protocols: ['mqtt'], server: { echo: true, protocol: 'mqtt' }, client: sendAndLeave('x') },
  { name: 'the second of three subprotocols', protocols: ['a', 'xmpp', 'c'], server: { protocol: 'xmpp', greet: 'hello' }, client: leaveOn('message') },
  { name: 'no subprotocol chosen', protocols: ['a', 'b'], server: { protocol: false } },
  { name: 'a subprotocol nobody offered', protocols: ['a'], server: { protocol: 'other' } },

  { name: 'the server speaks first', server: { greet: 'hello' }, client: leaveOn('message') },
  { name: 'the server speaks and closes at once', server: { greet: 'hello', close: { code: 4000, reason: 'that was all' } } },
  { name: 'cookies on the 101', server: { headers: ['Set-Cookie: a=1; Path=/', 'Set-Cookie: b=2; HttpOnly', 'X-Node: one'], greet: 'x' }, client: leaveOn('message') },
  {
    name: 'headers of the client',
    options: { headers: { Authorization: 'Bearer abc', Cookie: 'sid=1; x=2', 'User-Agent': 'peer/1', 'X-Custom': 'kept' }, origin: 'https://web.example.gov' },
    server: { tellHeaders: true },
    client: leaveOn('message'),
  },
  { name: 'path and query as they are', path: '/a%20b/%E4%BD%A0/c;d=1?token=a%2Fb+c&x=%41&&y', server: { tellTarget: true }, client: leaveOn('message') },

  ...serverCloses,
  { name: 'server closes without a code', server: { close: {} } },
  { name: 'server closes with the longest reason', server: { close: { code: 1000, reason: 'r'.repeat(123) } } },
  { name: 'server closes with a reason in Chinese', server: { close: { code: 1008, reason: '会话已过期，请重新登录' } } },
  ...clientCloses,
  { name: 'client closes without a code', server: {}, client: (socket) => socket.close() },
  { name: 'both close', server: { close: { code: 4001, reason: 'server' } }, client: (socket) => socket.close(4002, 'client') },
  { name: 'server terminates', server: { terminateOn: 'x' }, client: (socket) => socket.send('x') },
  { name: 'client terminates', server: { echo: true }, client: (socket) => (socket.send('x'), socket.once('message', () => socket.terminate())) },
  { name: 'too big for the server', server: { maxPayload: 1000 }, client: (socket) => socket.send(noise(1001)) },
  { name: 'text that is not UTF-8', server: { echo: true }, client: (socket) => socket.send(Buffer.from([0xc3, 0x28]), { binary: false }) },

  ...refusals,
];

function fragments(socket, ping = false) {
  socket.on('message', () => socket.close(1000, 'done'));
  socket.send(words(3000), { fin: false });
  if (ping) socket.ping('between');
  socket.send(words(70_000), { fin: false });
  socket.send('', { fin: false });
  socket.send('end', { fin: true });
}
