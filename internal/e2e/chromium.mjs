// Chromium for the tests, with the certificate of a gateway trusted by the hash
// of its public key.

import { chromium } from 'playwright-core';

export const limit = 20_000; // ms for anything that a page is to show

// launch starts the browser. wanted: {chromium, key}.
export function launch(wanted) {
  return chromium.launch({
    executablePath: wanted.chromium,
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', `--ignore-certificate-errors-spki-list=${wanted.key}`,
      '--host-resolver-rules=MAP *.example.gov 127.0.0.1', // names of example sites lead to this machine
    ],
  });
}

// open opens a page and notes whatever the browser complains about.
export async function open(browser, wanted) {
  const page = await browser.newPage({ locale: wanted.locale, viewport: { width: 1100, height: 800 } });
  page.setDefaultTimeout(limit);
  page.complaints = [];
  const note = (text) => page.complaints.push(text);
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && note(message.text()));
  page.on('pageerror', (error) => note(`exception: ${error.message}`));
  page.on('requestfailed', (request) => note(`failed: ${request.url()} ${request.failure().errorText}`));
  await page.exposeFunction('noteViolation', (text) => note(`CSP: ${text}`));
  await page.addInitScript(() => {
    addEventListener('securitypolicyviolation', (event) => window.noteViolation(`${event.violatedDirective} ${event.blockedURI}`));
  });
  await page.goto(wanted.page);
  return page;
}
