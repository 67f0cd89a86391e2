// Thousands of pages in one process, each with the project's own socket.js: herd.py starts this, and says what to do.
//
//     node herd.mjs '{"script": "…/socket.js", "ws": "…/node_modules/ws/index.js", "origin": "http://127.0.0.1:8000", …}'
//
// Of the browser there is what socket.js asks for. Commands come as words on the standard input; each is answered
// with a line of JSON when it is done.

import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

/**
 * script: the path of socket.js. ws: that of the package. paths: one for each room. origin, cookies: of the pages, which
 * take them in turn. pages, atATime: how many there are, and how many of them come at a time in the beginning.
 * addresses: how many of 127.0.0.0/8 they come from.
 */
const { script, ws, paths, origin, cookies, pages, atATime, addresses } = JSON.parse(process.argv[2]);
const { WebSocket: NodeSocket } = createRequire(import.meta.url)(ws);

/** Of the attempts since `back` began: what the end of the server does to older ones may be heard of later. */
const counts = { resets: 0, refused: 0, errors: {} };
let round = 0;
/** The page whose socket.js is about to make a WebSocket: it asks for the address just before. */
let current;

class BrowserSocket extends NodeSocket {
  constructor(url, protocols) {
    const page = current;
    super(url, protocols, {
      headers: { Cookie: page.cookie, Origin: origin },
      localAddress: page.address,
      perMessageDeflate: false,
    });
    page.attempts += 1;
    const born = round;
    this.on("error", (error) => {
      if (born !== round) return;
      if (error.code === "ECONNREFUSED") counts.refused += 1;
      else if (error.code === "ECONNRESET") counts.resets += 1;
      else counts.errors[error.message] = (counts.errors[error.message] ?? 0) + 1;
    });
    this.on("message", (data) => (page.waits += data.includes('"wait"')));
  }
}

Object.assign(globalThis, {
  WebSocket: BrowserSocket,
  location: new URL(origin),
  // They are never hidden, and always online.
  document: { visibilityState: "visible", addEventListener() {}, removeEventListener() {} },
  window: { addEventListener() {}, removeEventListener() {} },
});

// Node takes a .js file for an ES module only beside a package.json that says so; .mjs needs none.
const folder = mkdtempSync(join(tmpdir(), "herd-"));
copyFileSync(script, join(folder, "socket.mjs"));
const { ReconnectingSocket } = await import(pathToFileURL(join(folder, "socket.mjs")));
rmSync(folder, { recursive: true });

/** Called whenever a page has opened. */
let noteOpened = () => {};
/** When a page has opened or lost its connection last. */
let changedAt = 0;

class Page {
  attempts = 0;
  waits = 0;
  isOpen = false;
  isLost = false;
  seq = "";

  constructor(number) {
    this.cookie = cookies[number % cookies.length];
    this.address = `127.0.${Math.floor((number % addresses) / 250)}.${1 + ((number % addresses) % 250)}`;
    const path = paths[number % paths.length];
    this.socket = new ReconnectingSocket(() => {
      current = this;
      return `${path}?after=${this.seq}`;
    });
    this.socket.addEventListener("statechange", ({ detail }) => {
      this.isOpen = detail.state === "open";
      this.isLost ||= !this.isOpen;
      changedAt = performance.now();
      if (this.isOpen) noteOpened(this);
      if (detail.state === "closed") counts.errors[detail.code] = (counts.errors[detail.code] ?? 0) + 1;
    });
    this.socket.addEventListener("frame", ({ detail }) => {
      this.seq = detail.seq ?? detail.last_seq ?? this.seq;
    });
  }
}

const all = Array.from({ length: pages }, (_, number) => new Page(number));
const openOnes = () => all.filter((page) => page.isOpen).length;
const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
const quantile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];

const lag = monitorEventLoopDelay();
lag.enable();

const commands = {
  /** Open all pages, `atATime` at a time: who is greeted makes room for the next. */
  async come() {
    const began = performance.now();
    let next = 0;
    await new Promise((resolve) => {
      noteOpened = () => {
        if (next < pages) all[next++].socket.open();
        else if (openOnes() === pages) resolve();
      };
      for (let i = 0; i < atATime; i += 1) noteOpened();
    });
    return { seconds: (performance.now() - began) / 1000 };
  },

  /** The pages are there: what they lose from now on counts. */
  async stay() {
    for (const page of all) page.isLost = false;
    return {};
  },

  /** From now on the server listens: wait until all are back and nothing has changed for a second, or for so many. */
  async back(seconds) {
    const began = performance.now();
    const times = [];
    round += 1;
    Object.assign(counts, { resets: 0, refused: 0, errors: {} });
    for (const page of all) Object.assign(page, { attempts: 0, waits: 0 });
    const lostOnes = () => all.filter((page) => page.isLost);
    lag.reset();
    noteOpened = () => times.push((performance.now() - began) / 1000);
    const areBack = () => openOnes() === pages && lostOnes().length && performance.now() > changedAt + 1000;
    while (!areBack() && performance.now() < began + seconds * 1000) await sleep(0.1);
    times.sort((a, b) => a - b);
    const attempts = lostOnes().map((page) => page.attempts);
    return {
      open: openOnes(),
      lost: attempts.length,
      seconds: openOnes() === pages ? times.at(-1) ?? 0 : seconds,
      median: quantile(times, 0.5),
      attempts: { max: Math.max(0, ...attempts), mean: attempts.reduce((a, b) => a + b, 0) / attempts.length },
      waited: all.filter((page) => page.waits).length,
      waits: all.reduce((sum, page) => sum + page.waits, 0),
      lag: lag.max / 1e9,
      ...counts,
    };
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const [name, argument] = line.split(" ");
  console.log(JSON.stringify(await commands[name](Number(argument))));
}
process.exit();
