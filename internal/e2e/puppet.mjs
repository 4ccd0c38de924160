// The Node half of a test that leads a client step by step: commands come in as
// JSON, one a line, and events go out in the same way. Every command has a do.

import { createInterface } from 'node:readline';
import dns from 'node:dns';

// Names of example sites lead to this machine; what a client sends as Host and
// checks a certificate for stays the name.
const lookup = dns.lookup;
dns.lookup = (host, options, callback) => lookup(host.endsWith('.example.gov') ? '127.0.0.1' : host, options, callback);

// tell writes an event.
export function tell(event) {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

// obey runs the commands until the test ends the process.
export function obey(commands) {
  createInterface({ input: process.stdin }).on('line', (line) => {
    const command = JSON.parse(line);
    commands[command.do](command);
  });
  tell({ event: 'ready' });
}
