// Opens testdata/xmpp in Chromium and prints what is to be seen as one JSON
// object, once every client has heard something. The only argument is JSON:
// {chromium, page, key, locale, picture}.

import { launch, open } from './chromium.mjs';

const wanted = JSON.parse(process.argv[2]);

const browser = await launch(wanted);
try {
  const page = await open(browser, wanted);
  const heard = () => [...document.querySelectorAll('tbody tr')].every((row) => row.cells[4].textContent !== '');
  const late = await page.waitForFunction(heard).then(() => '', (error) => error.message);
  if (wanted.picture) await page.screenshot({ path: wanted.picture, fullPage: true });
  const rows = await page.evaluate(() => [...document.querySelectorAll('tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent)));
  console.log(JSON.stringify({ rows, complaints: page.complaints, late }));
} finally {
  await browser.close();
}
