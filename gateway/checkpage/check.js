// The connection check: loads the list of entries the gateway serves beside this
// page, opens a WebSocket to each of them and shows what came of it. This file
// holds the state; probe.js makes connections, view.js shows.

import { addressOf, blockedByBrowser, checkHTTP, explain, openSocket, sentence, withoutSecrets } from './probe.js';
import * as view from './view.js';

const maxUnanswered = 16; // messages of one connection whose round trip is being measured

const { byId } = view;
const state = {
  tables: {}, // strings by language
  language: 'en',
  entries: [], // as the gateway gave them
  checks: [], // one per entry, plus one for the other address
  options: { protocol: '', append: '', custom: '' },
};

// A check is one entry and what is known of it. state: idle, connecting, open,
// closed or failed; tone: good, warn or bad, how to take that; reached: whether
// its latest attempt opened; attempt: counts up, so that a late event of an
// earlier connection is told apart.
function newCheck(entry, id) {
  return { id: String(id), entry, state: 'idle', tone: '', said: [], ms: undefined, link: null, sentAt: [], reached: false, attempt: 0 };
}

function newChecks() {
  const custom = state.options.custom;
  const other = custom ? [{ custom: true, node: 'custom', service: '', url: custom, kind: 'websocket' }] : [];
  state.checks.forEach(hangUp);
  state.checks = [...other, ...state.entries].map(newCheck);
  view.buildList(state.checks, { check: run, disconnect: (check) => check.link.close() });
  state.checks.forEach(show);
  showTotals();
}

function hangUp(check) {
  check.attempt++;
  if (check.link) check.link.close();
  check.link = null;
  check.sentAt = [];
}

// update changes a check and shows it.
function update(check, change) {
  Object.assign(check, change);
  show(check);
}

function show(check) {
  view.showCheck(check, shownAddress(check.entry));
  showTotals();
}

function showTotals() {
  view.showSummary(count());
  view.showTargets(state.checks);
}

function shownAddress(entry) {
  try {
    return decodeURI(addressFor(entry).href);
  } catch {
    return entry.url;
  }
}

const addressFor = (entry) => addressOf(entry, state.options.append, location.href);

function count() {
  const of = (kind) => {
    const checks = state.checks.filter((check) => (check.entry.kind === 'http') === (kind === 'http'));
    return {
      total: checks.length,
      open: checks.filter((check) => check.reached).length,
      busy: checks.filter((check) => check.state === 'connecting').length,
    };
  };
  const webSockets = state.checks.filter((check) => check.entry.kind !== 'http');
  const nodes = new Set(webSockets.map(({ entry }) => `${entry.service}/${entry.node}`));
  const everyNodeOnce = nodes.size === webSockets.length && webSockets.every(({ entry }) => entry.node);
  return { webSocket: of('websocket'), http: of('http'), everyNodeOnce };
}

// runAll checks everything. Browsers open one WebSocket at a time to an address
// and let the others wait, so the checks of one host queue here: the times shown
// are then those of the connections and not of the queue.
async function runAll() {
  const queues = new Map();
  for (const check of state.checks) {
    hangUp(check);
    update(check, { state: 'connecting', tone: '', said: [], ms: undefined, reached: false });
    const host = hostOf(check.entry);
    queues.set(host, [...(queues.get(host) || []), check]);
  }
  await Promise.all([...queues.values()].map(runInTurn));
}

function hostOf(entry) {
  try {
    return addressFor(entry).host;
  } catch {
    return '';
  }
}

async function runInTurn(checks) {
  const turns = checks.map((check) => [check, check.attempt]);
  for (const [check, attempt] of turns) {
    if (check.attempt === attempt) await run(check); // else it was started anew meanwhile
  }
}

// run checks one entry. It resolves when the next of the same host may start.
async function run(check) {
  hangUp(check);
  update(check, { state: 'connecting', tone: '', said: [], ms: undefined, reached: false });
  let url;
  try {
    url = addressFor(check.entry);
  } catch {
    return fail(check, [sentence('badAddress', { address: withoutSecrets(check.entry.url) })]);
  }
  if (check.entry.kind === 'http') return runHTTP(check, url);
  return runWebSocket(check, url);
}

function fail(check, said) {
  update(check, { state: 'failed', tone: 'bad', said, link: null });
}

async function runHTTP(check, url) {
  const { attempt } = check;
  const outcome = await checkHTTP(url);
  if (check.attempt === attempt) update(check, { ...outcome, reached: outcome.state === 'open' });
}

function runWebSocket(check, url) {
  const { attempt } = check;
  const current = (act) => (...given) => check.attempt === attempt && act(...given);
  return new Promise((resolve) => {
    const settle = (act) => (...given) => (resolve(), current(act)(...given));
    try {
      check.link = openSocket(url, protocols(), {
        opened: settle((ms, protocol) => opened(check, ms, protocol)),
        failed: settle((said) => fail(check, said)),
        refused: settle(() => askWhy(check, url)),
        message: current((data) => received(check, data)),
        closed: current((ending) => closed(check, ending)),
      });
    } catch {
      resolve(fail(check, [blockedByBrowser(url) || sentence('badProtocol', { protocol: state.options.protocol })]));
    }
  });
}

const protocols = () => state.options.protocol.split(',').map((p) => p.trim()).filter(Boolean);

function opened(check, ms, protocol) {
  const said = [sentence('opened', { time: ms })];
  if (protocol) said.push(sentence('negotiated', { protocol }));
  update(check, { state: 'open', tone: 'good', ms, said, reached: true });
}

async function askWhy(check, url) {
  const { attempt } = check;
  update(check, { said: [sentence('asking')], link: null });
  const said = await explain(url);
  if (check.attempt === attempt) fail(check, said);
}

function closed(check, { tone, said }) {
  const refused = tone === 'bad';
  update(check, { state: refused ? 'failed' : 'closed', tone, said, link: null, sentAt: [], reached: !refused });
}

function received(check, data) {
  const sentAt = check.sentAt.shift();
  view.showMessage(check, data, sentAt === undefined ? undefined : performance.now() - sentAt);
}

// send sends the message box to the chosen connection, or to all that are open.
function send(event) {
  event.preventDefault();
  const data = byId('format').value === 'hex' ? parseHex(byId('text').value) : byId('text').value;
  if (data === null) return hint('badHex');
  const chosen = byId('target').value;
  const targets = state.checks.filter((c) => c.link && c.state === 'open' && (chosen === '' || c.id === chosen));
  targets.forEach((check) => sendTo(check, data));
  return targets.length ? hint('sentTo', { count: targets.length }) : hint('nobodyOpen');
}

function sendTo(check, data) {
  check.sentAt = [...check.sentAt, performance.now()].slice(-maxUnanswered);
  check.link.send(data);
}

function parseHex(text) {
  const digits = text.replace(/\s+/g, '');
  if (!/^([0-9a-f]{2})+$/i.test(digits)) return null;
  return Uint8Array.from(digits.match(/../g), (pair) => parseInt(pair, 16));
}

function hint(key, values) {
  byId('send-hint').textContent = view.word(key, values);
}

// report is the outcome in plain text, for a colleague. It holds no values of
// query parameters: they may be tokens.
function report() {
  const { protocol, append } = state.options;
  const line = (key, value) => view.word('reportLine', { label: sentence(key), value });
  return [
    view.word('reportTitle'),
    line('reportTime', localTime(new Date())),
    line('reportPage', withoutSecrets(location.origin + location.pathname)),
    line('reportBrowser', navigator.userAgent),
    line('reportProtocol', protocol || view.word('protocolNone')),
    line('reportAppend', withoutSecrets(append) || view.word('protocolNone')),
    '',
    view.summaryText(count()),
    ...state.checks.map(reportCheck),
    '',
  ].join('\n');
}

function reportCheck(check) {
  const { entry } = check;
  const name = [entry.service, view.nameOf(entry), entry.route].filter(Boolean).join(' ');
  const url = withoutSecrets(shownAddress(entry));
  return `\n[${check.row.querySelector('.pill').textContent}] ${name}\n  ${url}\n  ${view.paragraph(check.said)}`;
}

// localTime is RFC 3339 in the reader's own zone.
function localTime(now) {
  const offset = -now.getTimezoneOffset();
  const pad = (n) => String(Math.floor(Math.abs(n))).padStart(2, '0');
  const local = new Date(now.getTime() + offset * 60_000).toISOString().slice(0, 19);
  return `${local}${offset < 0 ? '-' : '+'}${pad(offset / 60)}:${pad(offset % 60)}`;
}

async function copyReport() {
  const done = await copyText(report());
  byId('copy').textContent = view.word(done ? 'copied' : 'copyFailed');
  setTimeout(() => (byId('copy').textContent = view.word('copyReport')), 2000);
}

// copyText also works on a page that came over plain http, where browsers offer
// no clipboard object.
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text);
  }
}

function copyBySelection(text) {
  const area = document.createElement('textarea');
  area.className = 'offscreen';
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand('copy');
  area.remove();
  byId('copy').focus();
  return done;
}

// The options and the language live in the address, so that a link carries them.
function readHash() {
  const hash = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(state.options)) {
    state.options[name] = hash.get(name) || '';
    byId(name).value = state.options[name];
  }
  const asked = hash.get('lang') || navigator.language || 'en';
  state.language = /^zh/i.test(asked) ? 'zh' : 'en';
}

function writeHash() {
  const hash = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of Object.entries(state.options)) {
    if (value) hash.set(name, value);
    else hash.delete(name);
  }
  history.replaceState(null, '', `#${hash}`);
}

function switchLanguage() {
  state.language = state.language === 'zh' ? 'en' : 'zh';
  const hash = new URLSearchParams(location.hash.slice(1));
  hash.set('lang', state.language);
  history.replaceState(null, '', `#${hash}`);
  speak();
  state.checks.forEach(show);
  showTotals();
}

function speak() {
  view.speak(state.tables[state.language], state.language);
  byId('send-hint').textContent = '';
}

function applyOptions(event) {
  if (event) event.preventDefault();
  for (const name of Object.keys(state.options)) state.options[name] = byId(name).value.trim();
  writeHash();
  showOptions();
  newChecks();
  runAll();
}

function showOptions() {
  const { protocol, append, custom } = state.options;
  byId('chosen').textContent = [protocol, withoutSecrets(append), withoutSecrets(custom)].filter(Boolean).join(' · ');
  document.querySelectorAll('.preset').forEach((button) => {
    button.setAttribute('aria-pressed', String(button.dataset.preset === byId('protocol').value.trim()));
  });
}

function listen() {
  byId('check-all').onclick = runAll;
  byId('copy').onclick = copyReport;
  byId('language').onclick = switchLanguage;
  byId('options-form').onsubmit = applyOptions;
  byId('send-form').onsubmit = send;
  byId('protocol').oninput = showOptions;
  document.querySelectorAll('.preset').forEach((button) => {
    button.onclick = () => {
      byId('protocol').value = button.dataset.preset;
      applyOptions();
    };
  });
  window.onhashchange = () => {
    readHash();
    speak();
    applyOptions();
  };
}

async function loadJSON(name) {
  const response = await fetch(name, { cache: 'no-store' });
  if (!response.ok) throw new Error(`${name}: HTTP ${response.status}`);
  return response.json();
}

function notice(text) {
  byId('summary').textContent = '';
  byId('notice').textContent = text;
  byId('notice').hidden = false;
}

async function start() {
  byId('host').textContent = location.host;
  readHash();
  state.tables = await loadJSON('strings.json');
  speak();
  listen();
  try {
    state.entries = (await loadJSON('nodes.json')).entries || [];
  } catch (error) {
    return notice(view.word('loadFailed', { cause: error.message }));
  }
  if (state.entries.length === 0) notice(view.word('noEntries'));
  showOptions();
  newChecks();
  document.documentElement.dataset.ready = 'true';
  runAll();
}

start().catch((error) => notice(String(error))); // without strings there are no better words
