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
const { ReconnectingSocket } = await import(pathToFileURL(join(folder, "socket.mjs")));
after(() => rmSync(folder, { recursive: true }));

const GREETING = { type: "connection_established", message: "You are now connected!" };
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

  constructor(url) {
    this.url = url;
    FakeWebSocket.all.push(this);
  }
  send(data) {
    this.sent.push(JSON.parse(data));
  }
  // Like a browser on a dead network: the close event does not come.
  close() {
    this.isLive = false;
  }

  serverSends(frame) {
    this.onmessage({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
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

beforeEach(() => {
  random = 0.5;
  FakeWebSocket.all = [];
  mock.timers.enable({ apis: ["setTimeout", "Date"] });
  mock.method(Math, "random", () => random);
  const document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  const location = { protocol: "http:", host: "example.test:8000" };
  Object.assign(globalThis, { WebSocket: FakeWebSocket, window: new EventTarget(), document, location });
});

afterEach(() => {
  assert.ok(FakeWebSocket.live.length <= 1, "never two live connections");
  mock.timers.reset();
  mock.restoreAll();
});

/** An opened socket that notes its states and frames. */
function opened() {
  const socket = new ReconnectingSocket("/ws/socket-server/");
  socket.states = [];
  socket.frames = [];
  socket.addEventListener("statechange", ({ detail }) => socket.states.push(detail.state));
  socket.addEventListener("frame", ({ detail }) => socket.frames.push(detail));
  socket.open();
  return socket;
}

/** An opened socket whose server has greeted. */
function greeted() {
  const socket = opened();
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

test("it is open when the server has greeted, not before", () => {
  const socket = opened();
  FakeWebSocket.last.onopen?.();
  assert.equal(socket.state, "connecting");
  FakeWebSocket.last.serverSends(GREETING);
  assert.equal(socket.state, "open");
  assert.deepEqual(socket.frames, [GREETING]);
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

test("an attempt without a greeting is given up after 10 s", () => {
  const socket = opened();
  advance(10 * SECOND - 1);
  assert.equal(socket.state, "connecting");
  advance(1);
  assert.equal(socket.state, "reconnecting");
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
  stale.serverSends(message("late"));
  stale.serverCloses(4401);
  assert.equal(socket.state, "open");
  assert.deepEqual(socket.frames, [GREETING]);
});

// Back-off

test("waits are random between 0 and a bound that doubles up to 30 s", () => {
  const bounds = [0.5, 1, 2, 4, 8, 16, 30, 30, 30];
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
  assert.deepEqual(waits, [250, 500, 1000, 2000]);
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
  FakeWebSocket.last.serverCloses(4401);
  socket.open();
  FakeWebSocket.last.serverCloses(1006);
  assert.equal(timeToNextAttempt(), 250);
});

// Close codes

for (const code of [4400, 4401, 4403, 4404, 4499]) {
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
  document.visibilityState = "hidden";
  document.dispatchEvent(new Event("visibilitychange"));
  assert.equal(FakeWebSocket.live.length, 0);
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

test("the doubt ends with its connection: the next one has 10 s to greet, whatever else it says", () => {
  greeted();
  advance(15 * SECOND);
  timeToNextAttempt();
  FakeWebSocket.last.serverSends({ type: "error", code: "busy", message: "…" });
  advance(10 * SECOND);
  assert.equal(FakeWebSocket.live.length, 0);
});

// Frames

test("frames of any type reach the page; what is no frame is ignored", () => {
  const socket = greeted();
  for (const data of ["{", "null", "[]", "7", '"text"', "{}", '{"type":7}']) FakeWebSocket.last.serverSends(data);
  FakeWebSocket.last.serverSends({ type: "presence", users: ["Ada"] });
  assert.deepEqual(socket.frames, [GREETING, { type: "presence", users: ["Ada"] }]);
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
  FakeWebSocket.last.serverSends({ type: "error", code: "rate_limited", message: "…", id, retry_after: 3 });
  socket.deliver({ type: "message", text: "two" });
  advance(3 * SECOND - 1);
  assert.deepEqual(FakeWebSocket.last.messages, ["one"]);
  advance(SECOND);
  assert.deepEqual(FakeWebSocket.last.messages, ["one", "one", "two"]);
});

test("rate_limited without a usable retry_after waits a second", () => {
  for (const retry_after of [undefined, 0, "soon"]) {
    const socket = greeted();
    const id = socket.deliver({ type: "message", text: "one" });
    FakeWebSocket.last.serverSends({ type: "error", code: "rate_limited", message: "…", id, retry_after });
    advance(SECOND - 1);
    assert.equal(FakeWebSocket.last.messages.length, 1);
    advance(1);
    assert.equal(FakeWebSocket.last.messages.length, 2);
    socket.close();
  }
});

test("a later rate_limited replaces the pause of an earlier one", () => {
  const socket = greeted();
  const ids = ["one", "two"].map((text) => socket.deliver({ type: "message", text }));
  advance(SECOND);
  FakeWebSocket.last.serverSends({ type: "error", code: "rate_limited", message: "…", id: ids[0], retry_after: 1 });
  FakeWebSocket.last.serverSends({ type: "error", code: "rate_limited", message: "…", id: ids[1], retry_after: 3 });
  advance(2 * SECOND);
  assert.deepEqual(FakeWebSocket.last.messages, ["one", "two"]);
  advance(2 * SECOND);
  assert.deepEqual(FakeWebSocket.last.messages, ["one", "two", "one", "two"]);
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
  FakeWebSocket.last.serverSends({ type: "error", code: "rate_limited", message: "…", id, retry_after: 3 });
  FakeWebSocket.last.serverCloses(1006);
  timeToNextAttempt();
  FakeWebSocket.last.serverSends(GREETING);
  assert.deepEqual(FakeWebSocket.last.messages, []);
  advance(3 * SECOND);
  assert.deepEqual(FakeWebSocket.last.messages, ["one"]);
});

test("a full outbox is sent in order, ten messages a second", () => {
  const socket = opened();
  for (let number = 0; number < 25; number += 1) socket.deliver({ type: "message", text: String(number) });
  FakeWebSocket.last.serverSends(GREETING);
  const counts = [0, 1, 1, 1].map((seconds) => {
    advance(seconds * SECOND);
    return FakeWebSocket.last.messages.length;
  });
  assert.deepEqual(counts, [1, 11, 21, 25]);
  const numbers = FakeWebSocket.last.messages.map(Number);
  assert.deepEqual(
    numbers,
    numbers.toSorted((one, other) => one - other),
  );
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
