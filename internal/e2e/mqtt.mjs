// mqtt.js as an MQTT client, led by the test through puppet.mjs.

import mqtt from 'mqtt';
import { obey, tell } from './puppet.mjs';

const clients = {};

obey({
  connect({ name, url, version }) {
    const client = mqtt.connect(url, { clientId: name, protocolVersion: version, reconnectPeriod: 200, connectTimeout: 20_000 });
    clients[name] = client;
    client.on('connect', () => tell({ name, event: 'connected' }));
    client.on('message', (topic, payload) => tell({ name, event: 'message', from: topic, text: payload.toString() }));
    client.on('close', () => tell({ name, event: 'closed' }));
    client.on('error', (error) => tell({ name, event: 'error', text: error.message }));
  },
  async subscribe({ name, to }) {
    await clients[name].subscribeAsync(to, { qos: 1 });
    tell({ name, event: 'subscribed', from: to });
  },
  async publish({ name, to, text }) {
    await clients[name].publishAsync(to, text, { qos: 1 }); // ends with the server's acknowledgement
    tell({ name, event: 'published', from: to, text });
  },
  async end({ name }) {
    await clients[name].endAsync();
    tell({ name, event: 'ended' });
  },
});
