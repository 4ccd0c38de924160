// A WebSocket to one node that comes back by itself.
//
// States: connecting → open → waiting → connecting …, and stopped at the end.
// Every wait is bounded, and no more than one connection and one timer of
// each kind exist at any time.

const FIRST_WAIT = 1000;       // ms before the first reconnect, at most
const LONGEST_WAIT = 30000;    // ms between two attempts, at most
const CONNECT_TIMEOUT = 10000; // ms for one attempt
const STABLE = 30000;          // ms open after which the next wait is short again

// What a close code means for us. A code that is not listed is a lost connection
// (1006, or whatever the phone makes of it): come back.
const REASONS = {
  1000: {stop: true, text: 'the node ended the session'},
  1001: {stop: false, text: 'the gateway is restarting'},
  1008: {stop: true, text: 'refused: unknown node, or not allowed'},
  1012: {stop: false, text: 'the node is restarting'},
  1013: {stop: false, text: 'the node is down, try again later'}
};

function reasonOf(code) {
  return REASONS[code] || {stop: false, text: 'connection lost'};
}

// backoff is the wait before attempt n (0, 1, 2 …): anything between nothing and
// a limit that doubles. The spread keeps thousands of clients, all cut off at the
// same moment, from coming back at the same moment.
function backoff(n, random = Math.random) {
  const limit = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** Math.min(n, 10));
  return Math.round(random() * limit);
}

// createSocket connects at once and returns {send, wake, stop}.
//   url        wss://host/ws/node1
//   protocols  subprotocols to offer, if any
//   heartbeat  {seconds, data}: what to send when, and how silence is noticed
//   onState    (state, detail): connecting | open | waiting | stopped
//   onMessage  (data): string or ArrayBuffer
function createSocket({url, protocols = [], heartbeat = {seconds: 0}, onState = () => {}, onMessage = () => {}}) {
  let current = null;    // {task} of the attempt that counts; events of earlier ones are ignored
  let state = 'connecting';
  let attempt = 0;
  let openedAt = 0;
  let heardAt = 0;
  let retryTimer = null;
  let beatTimer = null;

  function become(next, detail = '') {
    state = next;
    onState(next, detail);
  }

  function connect() {
    clearTimeout(retryTimer);
    const mine = {task: null};
    current = mine;
    become('connecting');
    if (current !== mine) return; // onState has stopped us
    const options = {url, timeout: CONNECT_TIMEOUT, fail: () => ended(mine, {code: 1006})};
    if (protocols.length > 0) options.protocols = protocols;
    const task = wx.connectSocket(options);
    if (!task) {
      ended(mine, {code: 1006, reason: 'no socket: five are open already?'});
      return;
    }
    mine.task = task;
    task.onOpen(() => opened(mine));
    task.onMessage(({data}) => heard(mine, data));
    task.onError(() => ended(mine, {code: 1006}));
    task.onClose((event) => ended(mine, event));
  }

  function opened(mine) {
    if (mine !== current) return;
    openedAt = heardAt = Date.now();
    startBeat(mine);
    become('open');
  }

  function heard(mine, data) {
    if (mine !== current) return;
    heardAt = Date.now();
    onMessage(data);
  }

  // ended is called once or twice per attempt: some phones report an error and a
  // close, some only one of the two.
  function ended(mine, {code, reason}) {
    if (mine !== current) return;
    current = null;
    clearInterval(beatTimer);
    if (openedAt > 0 && Date.now() - openedAt > STABLE) attempt = 0;
    openedAt = 0;

    const why = reasonOf(code);
    const detail = `${code} ${reason || why.text}`;
    if (why.stop) {
      become('stopped', detail);
      return;
    }
    const wait = backoff(attempt++);
    retryTimer = setTimeout(connect, wait);
    become('waiting', `${detail}; again in ${Math.ceil(wait / 1000)} s`);
  }

  function startBeat(mine) {
    clearInterval(beatTimer);
    if (!(heartbeat.seconds > 0)) return;
    const every = heartbeat.seconds * 1000;
    beatTimer = setInterval(() => {
      if (Date.now() - heardAt > 2 * every) {
        abandon(mine);
        return;
      }
      mine.task.send({data: heartbeat.data});
    }, every);
  }

  // abandon gives up a connection that says nothing any more; its close may never come.
  function abandon(mine) {
    ended(mine, {code: 1006, reason: 'silence'});
    mine.task.close({code: 1000});
  }

  connect();

  return {
    // send reports whether the message was handed to an open connection.
    send(data) {
      if (state !== 'open') return false;
      current.task.send({data});
      return true;
    },

    // wake reconnects now instead of after the wait: the network is back, or the
    // mini-program is in front again.
    wake() {
      if (state !== 'waiting') return;
      attempt = 0;
      connect();
    },

    // stop is final. It tells the node with close code 1000.
    stop() {
      if (state === 'stopped') return;
      const mine = current;
      current = null;
      clearTimeout(retryTimer);
      clearInterval(beatTimer);
      become('stopped', 'by the user');
      if (mine && mine.task) mine.task.close({code: 1000, reason: 'bye'});
    }
  };
}

module.exports = {createSocket, backoff, reasonOf};
