// Opens the connection check in Chromium, as its user would, and prints what is
// to be seen as one JSON object. The only argument is JSON: {chromium, page,
// key, locale, say, picture}. key is the hash of the public key of a certificate
// that is to be trusted; say is a message for every open node.

import { launch, limit, open } from './chromium.mjs';

const wanted = JSON.parse(process.argv[2]);
const browser = await launch(wanted);
try {
  const page = await open(browser, wanted);
  await page.waitForSelector('#summary[aria-busy="false"]', { timeout: limit });
  if (wanted.say) await say(page);
  if (wanted.picture) await page.screenshot({ path: wanted.picture, fullPage: true });
  console.log(JSON.stringify({ ...(await page.evaluate(seen)), complaints: page.complaints }));
} finally {
  await browser.close();
}

// say sends a message and waits until every open node has answered it.
async function say(page) {
  await page.fill('#text', wanted.say);
  await page.click('#send-form button');
  await page.waitForFunction((text) => {
    const nodes = document.querySelectorAll('.entry[data-state="open"]').length;
    const echoes = [...document.querySelectorAll('.message')].filter((m) => m.querySelector('pre').textContent.includes(text));
    return nodes > 0 && echoes.length === nodes;
  }, wanted.say);
}

// seen runs in the page.
function seen() {
  const text = (element, selector) => element.querySelector(selector).textContent;
  return {
    language: document.documentElement.lang,
    title: document.title,
    summary: text(document, '#summary'),
    nodes: [...document.querySelectorAll('.entry')].map((entry) => ({
      node: entry.dataset.node,
      state: entry.dataset.state,
      pill: text(entry, '.pill'),
      outcome: text(entry, '.outcome'),
    })),
    messages: [...document.querySelectorAll('.message')].map((message) => ({
      node: message.dataset.from,
      trip: text(message, '.round-trip'),
      text: text(message, 'pre'),
    })),
  };
}
