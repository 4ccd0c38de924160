// Plays every case against the address given: peer-client.mjs URL [CA-FILE].
// It prints one JSON line per case: what the client saw, in order.

import { readFileSync } from 'node:fs';
import WebSocket from 'ws';
import { cases, digest, shown } from './peer.mjs';

const [base, caFile] = process.argv.slice(2);
const ca = caFile ? readFileSync(caFile) : undefined;
const limit = 20_000; // ms for one case

// headersOf lists a head without what no two answers share, sorted by name;
// lines of one name keep their order.
function headersOf(response) {
  const list = [];
  for (let i = 0; i < response.rawHeaders.length; i += 2) {
    const name = response.rawHeaders[i].toLowerCase();
    if (name !== 'date' && name !== 'sec-websocket-accept') list.push([name, response.rawHeaders[i + 1]]);
  }
  return list.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
}

// refused notes an answer that is not a 101.
function refused(response, note, done) {
  const parts = [];
  response.on('data', (part) => parts.push(part));
  response.on('end', () => {
    note('refused', response.statusCode, headersOf(response), digest(Buffer.concat(parts)));
    done();
  });
}

function play(number) {
  const { path = '/', protocols = [], options = {}, client } = cases[number];
  const events = [];
  const note = (...event) => events.push(event);
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      resolve(events);
    };
    const url = `${base}${path}${path.includes('?') ? '&' : '?'}case=${number}`;
    const socket = new WebSocket(url, protocols, { perMessageDeflate: false, ca, ...options });
    const timer = setTimeout(() => {
      note('no end within', limit);
      socket.terminate();
      done();
    }, limit);
    socket.on('upgrade', (response) => note('upgrade', headersOf(response)));
    socket.on('open', () => {
      note('open', socket.protocol, socket.extensions);
      if (client) client(socket);
    });
    socket.on('message', (data, binary) => note('message', binary ? 'binary' : 'text', shown(data, binary)));
    socket.on('ping', (data) => note('ping', digest(data)));
    socket.on('pong', (data) => note('pong', digest(data)));
    socket.on('unexpected-response', (_, response) => refused(response, note, done));
    socket.on('error', (error) => note('error', error.code ?? error.message));
    socket.on('close', (code, reason) => {
      note('close', code, reason.toString());
      done();
    });
  });
}

for (let number = 0; number < cases.length; number++) {
  const events = await play(number);
  process.stdout.write(JSON.stringify({ case: number, name: cases[number].name, events }) + '\n');
}
