// Runs the client of examples/wechat-miniprogram outside WeChat, on a wx made of
// npm's ws: wechat.mjs SOCKET.JS WSS-URL CA-FILE. It prints one JSON line per
// thing that happens, and ends when three nodes were visited: node1, which
// answers, node9, which does not exist, and node2, which is down at first and is
// started when it was called so.

import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import WebSocket from 'ws';

const [script, base, caFile] = process.argv.slice(2);
const ca = readFileSync(caFile);
Math.random = () => 0.1; // the client spreads its reconnects: here 100 ms, 200 ms …
setTimeout(() => process.exit(3), 20_000).unref();

// wx is as much of WeChat's object as the client uses. Like WeChat it tells
// nothing of a refused handshake.
globalThis.wx = {
  connectSocket({ url, protocols = [], timeout, fail }) {
    const socket = new WebSocket(url, protocols, { ca, handshakeTimeout: timeout });
    socket.on('error', () => fail && fail({ errMsg: 'connectSocket:fail' }));
    return {
      onOpen: (f) => socket.on('open', () => f({})),
      onMessage: (f) => socket.on('message', (data, binary) => f({ data: binary ? data.buffer : data.toString() })),
      onError: (f) => socket.on('error', (error) => f({ errMsg: error.message })),
      onClose: (f) => socket.on('close', (code, reason) => f({ code, reason: reason.toString() })),
      send: ({ data }) => socket.send(data),
      close: ({ code, reason }) => socket.close(code, reason),
    };
  },
};
const { createSocket } = createRequire(import.meta.url)(script);
const print = (line) => process.stdout.write(JSON.stringify(line) + '\n');

// visit goes to a node, says hello when it is open, and resolves when the client
// has stopped; it stops it after the echo.
function visit(node) {
  return new Promise((resolve) => {
    const socket = createSocket({
      url: `${base}/ws/${node}`,
      heartbeat: { seconds: 30, data: 'ping' },
      onState(state, detail) {
        print({ node, state, detail });
        if (state === 'open') queueMicrotask(() => socket.send('hello'));
        if (state === 'stopped') resolve();
      },
      onMessage(data) {
        print({ node, message: data });
        if (JSON.parse(data).echo === 'hello') socket.stop();
      },
    });
  });
}

await visit('node1');
await visit('node9');
await visit('node2');
process.exit(0);
