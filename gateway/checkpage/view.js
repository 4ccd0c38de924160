// Shows checks and messages: turns the state that check.js holds into elements.
// All data goes in as text, never as markup.

const maxMessages = 100; // items in the list of messages
const maxShown = 2000; // characters of one message
const maxHex = 256; // bytes of one binary message

let strings = {}; // of the chosen language

export const byId = (id) => document.getElementById(id);

// speak chooses the table of strings and puts the fixed texts of the page in it.
export function speak(table, language) {
  strings = table;
  document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';
  document.title = `${table.title} · ${location.host}`;
  fill('[data-text]', (e) => (e.textContent = table[e.dataset.text]));
  fill('[data-label]', (e) => e.setAttribute('aria-label', table[e.dataset.label]));
  fill('[data-placeholder]', (e) => (e.placeholder = table[e.dataset.placeholder]));
  const other = byId('language');
  other.textContent = table.otherLanguage;
  other.lang = language === 'zh' ? 'en' : 'zh-CN';
}

function fill(selector, set) {
  document.querySelectorAll(selector).forEach(set);
}

// say puts a sentence, {key, values}, into words. Values named time and after
// are milliseconds; a value may itself be a sentence.
export function say({ key, values = {} }) {
  return strings[key].replace(/\{(\w+)\}/g, (_, name) => shown(name, values[name]));
}

export const word = (key, values) => say({ key, values });

function shown(name, value) {
  if (name === 'time' || name === 'after') return duration(value);
  return value && value.key ? say(value) : String(value);
}

export function duration(ms) {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 120_000 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 60_000)} min`;
}

// paragraph joins sentences as the language does.
export function paragraph(said) {
  return said.map(say).join(between());
}

const between = () => (document.documentElement.lang === 'en' ? ' ' : '');

export function nameOf(entry) {
  if (entry.custom) return word('customNode');
  return entry.node || word('anyNode');
}

// buildList replaces the list by one row per check, grouped by service, and
// gives each check its row and its tick.
export function buildList(checks, actions) {
  const groups = new Map();
  const ticks = byId('ticks');
  ticks.replaceChildren();
  for (const check of checks) {
    const service = check.entry.service || '';
    if (!groups.has(service)) groups.set(service, newGroup(service));
    check.row = newRow(check, actions);
    check.tick = ticks.appendChild(document.createElement('i'));
    groups.get(service).querySelector('ul').append(check.row);
  }
  byId('nodes').replaceChildren(...groups.values());
}

const stamp = (id) => byId(id).content.firstElementChild.cloneNode(true);

function newGroup(service) {
  const group = stamp('group-template');
  const title = group.querySelector('h2');
  title.textContent = service;
  title.hidden = service === '';
  return group;
}

function newRow(check, actions) {
  const row = stamp('entry-template');
  row.dataset.node = check.entry.node;
  row.querySelector('.check').onclick = () => actions.check(check);
  row.querySelector('.disconnect').onclick = () => actions.disconnect(check);
  return row;
}

// showCheck brings a check's row and tick up to date.
export function showCheck(check, address) {
  const { row, tick, entry } = check;
  const part = (selector) => row.querySelector(selector);
  row.dataset.state = tick.dataset.state = check.state;
  row.dataset.tone = tick.dataset.tone = check.tone;
  part('.pill').textContent = stateWord(check);
  part('strong').textContent = nameOf(entry);
  part('.route').textContent = entry.route || '';
  part('.url').textContent = address;
  showOutcome(part('.outcome'), check.said);
  part('.time').textContent = check.ms === undefined ? '' : duration(check.ms);
  showButton(part('.check'), 'check', 'checkNode', entry);
  showButton(part('.disconnect'), 'disconnect', 'disconnectNode', entry);
  part('.disconnect').hidden = !check.link || check.state !== 'open';
}

// showOutcome sets the first sentence, the verdict, apart from the advice.
function showOutcome(outcome, [verdict, ...advice]) {
  outcome.replaceChildren();
  if (!verdict) return;
  const first = document.createElement('span');
  first.className = 'verdict';
  first.textContent = say(verdict);
  outcome.append(first, advice.length ? between() + paragraph(advice) : '');
}

function showButton(button, key, labelKey, entry) {
  button.textContent = word(key);
  button.setAttribute('aria-label', word(labelKey, { node: `${nameOf(entry)} ${entry.route || ''}`.trim() }));
}

function stateWord(check) {
  if (check.state === 'open' && check.entry.kind === 'http') return word('stateAnswered');
  return word('state' + check.state[0].toUpperCase() + check.state.slice(1));
}

// showSummary says how many of the checks opened.
export function showSummary(counts) {
  const summary = byId('summary');
  const { open, total, busy } = counts.webSocket;
  summary.dataset.open = open;
  summary.dataset.total = total;
  summary.dataset.tone = busy ? 'busy' : toneOf(open, total);
  summary.setAttribute('aria-busy', String(busy > 0)); // read out once, at the end
  summary.textContent = summaryText(counts);
  const http = byId('summary-http');
  http.hidden = counts.http.total === 0;
  http.textContent = word('summaryHTTP', counts.http);
}

export function summaryText({ webSocket, everyNodeOnce }) {
  const { open, total, busy } = webSocket;
  if (total === 0) return word('summaryNone');
  if (busy) return word('summaryChecking', { done: total - busy, total });
  return word(everyNodeOnce ? 'summaryNodes' : 'summaryPoints', { open, total });
}

function toneOf(open, total) {
  if (total === 0) return 'idle';
  if (open === total) return 'good';
  return open === 0 ? 'bad' : 'warn';
}

// showTargets offers the checks that are open to send to, keeping the choice.
export function showTargets(checks) {
  const select = byId('target');
  const chosen = select.value;
  const open = checks.filter((check) => check.link && check.state === 'open');
  const all = new Option(`${word('targetAll')} (${open.length})`, '');
  select.replaceChildren(all, ...open.map((c) => new Option(`${nameOf(c.entry)} ${c.entry.route || ''}`, c.id)));
  select.value = [...select.options].some((o) => o.value === chosen) ? chosen : '';
}

// showMessage puts a message on top of the list, which is bounded. roundTrip is
// undefined when nothing had been sent.
export function showMessage(check, data, roundTrip) {
  const item = stamp('message-template');
  const list = byId('messages');
  const now = new Date();
  item.dataset.from = check.entry.node;
  item.querySelector('strong').textContent = nameOf(check.entry);
  const trip = item.querySelector('.round-trip');
  trip.dataset.answer = roundTrip !== undefined;
  trip.textContent = roundTrip === undefined ? word('unasked') : word('roundTrip', { time: roundTrip });
  item.querySelector('time').dateTime = now.toISOString();
  item.querySelector('time').textContent = now.toLocaleTimeString([], { hour12: false });
  item.querySelector('pre').textContent = typeof data === 'string' ? data.slice(0, maxShown) : hexDump(data);
  list.prepend(item);
  while (list.children.length > maxMessages) list.lastElementChild.remove();
  byId('messages-empty').hidden = true;
}

function hexDump(buffer) {
  const bytes = [...new Uint8Array(buffer, 0, Math.min(buffer.byteLength, maxHex))];
  const hex = bytes.map((b) => b.toString(16).padStart(2, '0')).join(' ');
  return `${hex}${buffer.byteLength > maxHex ? ' …' : ''}  (${word('binary', { bytes: buffer.byteLength })})`;
}
