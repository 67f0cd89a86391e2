/**
 * A WebSocket that comes back.
 *
 *     const socket = new ReconnectingSocket("/ws/socket-server/");
 *     socket.addEventListener("statechange", ({ detail }) => console.log(detail.state));
 *     socket.addEventListener("frame", ({ detail }) => console.log(detail.type));
 *     socket.open();
 *     socket.deliver({ type: "message", text: "Hello" });
 *
 * It tries again after every loss, waiting longer each time, and at once when the network or the reader
 * is back. It notices a dead network by asking: a ping without an answer counts as a loss. It stops when
 * the server closes with 4400 to 4499, since asking again would bring the same answer.
 */

/** Close code for too many messages: the only one of 4400 to 4499 that means "later", not "no". */
const TOO_MANY_MESSAGES = 4429;

/** All times are in milliseconds. Each may be changed with the constructor's second argument. */
const DEFAULTS = {
  /** How long a connection attempt may take, the server's greeting included. */
  openTimeout: 10_000,
  /** How often to ask whether the server is still there. */
  pingInterval: 25_000,
  /** How long the answer may take. */
  pongTimeout: 10_000,
  /** The first wait is random between 0 and this; the upper bound doubles with each failure… */
  firstDelay: 500,
  /** …up to this. */
  maxDelay: 30_000,
  /** Waited in addition after close code 4429. */
  tooManyDelay: 10_000,
  /** A connection this old was a good one: the next loss starts again with the first wait. */
  stableAfter: 5_000,
  /** After so many messages from the outbox in one go… */
  burst: 10,
  /** …comes a pause, so that a full outbox does not run into the server's rate limit. */
  burstPause: 1_000,
  /** How many messages the outbox holds before it refuses more. */
  maxPending: 1_000,
};

/**
 * @typedef {"connecting" | "open" | "reconnecting" | "closed"} State
 *   `connecting`: the first attempt. `open`: the server has greeted. `reconnecting`: lost, waiting or
 *   trying again. `closed`: not opened yet, or stopped for good.
 *
 * @typedef {{type: string, [key: string]: unknown}} Frame
 *   A JSON object, as sent in either direction.
 */

/**
 * Fires two events, both a `CustomEvent`:
 * - `statechange`, detail `{state: State, code?: number, reason?: string}`. The code and the reason are
 *   those of the close that caused the change. Failed attempts in a row are one `reconnecting`.
 * - `frame`, detail: the `Frame` that the server sent, of whatever type.
 */
export class ReconnectingSocket extends EventTarget {
  #path;
  #options;
  /** @type {State} */
  #state = "closed";
  /** @type {WebSocket | null} The only live connection; events of any other are ignored. */
  #socket = null;
  /** The one thing that is waited for: the greeting, the next ping, its answer, or the next attempt. */
  #timer = 0;
  #failures = 0;
  #greetedAt = 0;
  #awaitsPong = false;
  /** Whether the wait for the next attempt may be cut short. */
  #mayHurry = true;
  /** @type {Map<string, Frame>} By id, oldest first, until the server shows that it has it. */
  #outbox = new Map();
  /** Ids already sent over the present connection. */
  #sent = new Set();
  /** Not 0 while the outbox pauses. */
  #pause = 0;
  #pageEvents = new AbortController();

  /**
   * @param {string | (() => string)} path  Path on this page's host, such as "/ws/socket-server/"; a
   *   function is called for each attempt, so that a query string can say what was seen last.
   * @param {Partial<typeof DEFAULTS>} [options]
   */
  constructor(path, options = {}) {
    super();
    this.#path = path;
    this.#options = { ...DEFAULTS, ...options };
  }

  /** @returns {State} */
  get state() {
    return this.#state;
  }

  /** @returns {Frame[]}  What `deliver` took and the server has not confirmed, oldest first. */
  get pending() {
    return [...this.#outbox.values()];
  }

  /** Connects, and stays connected until `close()` or a close code that means no. */
  open() {
    if (this.#state !== "closed") return;
    this.#failures = 0;
    this.#pageEvents = new AbortController();
    const { signal } = this.#pageEvents;
    const isVisible = () => document.visibilityState === "visible";
    window.addEventListener("online", () => this.#wake(), { signal });
    window.addEventListener("focus", () => this.#wake(), { signal });
    window.addEventListener("pageshow", (event) => event.persisted && this.#wake(), { signal });
    window.addEventListener("pagehide", () => this.#suspend(), { signal });
    document.addEventListener("visibilitychange", () => isVisible() && this.#wake(), { signal });
    this.#connect();
    this.#enter("connecting");
  }

  /** Disconnects and stays so. The outbox is kept; `open()` begins anew. */
  close() {
    this.#stop();
  }

  /**
   * Sends now or not at all: for what is of no use later, such as "is typing".
   * @param {Frame} frame
   * @returns {boolean}  Whether it was handed to an open connection.
   */
  send(frame) {
    if (this.#state !== "open") return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  /**
   * Sends now or after reconnecting, and again after each loss, until a `message` or an `error` frame comes
   * back with the same id. The server may therefore see an id twice: who shows messages skips known ids.
   * @param {Frame} frame  Gets an `id` unless it has one.
   * @returns {string}  The id.
   * @throws {RangeError}  The outbox is full; the frame was not taken.
   */
  deliver(frame) {
    if (this.#outbox.size >= this.#options.maxPending) {
      throw new RangeError(`${this.#outbox.size} messages are waiting to be sent; no more fit.`);
    }
    const id = frame.id ?? newId();
    this.#outbox.set(id, { ...frame, id });
    this.#flush();
    return id;
  }

  #connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const path = typeof this.#path === "function" ? this.#path() : this.#path;
    const socket = new WebSocket(`${scheme}//${location.host}${path}`);
    this.#socket = socket;
    this.#mayHurry = true;
    const listen = (type, handler) =>
      socket.addEventListener(type, (event) => socket === this.#socket && handler(event));
    listen("message", (event) => this.#receive(event.data));
    listen("close", (event) => this.#lose(event));
    this.#wait(this.#options.openTimeout, () => this.#lose());
  }

  #receive(data) {
    if (this.#awaitsPong) this.#rest(); // Whatever arrives shows that the server is there.
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return;
    }
    if (typeof frame?.type !== "string") return;
    if (frame.type === "connection_established") this.#greet();
    if (frame.type === "message" || frame.type === "error") this.#settle(frame);
    this.dispatchEvent(new CustomEvent("frame", { detail: frame }));
  }

  #greet() {
    this.#greetedAt = Date.now();
    this.#rest();
    this.#enter("open");
    this.#flush();
  }

  #rest() {
    this.#awaitsPong = false;
    this.#wait(this.#options.pingInterval, () => this.#ping());
  }

  #ping() {
    this.#awaitsPong = true;
    this.send({ type: "ping" });
    this.#wait(this.#options.pongTimeout, () => this.#lose());
  }

  #lose({ code, reason } = {}) {
    const { firstDelay, maxDelay, stableAfter, tooManyDelay } = this.#options;
    const wasStable = this.#state === "open" && Date.now() - this.#greetedAt >= stableAfter;
    this.#drop();
    this.#mayHurry = code !== TOO_MANY_MESSAGES;
    if (code >= 4400 && code <= 4499 && this.#mayHurry) return this.#stop({ code, reason });

    // Full jitter: after a restart the server's clients do not all return in the same instant.
    if (wasStable) this.#failures = 0;
    const delay = Math.random() * Math.min(maxDelay, firstDelay * 2 ** this.#failures++);
    this.#wait(delay + (this.#mayHurry ? 0 : tooManyDelay), () => this.#connect());
    this.#enter("reconnecting", { code, reason });
  }

  /** The network or the reader is back: no reason to wait, and good reason to doubt an old connection. */
  #wake() {
    if (!this.#socket && this.#mayHurry) this.#connect();
    else if (this.#state === "open" && !this.#awaitsPong) this.#ping();
  }

  /** The page is left. Browsers keep it for the back button only if it holds no connection. */
  #suspend() {
    if (!this.#socket) return;
    this.#drop();
    this.#enter("reconnecting");
  }

  #stop(detail = {}) {
    this.#pageEvents.abort();
    this.#drop();
    this.#enter("closed", detail);
  }

  /** Forgets the connection first: its close event may come a minute late, or never. */
  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    this.#awaitsPong = false;
    this.#sent.clear();
    clearTimeout(this.#timer);
    socket?.close();
  }

  #enter(state, detail = {}) {
    if (state === this.#state) return;
    this.#state = state;
    this.dispatchEvent(new CustomEvent("statechange", { detail: { state, ...detail } }));
  }

  #wait(delay, then) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(then, delay);
  }

  /** The server's word on a message: it has it, refuses it, or refuses it for now. */
  #settle({ type, id, code, retry_after: seconds }) {
    const later = type === "error" && code === "rate_limited";
    this.#sent.delete(id);
    if (later) this.#pauseOutbox((Number(seconds) || 1) * 1000);
    else this.#outbox.delete(id);
  }

  #pauseOutbox(delay) {
    clearTimeout(this.#pause);
    this.#pause = setTimeout(() => {
      this.#pause = 0;
      this.#flush();
    }, delay);
  }

  /** Sends what this connection has not carried yet, in order. */
  #flush() {
    let room = this.#options.burst;
    for (const [id, frame] of this.#outbox) {
      if (this.#pause || this.#state !== "open") return;
      if (this.#sent.has(id)) continue;
      this.send(frame);
      this.#sent.add(id);
      if (--room === 0) this.#pauseOutbox(this.#options.burstPause);
    }
  }
}

/** A version 4 UUID. `crypto.randomUUID` is missing on plain http, which a phone in the same network uses. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
