// The logic of realtime/static/realtime/socket.js, without a browser and without waiting: `node --test tests/`.

import assert from "node:assert/strict";
import { copyFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, beforeEach, mock, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

const SOURCE = new URL(
  "../{{cookiecutter.project_slug}}/placed-by-hook/always/realtime/static/realtime/socket.js",
  import.meta.url,
);

// Node takes a .js file for an ES module only beside a package.json that says so; .mjs needs none.
const folder = mkdtempSync(join(tmpdir(), "socket-"));
copyFileSync(fileURLToPath(SOURCE), join(folder, "socket.mjs"));
const { Close, ReconnectingSocket } = await import(pathToFileURL(join(folder, "socket.mjs")));
after(() => rmSync(folder, { recursive: true }));

// A server without a crowd, so that the waits are those of a single client.
const GREETING = { type: "connection_established", message: "You are now connected!", max_size: 1000, crowd: 0 };
const SECOND = 1000;

/** Stands in for the browser's WebSocket; the tests play the server. */
class FakeWebSocket {
  static all = [];
  static get last() {
    return FakeWebSocket.all.at(-1);
  }
  static get live() {
    return FakeWebSocket.all.filter((socket) => socket.isLive);
  }

  sent = [];
  isLive = true;

  constructor(url, protocols) {
    this.madeAt = Date.now();
    this.url = url;
    this.protocols = protocols;
    FakeWebSocket.all.push(this);
  }
  send(data) {
    this.sent.push(typeof data === "string" && data.startsWith("{") ? JSON.parse(data) : data);
  }
  // Like a browser on a dead network: the close event does not come.
  close() {
    this.isLive = false;
  }

  opens() {
    this.onopen();
  }
  serverSends(frame) {
    this.onmessage({ data: typeof frame === "string" || frame instanceof ArrayBuffer ? frame : JSON.stringify(frame) });
  }
  serverCloses(code, reason = "") {
    this.isLive = false;
    this.onclose({ code, reason });
  }
  get messages() {
    return this.sent.filter(({ type }) => type === "message").map(({ text }) => text);
  }
}

let random;
let warnings;

beforeEach(() => {
  random = 0.5;
  warnings = [];
  FakeWebSocket.all = [];
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  mock.method(Math, "random", () => random);
  mock.method(performance, "now", () => Date.now());
  mock.method(console, "warn", (...words) => warnings.push(words.join(" ")));
  const document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  const location = { protocol: "http:", host: "example.test:8000" };
  Object.assign(globalThis, { WebSocket: FakeWebSocket, window: new EventTarget(), document, location });
});

afterEach(() => {
  assert.ok(FakeWebSocket.live.length <= 1, "never two live connections");
  assert.deepEqual(warnings, [], "a test that expects a warning takes it");
  mock.timers.reset();
  mock.restoreAll();
});

/** A socket that notes its states, its frames and what was no frame. */
function made(address = "/ws/socket-server/", options = {}) {
  const socket = new ReconnectingSocket(address, options);
  socket.states = [];
  socket.frames = [];
  socket.messages = [];
  socket.addEventListener("statechange", ({ detail }) => socket.states.push(detail.state));
  socket.addEventListener("frame", ({ detail }) => socket.frames.push(detail));
  socket.addEventListener("message", ({ data }) => socket.messages.push(data));
  return socket;
}

function opened(options) {
  const socket = made(undefined, options);
  socket.open();
  return socket;
}

/** An opened socket whose server has greeted. */
function greeted(options) {
  const socket = opened(options);
  FakeWebSocket.last.serverSends(GREETING);
  return socket;
}

/** Lets time pass by the millisecond, since a timer set during one long tick would start at its end. */
function advance(milliseconds) {
  for (let passed = 0; passed < milliseconds; passed += 1) mock.timers.tick(1);
}

/** How long until the next attempt, to the millisecond; at most `limit`. */
function timeToNextAttempt(limit = 60 * SECOND) {
  const attempts = FakeWebSocket.all.length;
  for (let waited = 0; waited <= limit; waited += 1) {
    if (FakeWebSocket.all.length > attempts) return waited;
    advance(1);
  }
  return Number.POSITIVE_INFINITY;
}

const message = (text, id) => ({ type: "message", text, id });
const limited = (id, retry_after) => ({ type: "error", code: "rate_limited", message: "…", id, retry_after });

/** Lets the callbacks of promises run. */
const settled = () => new Promise(setImmediate);

/** The server confirms, as a RealtimeConsumer does that broadcasts, what the live connection has carried. */
function confirmAll() {
  for (const frame of FakeWebSocket.last.sent.splice(0)) if (frame.id) FakeWebSocket.last.serverSends(frame);
}

function hide(isHidden) {
  document.visibilityState = isHidden ? "hidden" : "visible";
  document.dispatchEvent(new Event("visibilitychange"));
}

// Connecting

test("the address is the page's host with the given path", () => {
  opened();
  assert.equal(FakeWebSocket.last.url, "ws://example.test:8000/ws/socket-server/");
});

test("a page over https opens wss", () => {
  location.protocol = "https:";
  opened();
  assert.equal(FakeWebSocket.last.url, "wss://example.test:8000/ws/socket-server/");
});

test("a path that is a function is asked at each attempt", () => {
  let seen = 0;
  new ReconnectingSocket(() => `/ws/?after=${seen}`).open();
  seen = 7;
  FakeWebSocket.last.serverCloses(1006);
  timeToNextAttempt();
  assert.equal(FakeWebSocket.last.url, "ws://example.test:8000/ws/?after=7");
});

for (const [what, first] of Object.entries({
  "the greeting": GREETING,
  "a frame of any other type": { type: "snapshot", items: [] },
  "an error": { type: "error", code: "busy", message: "…" },
  "JSON without a type": '{"message": "a tutorial\'s consumer"}',
  HTML: "<p>htmx</p>",
  bytes: new ArrayBuffer(3),
})) {
  test(`it is open when the server has said something: ${what}`, () => {
    const socket = opened();
    FakeWebSocket.last.opens();
    assert.equal(socket.state, "connecting");
    FakeWebSocket.last.serverSends(first);
    assert.equal(socket.state, "open");
    assert.deepEqual([...socket.frames, ...socket.messages], [first]);
    socket.close();
  });
}

test("a server that says nothing in 10 s counts as connected, with one warning, and is not asked", () => {
  const socket = opened();
  socket.deliver(message("hello"));
  for (let round = 0; round < 6; round += 1) {
    FakeWebSocket.last.opens();
    advance(10 * SECOND - 1);
    assert.notEqual(socket.state, "open");
    advance(1);
    assert.equal(socket.state, "open");
    assert.deepEqual(FakeWebSocket.last.messages, ["hello"]);
    FakeWebSocket.last.serverCloses(1006);
    assert.equal(timeToNextAttempt(), 2500, "it was a good connection");
  }
  assert.equal(warnings.length, 1);
  assert.match(warnings.pop(), /silent for 10 s.*let the consumer's connect\(\) send a frame/);
  FakeWebSocket.last.opens();
  advance(100 * SECOND);
  assert.equal(socket.state, "open");
  assert.deepEqual(FakeWebSocket.last.messages, ["hello"]);
  assert.match(warnings.pop(), /no answer to a delivered frame/);
  assert.equal(FakeWebSocket.last.sent.length, 1, "no ping");
});

test("a server that greets late is asked from then on", () => {
  const socket = opened();
  FakeWebSocket.last.opens();
  advance(11 * SECOND);
  warnings.pop();
  FakeWebSocket.last.serverSends(GREETING);
  advance(25 * SECOND);
  assert.deepEqual(FakeWebSocket.last.sent, [{ type: "ping" }]);
  advance(10 * SECOND);
  assert.equal(socket.state, "reconnecting");
});

test("where the server is known to greet, silence is a failed attempt", () => {
  for (const [make, lose] of [
    [() => opened({ greets: true }), () => {}],
    [greeted, () => FakeWebSocket.last.serverCloses(1006)],
    [greeted, () => advance(15 * SECOND)], // No answer to a ping.
  ]) {
    const socket = make();
    lose();
    if (make === greeted) timeToNextAttempt();
    FakeWebSocket.last.opens();
    socket.deliver(message("for somebody else's eyes"));
    advance(10 * SECOND);
    assert.equal(socket.state, "reconnecting");
    assert.deepEqual(FakeWebSocket.last.sent, []);
    socket.close();
  }
});

test("a loss is seen once, however many attempts fail", () => {
  const socket = greeted();
  for (let attempt = 0; attempt < 5; attempt += 1) {
    FakeWebSocket.last.serverCloses(1006);
    timeToNextAttempt();
  }
  FakeWebSocket.last.serverSends(GREETING);
  assert.deepEqual(socket.states, ["connecting", "open", "reconnecting", "open"]);
});

test("an attempt that does not connect is given up after 10 s", () => {
  const socket = opened();
  const details = [];
  socket.addEventListener("statechange", ({ detail }) => details.push(detail));
  advance(10 * SECOND - 1);
  assert.equal(socket.state, "connecting");
  advance(1);
  assert.deepEqual(details, [{ state: "reconnecting" }], "without a code");
  assert.equal(FakeWebSocket.live.length, 0);
  timeToNextAttempt();
  FakeWebSocket.last.serverSends(GREETING);
  assert.equal(socket.state, "open");
});

test("open() twice makes one connection", () => {
  const socket = opened();
  socket.open();
  assert.equal(FakeWebSocket.all.length, 1);
});

test("close() is for good, until open()", () => {
  const socket = greeted();
  socket.close();
  window.dispatchEvent(new Event("online"));
  assert.equal(timeToNextAttempt(), Number.POSITIVE_INFINITY);
  assert.equal(socket.state, "closed");
  assert.equal(FakeWebSocket.live.length, 0);
  socket.open();
  FakeWebSocket.last.serverSends(GREETING);
  assert.deepEqual(socket.states, ["connecting", "open", "closed", "connecting", "open"]);
});

test("close() while waiting cancels the next attempt", () => {
  const socket = greeted();
  FakeWebSocket.last.serverCloses(1006);
  socket.close();
  assert.equal(timeToNextAttempt(), Number.POSITIVE_INFINITY);
});

test("events of a connection that was given up change nothing", () => {
  const socket = opened();
  const [stale] = FakeWebSocket.all;
  advance(10 * SECOND);
  timeToNextAttempt();
  FakeWebSocket.last.serverSends(GREETING);
  stale.opens();
  stale.serverSends(message("late"));
  stale.serverCloses(4401);
  advance(10 * SECOND);
  assert.equal(socket.state, "open");
  assert.deepEqual(socket.frames, [GREETING]);
});

test("a full URL goes where it says, and http means ws", () => {
  for (const [address, url] of [
    ["wss://api.example.com/ws/", "wss://api.example.com/ws/"],
    ["ws://127.0.0.1:9000/ws/?a=b", "ws://127.0.0.1:9000/ws/?a=b"],
    ["https://api.example.com/ws/", "wss://api.example.com/ws/"],
    ["http://api.example.com:81/ws/", "ws://api.example.com:81/ws/"],
    [new URL("https://api.example.com/ws/"), "wss://api.example.com/ws/"],
    [() => "https://api.example.com/ws/?after=7", "wss://api.example.com/ws/?after=7"],
  ]) {
    const socket = made(address);
    socket.open();
    assert.equal(FakeWebSocket.last.url, url);
    socket.close();
  }
});

test("what the browser refuses to open is said, and leaves nothing behind", () => {
  const refusing = class {
    constructor() {
      throw new DOMException("The operation is insecure.", "SecurityError");
    }
  };
  const listened = [];
  for (const target of [window, document]) {
    const { addEventListener } = target;
    target.addEventListener = function (type, listener, options) {
      listened.push(options.signal);
      addEventListener.call(target, type, listener, options);
    };
  }
  for (const [address, WebSocket, text] of [
    ["/ws/", refusing, /SecurityError: The operation is insecure/],
    ["http://[/", FakeWebSocket, /Invalid URL/],
    [
      () => {
        throw new TypeError("no room");
      },
      FakeWebSocket,
      /TypeError: no room/,
    ],
  ]) {
    Object.assign(globalThis, { WebSocket });
    const socket = made(address);
    const details = [];
    socket.addEventListener("statechange", ({ detail }) => details.push(detail));
    socket.open();
    assert.deepEqual(socket.states, ["connecting", "closed"]);
    assert.match(details[1].reason, text);
    assert.match(warnings.pop(), text);
    window.dispatchEvent(new Event("focus"));
    advance(100 * SECOND);
    assert.equal(FakeWebSocket.all.length, 0);
    assert.ok(listened.length && listened.every(({ aborted }) => aborted));
  }
});

test("a page that closes while it opens stays closed", () => {
  const socket = made();
  socket.addEventListener("statechange", ({ detail }) => detail.state === "connecting" && socket.close());
  socket.open();
  assert.equal(FakeWebSocket.all.length, 0);
});

test("a page may open again when it is told of the end", () => {
  const socket = greeted();
  socket.addEventListener("statechange", ({ detail }) => detail.state === "closed" && socket.open());
  FakeWebSocket.last.serverCloses(4403);
  FakeWebSocket.last.serverSends(GREETING);
  assert.deepEqual(socket.states, ["connecting", "open", "closed", "connecting", "open"]);
});

test("opened, closed and opened at once, as React's StrictMode does, it has one connection", () => {
  const socket = opened();
  socket.close();
  socket.open();
  assert.equal(FakeWebSocket.live.length, 1);
  FakeWebSocket.last.serverSends(GREETING);
  assert.equal(socket.state, "open");
});

// Subprotocols and tokens

test("subprotocols are offered, and a token beside them", () => {
  for (const [options, expected] of [
    [{}, []],
    [{ protocols: "json" }, ["json"]],
    [{ protocols: ["a", "b"] }, ["a", "b"]],
    [{ token: "" }, []],
    [{ token: "abc.DEF-1~2" }, ["realtime", "bearer.abc.DEF-1~2"]],
    [{ token: "!#$%&'*+-.^_`|~", protocols: "json" }, ["json", "bearer.!#$%&'*+-.^_`|~"]],
    [{ token: "a/b+c==" }, ["realtime", "bearer64.YS9iK2M9PQ"]],
    [{ token: "key:value" }, ["realtime", "bearer64.a2V5OnZhbHVl"]],
    [{ token: "é ü?>", protocols: ["a"] }, ["a", "bearer64.w6kgw7w_Pg"]],
    [{ token: "aa>" }, ["realtime", "bearer64.YWE-"]],
  ]) {
    const socket = opened(options);
    assert.deepEqual(FakeWebSocket.last.protocols, expected);
    socket.close();
  }
});

test("a token function is asked at each attempt", async () => {
  const tokens = ["first", Promise.resolve("second"), null];
  const socket = opened({ token: () => tokens.shift() });
  for (const expected of [["realtime", "bearer.first"], ["realtime", "bearer.second"], []]) {
    await settled();
    assert.deepEqual(FakeWebSocket.last.protocols, expected);
    FakeWebSocket.last.serverSends(GREETING);
    FakeWebSocket.last.serverCloses(4401);
    advance(3 * SECOND);
    socket.open();
  }
  socket.close();
});

test("a token function that fails is a failed attempt, with a warning", async () => {
  const failing = () => {
    throw new Error("no session");
  };
  for (const bad of [failing, () => Promise.reject(new Error("no session"))]) {
    const functions = [bad, () => "good"];
    const socket = opened({ token: () => functions.shift()() });
    await settled();
    assert.equal(socket.state, "reconnecting");
    assert.match(warnings.pop(), /the token function failed.*Error: no session/);
    advance(2500);
    await settled();
    assert.deepEqual(FakeWebSocket.last.protocols, ["realtime", "bearer.good"]);
    socket.close();
  }
});

test("a token that comes too late is not used", async () => {
  const resolves = [];
  const socket = opened({ token: () => new Promise((resolve) => resolves.push(resolve)) });
  advance(10 * SECOND);
  assert.equal(socket.state, "reconnecting");
  advance(2500);
  resolves[0]("late");
  await settled();
  assert.equal(FakeWebSocket.all.length, 0);
  resolves[1]("in time");
  await settled();
  assert.equal(FakeWebSocket.all.length, 1);
  socket.close();
  socket.open();
  socket.close();
  resolves[2]("closed meanwhile");
  await settled();
  assert.equal(FakeWebSocket.all.length, 1);
});

test("a token function that fails too late ends no other attempt", async () => {
  const rejects = [];
  const socket = opened({ token: () => new Promise((_, reject) => rejects.push(reject)) });
  advance(12.5 * SECOND);
  assert.equal(rejects.length, 2);
  rejects[0](new Error("late"));
  await settled();
  assert.match(warnings.pop(), /the token function failed.*late/);
  advance(9 * SECOND);
  assert.equal(rejects.length, 2, "the second attempt goes on");
  socket.close();
  rejects[1](new Error("closed meanwhile"));
  await settled();
  assert.match(warnings.pop(), /closed meanwhile/);
  assert.equal(socket.state, "closed");
});

// Back-off

test("waits are random between 0 and a bound that grows by half up to 30 s", () => {
  const bounds = [0.5, 0.75, 1.125, 1.6875, 2.5313, 3.7969, 5.6953, 8.543, 12.8145, 19.2217, 28.8325, 30, 30];
  for (const factor of [0, 0.5, 0.999]) {
    random = factor;
    const socket = greeted();
    for (const bound of bounds) {
      FakeWebSocket.last.serverCloses(1006);
      const waited = timeToNextAttempt();
      assert.ok(Math.abs(waited - factor * bound * SECOND) <= 1, `${waited} ms of ${bound} s times ${factor}`);
    }
    socket.close();
  }
});

test("a server that greets and drops is not asked more and more often", () => {
  greeted();
  const waits = [];
  for (let drop = 0; drop < 4; drop += 1) {
    advance(4 * SECOND);
    FakeWebSocket.last.serverCloses(1006);
    waits.push(timeToNextAttempt());
    FakeWebSocket.last.serverSends(GREETING);
  }
  assert.deepEqual(waits, [250, 375, 563, 844]);
});

test("an answer to the first ping, after 5 s, makes the next wait short again", () => {
  const socket = greeted();
  for (let drop = 0; drop < 6; drop += 1) {
    FakeWebSocket.last.serverCloses(1006);
    timeToNextAttempt();
  }
  FakeWebSocket.last.serverSends(GREETING);
  advance(5 * SECOND);
  assert.deepEqual(FakeWebSocket.last.sent, [{ type: "ping" }]);
  FakeWebSocket.last.serverSends({ type: "pong" });
  FakeWebSocket.last.serverCloses(1012);
  assert.equal(timeToNextAttempt(), 250);
  socket.close();
});

test("open() after the end begins with a short wait", () => {
  const socket = greeted();
  for (let drop = 0; drop < 6; drop += 1) {
    FakeWebSocket.last.serverCloses(1006);
    timeToNextAttempt();
  }
  FakeWebSocket.last.serverCloses(4403);
  socket.open();
  FakeWebSocket.last.serverCloses(1006);
  assert.equal(timeToNextAttempt(), 250);
});

test("the window is that of the crowd until the attempts' own is larger; 5 s until the server has named one", () => {
  for (const [crowd, bounds] of [
    [undefined, [5, 5, 5, 5, 5, 5, 5.6953, 8.543]],
    [2, [2, 2, 2, 2, 2.5313, 3.7969, 5.6953]],
    [60, [60, 60]],
    [0, [0.5, 0.75]],
  ]) {
    const socket = opened();
    FakeWebSocket.last.serverSends({ ...GREETING, crowd });
    random = 0.999;
    for (const bound of bounds) {
      FakeWebSocket.last.serverCloses(1006);
      const waited = timeToNextAttempt(100 * SECOND);
      assert.ok(Math.abs(waited - 0.999 * bound * SECOND) <= 1, `${waited} ms of ${bound} s, crowd ${crowd}`);
    }
    socket.close();
  }
});

test("of the crowds that pongs name the last one counts", () => {
  greeted();
  advance(5 * SECOND);
  FakeWebSocket.last.serverSends({ type: "pong", crowd: 40 });
  FakeWebSocket.last.serverCloses(1012);
  assert.equal(timeToNextAttempt(), 20 * SECOND);
});

// Waiting for one's turn

test("wait is no greeting, and the time-out begins anew after so many seconds", () => {
  const socket = opened();
  FakeWebSocket.last.opens();
  for (const seconds of [3, 20]) {
    advance(9 * SECOND);
    FakeWebSocket.last.serverSends({ type: "wait", seconds });
    assert.equal(socket.state, "connecting");
    advance(seconds * SECOND);
  }
  advance(10 * SECOND - 1);
  assert.equal(socket.state, "connecting");
  assert.deepEqual(socket.frames[0], { type: "wait", seconds: 3 }, "the page hears of it");
  advance(1);
  assert.equal(socket.state, "open", "it may be a consumer that has nothing to say");
  assert.match(warnings.pop(), /silent/);
  FakeWebSocket.last.serverSends(GREETING);
  FakeWebSocket.last.serverCloses(1006);
  timeToNextAttempt();
  FakeWebSocket.last.serverSends({ type: "wait", seconds: 20 });
  advance(30 * SECOND);
  assert.equal(socket.state, "reconnecting", "where it is known to greet it is not");
});

test("an attempt that was told to wait is none", () => {
  const socket = greeted();
  const waits = [];
  for (let attempt = 0; attempt < 3; attempt += 1) {
    FakeWebSocket.last.serverCloses(1006);
    waits.push(timeToNextAttempt());
    FakeWebSocket.last.serverSends({ type: "wait", seconds: 5 });
    FakeWebSocket.last.serverSends({ type: "wait", seconds: 5 });
  }
  FakeWebSocket.last.serverSends(GREETING);
  for (let failure = 0; failure < 3; failure += 1) {
    FakeWebSocket.last.serverCloses(1006);
    waits.push(timeToNextAttempt());
  }
  assert.deepEqual(waits, [250, 375, 375, 375, 563, 844]);
  socket.close();
});

test("wait without a usable number waits as long as usual, and one of an open connection changes nothing", () => {
  for (const seconds of [undefined, -1, "soon", null]) {
    const socket = opened();
    FakeWebSocket.last.serverSends({ type: "wait", seconds });
    advance(10 * SECOND - 1);
    assert.equal(socket.state, "connecting");
    FakeWebSocket.last.serverSends(GREETING);
    FakeWebSocket.last.serverSends({ type: "wait", seconds: 1 });
    advance(5 * SECOND);
    assert.deepEqual(FakeWebSocket.last.sent, [{ type: "ping" }]);
    socket.close();
  }
});

test("no number of the server's makes a timer run over, which would be no wait at all", () => {
  const socket = opened();
  FakeWebSocket.last.serverSends({ type: "wait", seconds: 1e9 });
  advance(SECOND);
  assert.equal(socket.state, "connecting");
});

// Close codes

for (const code of [4400, 4402, 4403, 4404, 4428, 4430, 4499]) {
  test(`${code} is the end`, () => {
    const socket = greeted();
    const details = [];
    socket.addEventListener("statechange", ({ detail }) => details.push(detail));
    FakeWebSocket.last.serverCloses(code, "why");
    window.dispatchEvent(new Event("online"));
    window.dispatchEvent(new Event("focus"));
    document.dispatchEvent(new Event("visibilitychange"));
    assert.equal(timeToNextAttempt(), Number.POSITIVE_INFINITY);
    assert.deepEqual(details, [{ state: "closed", code, reason: "why" }]);
  });
}

for (const code of [1000, 1001, 1005, 1006, 1007, 1009, 1011, 1012, 1013, 4000, 4399, 4500]) {
  test(`${code} is not the end`, () => {
    const socket = greeted();
    FakeWebSocket.last.serverCloses(code);
    assert.equal(timeToNextAttempt(), 250);
    FakeWebSocket.last.serverSends(GREETING);
    assert.equal(socket.state, "open");
  });
}

test("4401 is the end at the second attempt in a row: meanwhile there may be another cookie", () => {
  const socket = greeted();
  const details = [];
  socket.addEventListener("statechange", ({ detail }) => details.push(detail));
  FakeWebSocket.last.serverCloses(4401, "first");
  window.dispatchEvent(new Event("focus"));
  assert.equal(timeToNextAttempt(), 2250, "not before a login has brought its cookie");
  FakeWebSocket.last.serverCloses(1006);
  timeToNextAttempt();
  FakeWebSocket.last.serverSends(GREETING);
  FakeWebSocket.last.serverCloses(4401, "second");
  assert.equal(timeToNextAttempt(), Number.POSITIVE_INFINITY);
  assert.deepEqual(details, [
    { state: "reconnecting", code: 4401, reason: "first" },
    { state: "open" },
    { state: "closed", code: 4401, reason: "second" },
  ]);
});

test("each 4401 after a good connection has its second attempt", () => {
  const socket = greeted();
  for (let login = 0; login < 3; login += 1) {
    advance(5 * SECOND);
    FakeWebSocket.last.serverSends({ type: "pong" });
    FakeWebSocket.last.serverCloses(4401);
    assert.equal(timeToNextAttempt(), 2250);
    FakeWebSocket.last.serverSends(GREETING);
  }
  assert.equal(socket.state, "open");
});

test("open() after 4401 has a second attempt again", () => {
  const socket = opened();
  for (let time = 0; time < 2; time += 1) {
    FakeWebSocket.last.serverCloses(4401);
    timeToNextAttempt();
    FakeWebSocket.last.serverCloses(4401);
    assert.equal(socket.state, "closed");
    socket.open();
  }
  assert.equal(FakeWebSocket.all.length, 5);
});

test("an attempt that the server refuses is told, with its code, while it goes on trying", () => {
  const socket = greeted();
  const details = [];
  socket.addEventListener("statechange", ({ detail }) => details.push(detail));
  for (const code of [1006, 1006, 4000, 4429, 1006]) {
    FakeWebSocket.last.serverCloses(code, "");
    timeToNextAttempt();
  }
  assert.deepEqual(details, [
    { state: "reconnecting", code: 1006, reason: "" },
    { state: "reconnecting", code: 4429, reason: "" },
  ]);
});

test("after 4429 it waits until the server's bucket is full again", () => {
  const socket = opened();
  FakeWebSocket.last.serverSends({ ...GREETING, frames_per_second: 2, frame_burst: 60 });
  FakeWebSocket.last.serverCloses(4429);
  assert.equal(timeToNextAttempt(), 30 * SECOND + 250);
  // What is no number of frames changes nothing.
  FakeWebSocket.last.serverSends({ ...GREETING, frames_per_second: 0 });
  FakeWebSocket.last.serverCloses(4429);
  assert.equal(timeToNextAttempt(), 30 * SECOND + 375);
  // Without a limit it was for too many sockets.
  FakeWebSocket.last.serverSends({ ...GREETING, frames_per_second: null });
  FakeWebSocket.last.serverCloses(4429);
  assert.equal(timeToNextAttempt(), 563);
  socket.close();
});

test("4429 waits at least 10 s, whatever happens in the page", () => {
  const socket = greeted();
  FakeWebSocket.last.serverCloses(4429);
  window.dispatchEvent(new Event("online"));
  document.dispatchEvent(new Event("visibilitychange"));
  assert.equal(timeToNextAttempt(), 10 * SECOND + 250);
  FakeWebSocket.last.serverCloses(1006);
  window.dispatchEvent(new Event("online"));
  assert.equal(FakeWebSocket.all.length, 3, "an ordinary loss after it may be hurried again");
  socket.close();
});

// The page

test("the network, the reader and the back button bring it back at once", () => {
  const triggers = {
    online: () => window.dispatchEvent(new Event("online")),
    focus: () => window.dispatchEvent(new Event("focus")),
    visible: () => document.dispatchEvent(new Event("visibilitychange")),
    pageshow: () => window.dispatchEvent(new Event("pageshow")),
  };
  for (const [name, trigger] of Object.entries(triggers)) {
    const socket = greeted();
    FakeWebSocket.last.serverCloses(1006);
    trigger();
    assert.equal(FakeWebSocket.live.length, 1, name);
    trigger();
    assert.equal(FakeWebSocket.live.length, 1, `${name} twice`);
    FakeWebSocket.last.serverSends(GREETING);
    assert.equal(timeToNextAttempt(14 * SECOND), Number.POSITIVE_INFINITY, `${name}: the old timer is gone`);
    socket.close();
  }
});

test("a tab that goes to the background changes nothing", () => {
  greeted();
  FakeWebSocket.last.serverCloses(1006);
  hide(true);
  assert.equal(FakeWebSocket.live.length, 0);
});

test("an attempt that hangs since the page was hidden is begun anew, once, when it is shown", () => {
  for (const trigger of ["visibilitychange", "focus", "pageshow", "online"]) {
    const socket = opened();
    const [hanging] = FakeWebSocket.live;
    window.dispatchEvent(new Event("focus"));
    assert.deepEqual(FakeWebSocket.live, [hanging], "nothing is wrong with it yet");
    hide(true);
    advance(SECOND);
    if (trigger === "visibilitychange") hide(false);
    else if (trigger !== "online") document.visibilityState = "visible";
    window.dispatchEvent(new Event(trigger));
    assert.equal(hanging.isLive, false, trigger);
    const [fresh] = FakeWebSocket.live;
    hide(false);
    for (const type of ["focus", "pageshow"]) window.dispatchEvent(new Event(type));
    if (trigger !== "online") assert.deepEqual(FakeWebSocket.live, [fresh], `${trigger}: once`);
    socket.close();
  }
});

test("an attempt that was begun in the background is begun anew when the page is shown", () => {
  document.visibilityState = "hidden";
  opened();
  const [hanging] = FakeWebSocket.live;
  hide(false);
  assert.equal(hanging.isLive, false);
  assert.equal(FakeWebSocket.live.length, 1);
});

test("an attempt that hangs since the network was gone is begun anew when it is back", () => {
  opened();
  const [hanging] = FakeWebSocket.live;
  window.dispatchEvent(new Event("online"));
  assert.equal(hanging.isLive, true);
  window.dispatchEvent(new Event("offline"));
  window.dispatchEvent(new Event("online"));
  assert.equal(hanging.isLive, false);
  assert.equal(FakeWebSocket.live.length, 1);
});

test("an attempt that waits for its turn keeps its place, whether the page is seen or not", () => {
  opened();
  FakeWebSocket.last.serverSends({ type: "wait", seconds: 30 });
  hide(true);
  hide(false);
  window.dispatchEvent(new Event("online"));
  assert.equal(FakeWebSocket.all.length, 1);
});

test("an attempt that may hang is kept while a hidden page may make no other", () => {
  greeted();
  hide(true);
  for (let attempt = 0; attempt < 8; attempt += 1) {
    FakeWebSocket.last.serverCloses(1006);
    timeToNextAttempt();
  }
  const [last] = FakeWebSocket.live;
  window.dispatchEvent(new Event("online"));
  assert.deepEqual(FakeWebSocket.live, [last]);
  advance(10 * SECOND);
  assert.equal(last.isLive, false, "for 10 s");
});

test("a hidden page tries at most 20 times an hour, whatever the network and the server do", () => {
  const flaky = () => {
    FakeWebSocket.last.serverSends(GREETING);
    advance(5 * SECOND);
    FakeWebSocket.last.serverSends({ type: "pong" });
    FakeWebSocket.last.serverCloses(1006);
  };
  const down = () => FakeWebSocket.last.serverCloses(1006);
  const flapping = () => {
    down();
    for (const type of ["offline", "online"]) window.dispatchEvent(new Event(type));
  };
  for (const [factor, fail] of [
    [0, down],
    [0.5, down],
    [0.5, flaky],
    [0, flapping],
  ]) {
    random = factor;
    const socket = greeted();
    hide(true);
    const start = Date.now();
    fail();
    while (Date.now() < start + 2 * 3600 * SECOND) {
      if (FakeWebSocket.live.length) fail();
      mock.timers.tick(100);
    }
    const times = FakeWebSocket.all.map(({ madeAt }) => madeAt - start).filter((time) => time > 0);
    for (const time of times) {
      const hour = times.filter((other) => other >= time && other < time + 3600 * SECOND);
      assert.ok(hour.length <= 20, `${hour.length} attempts in an hour: ${fail.name}, ${factor}`);
    }
    assert.ok(times.length >= 25, `it goes on trying: ${fail.name}, ${factor}: ${times}`);
    assert.ok(times[4] < 120 * SECOND, `the first ones come soon: ${fail.name}, ${factor}: ${times}`);
    hide(false);
    assert.equal(FakeWebSocket.live.length, 1, "shown, it does not wait");
    socket.close();
  }
});

test("waking up doubts an open connection: it asks at once", () => {
  const socket = greeted();
  document.dispatchEvent(new Event("visibilitychange"));
  window.dispatchEvent(new Event("focus"));
  assert.deepEqual(FakeWebSocket.last.sent, [{ type: "ping" }], "and once");
  advance(10 * SECOND);
  assert.equal(socket.state, "reconnecting");
});

test("a page that is left lets go of its connection, and comes back at once when shown again", () => {
  const socket = greeted();
  window.dispatchEvent(new Event("pagehide"));
  assert.equal(FakeWebSocket.live.length, 0);
  window.dispatchEvent(new Event("pageshow"));
  FakeWebSocket.last.serverSends(GREETING);
  assert.equal(socket.state, "open");
});

test("a page that is left after 4429 is over comes back at once", () => {
  const socket = greeted();
  FakeWebSocket.last.serverCloses(4429);
  timeToNextAttempt();
  window.dispatchEvent(new Event("pagehide"));
  window.dispatchEvent(new Event("pageshow"));
  FakeWebSocket.last.serverSends(GREETING);
  assert.equal(socket.state, "open");
});

test("a page that is left while waiting after 4429 still waits when shown again", () => {
  greeted();
  FakeWebSocket.last.serverCloses(4429);
  window.dispatchEvent(new Event("pagehide"));
  window.dispatchEvent(new Event("pageshow"));
  assert.equal(timeToNextAttempt(), 10 * SECOND + 250);
});

// The heartbeat

test("it asks after 5 s, then every 25 s, and answers keep the connection", () => {
  const socket = greeted();
  for (const [round, seconds] of [5, 25, 25, 25].entries()) {
    advance(seconds * SECOND - 1);
    assert.equal(FakeWebSocket.last.sent.length, round);
    advance(1);
    assert.equal(FakeWebSocket.last.sent.length, round + 1);
    FakeWebSocket.last.serverSends({ type: "pong" });
  }
  assert.equal(FakeWebSocket.all.length, 1);
  assert.equal(socket.state, "open");
});

test("without an answer in 10 s the connection is lost, though no close event comes", () => {
  const socket = greeted();
  advance(5 * SECOND);
  FakeWebSocket.last.serverSends({ type: "pong" });
  advance(25 * SECOND);
  advance(10 * SECOND - 1);
  assert.equal(socket.state, "open");
  advance(1);
  assert.equal(socket.state, "reconnecting");
  assert.equal(FakeWebSocket.live.length, 0);
  assert.equal(timeToNextAttempt(), 250, "it was a good connection until then");
});

test("any frame is an answer, also one that cannot be read", () => {
  for (const answer of [message("hello"), "not JSON"]) {
    const socket = greeted();
    advance(5 * SECOND);
    FakeWebSocket.last.serverSends(answer);
    advance(10 * SECOND);
    assert.equal(socket.state, "open");
    socket.close();
  }
});

test("an answer ends the doubt: the next wake-up asks again", () => {
  greeted();
  for (let count = 1; count <= 2; count += 1) {
    window.dispatchEvent(new Event("focus"));
    assert.equal(FakeWebSocket.last.sent.length, count);
    FakeWebSocket.last.serverSends({ type: "pong" });
  }
});

test("the doubt ends with its connection: the next one is asked only after its greeting", () => {
  greeted();
  advance(15 * SECOND);
  timeToNextAttempt();
  FakeWebSocket.last.serverSends(GREETING);
  FakeWebSocket.last.serverSends(message("hello"));
  advance(5 * SECOND - 1);
  assert.deepEqual(FakeWebSocket.last.sent, []);
  advance(1);
  assert.deepEqual(FakeWebSocket.last.sent, [{ type: "ping" }]);
});

// A consumer that is none of ours

test("one that sends frames, but no greeting, is asked once, and with an answer again and again", () => {
  const socket = opened({ greets: false });
  FakeWebSocket.last.serverSends({ type: "snapshot", items: [] });
  advance(5 * SECOND);
  assert.deepEqual(FakeWebSocket.last.sent, [{ type: "ping" }]);
  FakeWebSocket.last.serverSends({ type: "pong", max_size: 300, crowd: 0 });
  advance(25 * SECOND);
  assert.equal(FakeWebSocket.last.sent.length, 2);
  advance(10 * SECOND);
  assert.equal(socket.state, "reconnecting");
  assert.throws(() => socket.deliver(message("x".repeat(300))), RangeError);
});

test("one that does not answer a ping keeps its connection, with one warning, and is not asked again", () => {
  const socket = opened();
  FakeWebSocket.last.serverSends({ type: "snapshot", items: [] });
  advance(5 * SECOND);
  FakeWebSocket.last.serverSends({ type: "tick" });
  advance(10 * SECOND);
  assert.match(warnings.pop(), /a ping had no answer.*answer {"type": "ping"}/);
  advance(100 * SECOND);
  window.dispatchEvent(new Event("focus"));
  assert.equal(socket.state, "open");
  assert.deepEqual(FakeWebSocket.last.sent, [{ type: "ping" }]);
  FakeWebSocket.last.serverCloses(1006);
  assert.equal(timeToNextAttempt(), 2500);
  FakeWebSocket.last.serverSends({ type: "snapshot", items: [] });
  advance(100 * SECOND);
  assert.deepEqual(FakeWebSocket.last.sent, [], "nor over the next connection");
});

test("one that fails at a ping is not asked again", () => {
  const socket = opened();
  FakeWebSocket.last.serverSends({ type: "snapshot", items: [] });
  advance(5 * SECOND);
  FakeWebSocket.last.serverCloses(1011);
  timeToNextAttempt();
  FakeWebSocket.last.serverSends({ type: "snapshot", items: [] });
  advance(100 * SECOND);
  assert.equal(socket.state, "open");
  assert.deepEqual(FakeWebSocket.last.sent, []);
});

for (const first of ['{"message": "hello"}', "<p>hello</p>", new ArrayBuffer(3)]) {
  test(`one whose first words are no frame is not asked: ${first}`, () => {
    const socket = opened();
    FakeWebSocket.last.serverSends(first);
    window.dispatchEvent(new Event("focus"));
    advance(100 * SECOND);
    assert.equal(socket.state, "open");
    assert.deepEqual(FakeWebSocket.last.sent, []);
  });
}

test("5 s make its connection a good one", () => {
  opened();
  const waits = [];
  for (const seconds of [4, 4, 4, 4, 4, 4, 4, 6, 6]) {
    FakeWebSocket.last.serverSends("<p>hello</p>");
    advance(seconds * SECOND);
    FakeWebSocket.last.serverCloses(1006);
    waits.push(timeToNextAttempt());
  }
  assert.deepEqual(waits, [2500, 2500, 2500, 2500, 2500, 2500, 2848, 2500, 2500]);
});

// Frames// Frames

test("frames of any type reach the page, and what is no frame comes as it is", () => {
  const socket = greeted();
  const others = ["{", "null", "[]", "7", '"text"', "{}", '{"type":7}', "<p>Hello</p>", new ArrayBuffer(3)];
  for (const data of others) FakeWebSocket.last.serverSends(data);
  FakeWebSocket.last.serverSends({ type: "presence", users: ["Ada"] });
  assert.deepEqual(socket.frames, [GREETING, { type: "presence", users: ["Ada"] }]);
  assert.deepEqual(socket.messages, others);
  assert.equal(FakeWebSocket.last.binaryType, "arraybuffer");
});

test("send() takes frames, strings and bytes", () => {
  const socket = greeted();
  const bytes = new Uint8Array([1, 2, 3]);
  for (const data of [{ type: "typing" }, "<p>", bytes, bytes.buffer]) socket.send(data);
  assert.deepEqual(FakeWebSocket.last.sent, [{ type: "typing" }, "<p>", bytes, bytes.buffer]);
});

test("send() is for now or never", () => {
  const socket = opened();
  assert.equal(socket.send({ type: "typing" }), false);
  FakeWebSocket.last.serverSends(GREETING);
  assert.equal(socket.send({ type: "typing" }), true);
  assert.deepEqual(FakeWebSocket.last.sent, [{ type: "typing" }]);
  FakeWebSocket.last.serverCloses(1006);
  assert.equal(socket.send({ type: "typing" }), false);
  assert.deepEqual(socket.pending, []);
});

// The outbox

test("each delivery gets an id of its own, a UUID, also where crypto.randomUUID is missing", () => {
  mock.method(crypto, "randomUUID", () => assert.fail("only there over https"));
  const socket = opened();
  const ids = Array.from({ length: 100 }, () => socket.deliver({ type: "message", text: "x" }));
  assert.equal(new Set(ids).size, 100);
  for (const id of ids) assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});

test("an id that is given is kept, so that a stored outbox can be restored", () => {
  const socket = new ReconnectingSocket("/");
  assert.equal(socket.deliver(message("stored", "my-id")), "my-id");
  socket.open();
  FakeWebSocket.last.serverSends(GREETING);
  assert.deepEqual(FakeWebSocket.last.sent, [message("stored", "my-id")]);
});

test("an answer may name a number", () => {
  const socket = greeted();
  FakeWebSocket.last.serverSends({ type: "drawn", id: Number(socket.deliver({ type: "stroke", id: 7 })) });
  assert.deepEqual(socket.pending, []);
  for (const text of ["one", "two"]) socket.deliver(message(text));
  assert.deepEqual(FakeWebSocket.last.messages, ["one"], "it was one");
});

test("what is delivered while offline is sent after the greeting, in order", () => {
  const socket = opened();
  for (const text of ["one", "two", "three"]) socket.deliver({ type: "message", text });
  assert.deepEqual(FakeWebSocket.last.messages, []);
  FakeWebSocket.last.serverSends(GREETING);
  advance(SECOND);
  assert.deepEqual(FakeWebSocket.last.messages, ["one", "two", "three"]);
});

test("what the server has not shown is sent again after a loss; what it has shown is not", () => {
  const socket = greeted();
  const [one, two] = ["one", "two"].map((text) => socket.deliver({ type: "message", text }));
  advance(SECOND);
  assert.deepEqual(FakeWebSocket.last.messages, ["one", "two"]);
  FakeWebSocket.last.serverSends(message("one", one));
  assert.deepEqual(socket.pending, [message("two", two)]);
  FakeWebSocket.last.serverCloses(1006);
  socket.deliver({ type: "message", text: "three" });
  timeToNextAttempt();
  FakeWebSocket.last.serverSends(GREETING);
  advance(SECOND);
  assert.deepEqual(FakeWebSocket.last.messages, ["two", "three"]);
  assert.equal(FakeWebSocket.last.sent[0].id, two, "under the same id");
});

test("what was sent is not sent twice over one connection", () => {
  const socket = greeted();
  socket.deliver({ type: "message", text: "one" });
  advance(SECOND);
  socket.deliver({ type: "message", text: "two" });
  FakeWebSocket.last.serverSends(GREETING);
  advance(SECOND);
  assert.deepEqual(FakeWebSocket.last.messages, ["one", "two"]);
});

test("other people's messages and errors without an id leave the outbox alone", () => {
  const socket = greeted();
  socket.deliver({ type: "message", text: "mine" });
  FakeWebSocket.last.serverSends(message("theirs", "another id"));
  FakeWebSocket.last.serverSends({ type: "message", text: "without an id", id: null });
  FakeWebSocket.last.serverSends({ type: "error", code: "not_json", message: "…" });
  assert.equal(socket.pending.length, 1);
});

test("what the server refuses is not sent again", () => {
  const socket = greeted();
  const id = socket.deliver({ type: "message", text: "bad" });
  FakeWebSocket.last.serverSends({ type: "error", code: "text_too_long", message: "…", id });
  assert.deepEqual(socket.pending, []);
  assert.equal(socket.frames.at(-1).code, "text_too_long", "and the page hears of it");
});

test("rate_limited sends later, and nothing else before", () => {
  const socket = greeted();
  const id = socket.deliver({ type: "message", text: "one" });
  FakeWebSocket.last.serverSends(limited(id, 3));
  socket.deliver({ type: "message", text: "two" });
  advance(3 * SECOND - 1);
  assert.deepEqual(FakeWebSocket.last.messages, ["one"]);
  advance(1);
  assert.deepEqual(FakeWebSocket.last.messages, ["one", "one"]);
  FakeWebSocket.last.serverSends(message("one", id));
  advance(SECOND);
  assert.deepEqual(FakeWebSocket.last.messages, ["one", "one", "two"]);
});

test("what is typed while an answer is awaited does not overtake it", () => {
  const socket = greeted();
  FakeWebSocket.last.serverSends(message("zero", socket.deliver(message("zero"))));
  const id = socket.deliver({ type: "message", text: "one" });
  socket.deliver({ type: "message", text: "two" });
  advance(SECOND);
  assert.deepEqual(FakeWebSocket.last.messages, ["zero", "one"]);
  FakeWebSocket.last.serverSends(limited(id, 0.1));
  for (const text of ["one", "two"]) {
    advance(100);
    assert.equal(FakeWebSocket.last.messages.at(-1), text);
    confirmAll();
  }
  assert.deepEqual(socket.pending, []);
});

test("a burst that is refused from the middle on is sent again from there, in order", () => {
  const socket = greeted();
  FakeWebSocket.last.serverCloses(1006);
  for (const text of ["one", "two", "three", "four"]) socket.deliver(message(text, text));
  timeToNextAttempt();
  FakeWebSocket.last.serverSends(GREETING);
  assert.deepEqual(FakeWebSocket.last.messages, ["one", "two", "three", "four"]);
  FakeWebSocket.last.serverSends(message("one", "one"));
  for (const text of ["two", "three", "four"]) FakeWebSocket.last.serverSends(limited(text, 1));
  FakeWebSocket.last.sent = [];
  advance(999);
  assert.deepEqual(FakeWebSocket.last.messages, []);
  const order = [];
  for (let tick = 0; tick < 300; tick += 1) {
    advance(1);
    order.push(...FakeWebSocket.last.messages);
    confirmAll();
  }
  assert.deepEqual(order, ["two", "three", "four"]);
});

test("any rate_limited pauses the outbox, also that of a frame that was sent by send()", () => {
  const socket = greeted();
  FakeWebSocket.last.serverSends(limited(undefined, 3));
  socket.deliver({ type: "message", text: "one" });
  advance(3 * SECOND - 1);
  assert.deepEqual(FakeWebSocket.last.messages, []);
  advance(1);
  assert.deepEqual(FakeWebSocket.last.messages, ["one"]);
});

test("an answer that does not come holds nothing back for longer than 10 s, with one warning", () => {
  const socket = greeted();
  FakeWebSocket.last.serverSends(message("zero", socket.deliver(message("zero"))));
  socket.deliver({ type: "message", text: "ignored" });
  for (const text of ["one", "two"]) socket.deliver({ type: "message", text });
  advance(5 * SECOND);
  FakeWebSocket.last.serverSends({ type: "pong" });
  advance(5 * SECOND - 1);
  assert.deepEqual(FakeWebSocket.last.messages, ["zero", "ignored"]);
  advance(1);
  assert.deepEqual(FakeWebSocket.last.messages, ["zero", "ignored", "one", "two"]);
  assert.match(warnings.pop(), /no answer to a delivered frame in 10 s/);
  const id = socket.deliver({ type: "message", text: "three" });
  assert.equal(FakeWebSocket.last.messages.at(-1), "three", "without waiting again");
  FakeWebSocket.last.serverSends(message("three", id));
  for (const text of ["four", "five"]) socket.deliver({ type: "message", text });
  assert.equal(FakeWebSocket.last.messages.at(-1), "five", "also when one of them is answered");
  advance(15 * SECOND);
  assert.deepEqual(socket.pending.length, 5, "they wait for an answer, or the next connection");
});

test("on a dead network no answer is a loss, not a fault of the consumer's", () => {
  const socket = greeted();
  FakeWebSocket.last.serverSends(message("zero", socket.deliver(message("zero"))));
  advance(5 * SECOND);
  FakeWebSocket.last.serverSends({ type: "pong" });
  socket.deliver({ type: "message", text: "from the train" });
  socket.deliver({ type: "message", text: "and more" });
  advance(10 * SECOND);
  assert.deepEqual(FakeWebSocket.last.sent.at(-1), { type: "ping" });
  advance(10 * SECOND);
  assert.equal(socket.state, "reconnecting");
  assert.deepEqual(warnings, []);
  timeToNextAttempt();
  FakeWebSocket.last.serverSends(GREETING);
  assert.deepEqual(FakeWebSocket.last.messages, ["from the train", "and more"]);
});

test("a ping that is on its way tells it as soon, and is not begun anew", () => {
  const socket = greeted();
  FakeWebSocket.last.serverSends(message("zero", socket.deliver(message("zero"))));
  advance(5 * SECOND);
  FakeWebSocket.last.serverSends({ type: "pong" });
  advance(20 * SECOND);
  socket.deliver(message("from the train"));
  advance(15 * SECOND - 1);
  assert.equal(socket.state, "open");
  advance(1);
  assert.equal(socket.state, "reconnecting");
});

test("on a network that lives after all, the fault is the consumer's: nothing is held back any longer", () => {
  const socket = greeted();
  FakeWebSocket.last.serverSends(message("zero", socket.deliver(message("zero"))));
  advance(5 * SECOND);
  FakeWebSocket.last.serverSends({ type: "pong" });
  for (const text of ["one", "two"]) socket.deliver(message(text));
  advance(10 * SECOND);
  FakeWebSocket.last.serverSends({ type: "pong" });
  advance(10 * SECOND);
  assert.deepEqual(FakeWebSocket.last.messages, ["zero", "one", "two"]);
  assert.match(warnings.pop(), /no answer to a delivered frame/);
});

test("that is so, too, when the pace alone would hold something back", () => {
  const socket = greeted();
  FakeWebSocket.last.serverSends(message("zero", socket.deliver(message("zero"))));
  FakeWebSocket.last.serverCloses(1006);
  for (let number = 1; number <= 150; number += 1) socket.deliver({ type: "message", text: String(number) });
  timeToNextAttempt();
  FakeWebSocket.last.serverSends(GREETING);
  advance(5 * SECOND);
  FakeWebSocket.last.serverSends({ type: "pong" });
  advance(5 * SECOND);
  assert.match(warnings.pop(), /no answer to a delivered frame/);
  assert.equal(FakeWebSocket.last.messages.length, 150);
});

test("a server that has answered no id yet is not waited for", () => {
  const socket = greeted();
  for (const text of ["one", "two"]) socket.deliver({ type: "message", text });
  assert.deepEqual(FakeWebSocket.last.messages, ["one", "two"]);
});

test("rate_limited without a usable retry_after waits a second", () => {
  for (const retry_after of [undefined, 0, "soon"]) {
    const socket = greeted();
    const id = socket.deliver({ type: "message", text: "one" });
    FakeWebSocket.last.serverSends(limited(id, retry_after));
    advance(SECOND - 1);
    assert.equal(FakeWebSocket.last.messages.length, 1);
    advance(1);
    assert.equal(FakeWebSocket.last.messages.length, 2);
    socket.close();
  }
});

test("of two pauses the longer one counts", () => {
  for (const seconds of [
    [1, 3],
    [3, 1],
  ]) {
    const socket = greeted();
    const ids = ["one", "two"].map((text) => socket.deliver({ type: "message", text }));
    for (const [index, id] of ids.entries()) FakeWebSocket.last.serverSends(limited(id, seconds[index]));
    advance(3 * SECOND - 1);
    assert.deepEqual(FakeWebSocket.last.messages, ["one", "two"]);
    advance(1);
    assert.deepEqual(FakeWebSocket.last.messages, ["one", "two", "one"]);
    socket.close();
  }
});

test("only the server can say rate_limited, not somebody's message", () => {
  const socket = greeted();
  FakeWebSocket.last.serverSends({ ...message("hello", "x"), code: "rate_limited", retry_after: 1000 });
  socket.deliver({ type: "message", text: "mine" });
  assert.deepEqual(FakeWebSocket.last.messages, ["mine"]);
});

test("a reconnect does not cut the pause of rate_limited short", () => {
  const socket = greeted();
  const id = socket.deliver({ type: "message", text: "one" });
  FakeWebSocket.last.serverSends(limited(id, 3));
  FakeWebSocket.last.serverCloses(1006);
  timeToNextAttempt();
  FakeWebSocket.last.serverSends(GREETING);
  assert.deepEqual(FakeWebSocket.last.messages, []);
  advance(3 * SECOND);
  assert.deepEqual(FakeWebSocket.last.messages, ["one"]);
});

test("what waits is sent in one go: a hundred, which needs no timer, then at the pace", () => {
  for (const [pace, expected] of [
    [undefined, [100, 110, 120, 125]],
    [20, [100, 120, 125, 125]],
    [Infinity, [125, 125, 125, 125]],
  ]) {
    const socket = opened({ pace });
    for (let number = 0; number < 125; number += 1) socket.deliver({ type: "message", text: String(number) });
    FakeWebSocket.last.serverSends(GREETING);
    const numbers = [];
    const counts = [0, 1, 1, 1].map((seconds) => {
      for (let tick = 0; tick <= seconds * SECOND; tick += 1) {
        numbers.push(...FakeWebSocket.last.messages);
        confirmAll();
        if (tick) advance(1);
      }
      numbers.push(...FakeWebSocket.last.messages);
      confirmAll();
      return numbers.length;
    });
    assert.deepEqual(counts, expected);
    assert.deepEqual(numbers.map(Number), [...numbers.keys()]);
    socket.close();
  }
});

test("a page keeps to half of the limits that the server tells", () => {
  const unlimited = { frames_per_second: null, frame_burst: 10 };
  for (const [frame, options, expected] of [
    [{ ...GREETING, frames_per_second: 4, frame_burst: 10 }, {}, [5, 7, 9]],
    [{ type: "pong", frames_per_second: 4, frame_burst: 10 }, {}, [5, 7, 9]],
    [{ ...GREETING, frames_per_second: 4, frame_burst: 10 }, { pace: 10 }, [5, 15, 20]],
    [{ ...GREETING, frames_per_second: 1, frame_burst: 1 }, {}, [1, 1, 2]],
    [{ ...GREETING, ...unlimited }, {}, [20, 20, 20]],
    // As the server that allows 20 and 200.
    [{ ...GREETING, frames_per_second: "4", frame_burst: 0 }, {}, [20, 20, 20]],
  ]) {
    const socket = opened(options);
    FakeWebSocket.last.serverSends(frame);
    for (let number = 0; number < 20; number += 1) socket.deliver({ type: "message", text: String(number) });
    let count = 0;
    const counts = [0, SECOND, SECOND].map((milliseconds) => {
      for (let tick = 0; tick <= milliseconds; tick += 1) {
        if (tick) advance(1);
        count += FakeWebSocket.last.messages.length;
        confirmAll();
      }
      return count;
    });
    assert.deepEqual(counts, expected);
    socket.close();
  }
});

test("timers that a hidden tab is given once a second do not slow the pace", () => {
  const socket = opened();
  for (let number = 0; number < 140; number += 1) socket.deliver({ type: "message", text: String(number) });
  FakeWebSocket.last.serverSends(GREETING);
  for (const expected of [100, 110, 120]) {
    assert.equal(FakeWebSocket.last.messages.length, expected);
    mock.timers.tick(SECOND);
  }
});

test("any frame but an error with its id confirms a delivery", () => {
  const socket = greeted();
  const id = socket.deliver({ type: "stroke", points: [1, 2] });
  FakeWebSocket.last.serverSends({ type: "drawn", id });
  assert.deepEqual(socket.pending, []);
});

// The size of a frame

test("what the server can never take is refused before it is sent", () => {
  const socket = greeted();
  const fits = { type: "message", text: "", id: "1" };
  fits.text = "é".repeat((1000 - JSON.stringify(fits).length) / 2);
  const tooLarge = { ...fits, text: fits.text + "x" };
  const error = { name: "RangeError", message: "Too large: 1001 bytes, and 1000 fit." };
  fits.text += "x".repeat(1000 - new TextEncoder().encode(JSON.stringify(fits)).length);
  if (new TextEncoder().encode(JSON.stringify(tooLarge)).length < 1001) tooLarge.text += "x";
  for (const state of ["open", "reconnecting"]) {
    assert.equal(socket.state, state);
    assert.throws(() => socket.deliver(tooLarge), error);
    assert.throws(() => socket.deliver({ type: "message", text: "x".repeat(950) }), RangeError, "with its id");
    assert.throws(() => socket.send(tooLarge), error);
    assert.throws(() => socket.send(new Uint8Array(1001)), error);
    assert.throws(() => socket.send("é".repeat(500) + "x"), error);
    assert.equal(socket.send(fits), state === "open");
    socket.deliver(fits);
    assert.equal(socket.pending.length, 1);
    if (state === "open") FakeWebSocket.last.serverCloses(1006);
  }
});

test("what turns out to be too large is dropped, said so, and holds nothing back", () => {
  const socket = opened();
  for (const [id, length] of Object.entries({ a: 10, b: 2000, c: 10 }))
    socket.deliver({ type: "message", text: "x".repeat(length), id });
  FakeWebSocket.last.serverSends(GREETING);
  assert.deepEqual(
    FakeWebSocket.last.sent.map(({ id }) => id),
    ["a", "c"],
  );
  const [, refusal] = socket.frames;
  assert.deepEqual([refusal.type, refusal.code, refusal.id], ["error", "too_large", "b"]);
  assert.match(refusal.message, /^Too large: \d+ bytes, and 1000 fit\.$/);
  assert.equal(socket.pending.length, 2);
});

test("a page that closes when it is told so stays closed, and what follows is kept", () => {
  const socket = opened();
  socket.addEventListener("frame", ({ detail }) => detail.code === "too_large" && socket.close());
  for (const [id, length] of Object.entries({ b: 2000, c: 10 })) socket.deliver(message("x".repeat(length), id));
  FakeWebSocket.last.serverSends(GREETING);
  advance(60 * SECOND);
  assert.equal(socket.state, "closed");
  assert.equal(FakeWebSocket.all.length, 1);
  assert.deepEqual(
    socket.pending.map(({ id }) => id),
    ["c"],
  );
});

test("a pong that names a smaller size counts from then on", () => {
  const socket = greeted();
  socket.deliver({ type: "message", text: "x".repeat(500), id: "large" });
  advance(5 * SECOND);
  FakeWebSocket.last.serverSends({ type: "pong", max_size: 100, crowd: 0 });
  assert.throws(() => socket.send({ type: "typing", text: "x".repeat(100) }), RangeError);
  FakeWebSocket.last.serverCloses(1006);
  timeToNextAttempt();
  FakeWebSocket.last.serverSends({ ...GREETING, max_size: 100 });
  assert.deepEqual(socket.pending, []);
  assert.deepEqual(FakeWebSocket.last.sent, []);
  assert.equal(socket.frames.at(-1).code, "too_large");
});

test("only a greeting and a pong name the size, and only a number is one", () => {
  const socket = greeted();
  FakeWebSocket.last.serverSends({ type: "upload", max_size: 1, crowd: 1000 });
  for (const max_size of [0, -1, "1", null]) FakeWebSocket.last.serverSends({ type: "pong", max_size, crowd: "x" });
  assert.equal(socket.send({ type: "typing" }), true);
  FakeWebSocket.last.serverCloses(1006);
  assert.equal(timeToNextAttempt(), 250);
});

test("the outbox refuses what no longer fits, and keeps what it has", () => {
  const socket = opened();
  for (let number = 0; number < 1000; number += 1) socket.deliver({ type: "message", text: String(number) });
  assert.throws(() => socket.deliver({ type: "message", text: "one too many" }), {
    name: "RangeError",
    message: /^1000 messages wait already/,
  });
  assert.equal(socket.pending.length, 1000);
});

test("the outbox outlives the end of the connection", () => {
  const socket = greeted();
  const id = socket.deliver({ type: "message", text: "one" });
  FakeWebSocket.last.serverCloses(4401);
  assert.deepEqual(socket.pending, [message("one", id)]);
});
