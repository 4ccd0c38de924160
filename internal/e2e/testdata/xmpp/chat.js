// Two clients of strophe.js, one over BOSH and one over WebSocket, who tell each
// other something once both are there. The fragment of the page's address names
// the site and the accounts: {site, clients: [{name, password, over, path}]};
// without a site it is the one that the page comes from.

'use strict';

const { Strophe, $msg, $pres } = window;
const wanted = JSON.parse(decodeURIComponent(location.hash.slice(1)));
const site = wanted.site || location.host;
document.getElementById('origin').textContent = location.origin;

const clients = wanted.clients.map((client) => {
  const row = document.querySelector('tbody').insertRow();
  const cells = Array.from({ length: 5 }, () => row.insertCell());
  const address = `${client.over === 'BOSH' ? 'https' : 'wss'}://${site}${client.path}`;
  [client.name, client.over, address].forEach((text, i) => { cells[i].textContent = text; });
  const connection = new Strophe.Connection(address);
  connection.addHandler((stanza) => {
    cells[4].textContent += stanza.querySelector('body').textContent;
    return true;
  }, null, 'message');
  connection.connect(`${client.name}@im.example.gov/web`, client.password, (status) => {
    row.dataset.state = cells[3].textContent = Object.keys(Strophe.Status).find((name) => Strophe.Status[name] === status);
    if (status !== Strophe.Status.CONNECTED) return;
    connection.send($pres());
    if (document.querySelectorAll('[data-state="CONNECTED"]').length === clients.length) clients.forEach(greet);
  });
  return { ...client, connection };
});

function greet({ name, connection }) {
  for (const other of clients) {
    if (other.name === name) continue;
    connection.send($msg({ to: `${other.name}@im.example.gov/web`, type: 'chat' }).c('body').t(`你好 ${other.name}, ${name} & <all>`));
  }
}
