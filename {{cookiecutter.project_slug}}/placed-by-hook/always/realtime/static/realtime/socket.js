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

/** The only close code of 4400 to 4499 that means "later", not "no". */
const TOO_MANY_MESSAGES = 4429;

// All times are milliseconds.

/** How long the server may take to greet, counted from the first attempt to connect, or to answer a ping. */
const ANSWER_TIMEOUT = 10_000;
/** How often to ask whether the server is still there. */
const PING_INTERVAL = 25_000;
/** The first ping comes sooner: its answer shows that the connection is a good one. */
const FIRST_PING = 5_000;
/** The wait for the next attempt is random between 0 and a bound, which starts here… */
const FIRST_DELAY = 500;
/** …and doubles with each attempt since the last good connection, up to this. */
const MAX_DELAY = 30_000;
/** Waited in addition after TOO_MANY_MESSAGES. */
const TOO_MANY_DELAY = 10_000;
/** Between two messages from the outbox, so that a full one does not run into the server's rate limit. */
const PACE = 100;
/** How many messages the outbox holds before it refuses more. */
const MAX_PENDING = 1_000;

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
  /** @type {State} */
  #state = "closed";
  #path;
  /** @type {WebSocket | null} The only live connection; events of any other are ignored. */
  #socket = null;
  /** The one thing that is waited for: the greeting, the next ping, its answer, or the next attempt. */
  #timer = 0;
  #awaitsPong = false;
  /** Attempts since the last good connection. */
  #attempts = 0;
  /** Whether the wait for the next attempt may be cut short. */
  #mayHurry = true;
  /** @type {Map<string, Frame>} By id, oldest first, until the server shows that it has it. */
  #outbox = new Map();
  /** Ids that went out over the present connection. */
  #sent = new Set();
  /** The timer of a pause of the outbox; 0 without one. */
  #pause = 0;
  #pageEvents = new AbortController();

  /**
   * @param {string | (() => string)} path  Path on this page's host, such as "/ws/socket-server/"; a
   *   function is called for each attempt, so that a query string can say what was seen last.
   */
  constructor(path) {
    super();
    this.#path = path;
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
    this.#attempts = 0;
    this.#pageEvents = new AbortController();
    const { signal } = this.#pageEvents;
    const wake = () => document.visibilityState === "visible" && this.#wake();
    document.addEventListener("visibilitychange", wake, { signal });
    for (const type of ["focus", "pageshow"]) window.addEventListener(type, wake, { signal });
    window.addEventListener("online", () => this.#wake(), { signal });
    // Browsers keep a page for the back button only if it holds no connection.
    window.addEventListener("pagehide", () => this.#socket && this.#lose(), { signal });
    this.#connect();
    this.#enter("connecting");
  }

  /**
   * Disconnects and stays so. The outbox is kept; `open()` begins anew.
   * @param {{code?: number, reason?: string}} [why]  For the detail of `statechange`.
   */
  close(why) {
    this.#pageEvents.abort();
    this.#drop();
    this.#enter("closed", why);
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
    if (this.#outbox.size >= MAX_PENDING) throw new RangeError(`${MAX_PENDING} messages wait already; no more fit.`);
    const id = frame.id ?? newId();
    this.#outbox.set(id, { ...frame, id });
    this.#flush();
    return id;
  }

  #connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const path = typeof this.#path === "function" ? this.#path() : this.#path;
    const socket = new WebSocket(`${scheme}//${location.host}${path}`);
    socket.onmessage = ({ data }) => socket === this.#socket && this.#receive(data);
    socket.onclose = (event) => socket === this.#socket && this.#lose(event);
    this.#socket = socket;
    this.#wait(ANSWER_TIMEOUT, () => this.#lose());
  }

  #receive(data) {
    // Whatever comes after a ping shows that the server is there.
    if (this.#awaitsPong) {
      this.#awaitsPong = false;
      this.#attempts = 0;
      this.#wait(PING_INTERVAL, () => this.#ping());
    }
    const frame = parse(data);
    if (frame?.type === "connection_established") {
      this.#wait(FIRST_PING, () => this.#ping());
      this.#enter("open");
    }
    if (frame?.type === "message" || frame?.type === "error") this.#settle(frame);
    if (typeof frame?.type === "string") this.dispatchEvent(new CustomEvent("frame", { detail: frame }));
    // Last, so that a page that finds somebody else greeted can close before it sends in that name.
    if (frame?.type === "connection_established") this.#flush();
  }

  #ping() {
    this.#awaitsPong = true;
    this.#wait(ANSWER_TIMEOUT, () => this.#lose());
    this.send({ type: "ping" });
  }

  #lose({ code, reason } = {}) {
    this.#drop();
    this.#mayHurry = code !== TOO_MANY_MESSAGES;
    if (code >= 4400 && code <= 4499 && this.#mayHurry) return this.close({ code, reason });

    // Full jitter: after a restart the server's clients do not all return in the same instant.
    const delay = Math.random() * Math.min(MAX_DELAY, FIRST_DELAY * 2 ** this.#attempts++);
    this.#wait(delay + (this.#mayHurry ? 0 : TOO_MANY_DELAY), () => this.#connect());
    this.#enter("reconnecting", { code, reason });
  }

  /** The network or the reader is back: no reason to wait, and good reason to doubt an old connection. */
  #wake() {
    if (!this.#socket && this.#mayHurry) this.#connect();
    else if (this.#state === "open" && !this.#awaitsPong) this.#ping();
  }

  /** Forgets the connection at once: its close event may come a minute late, or never. */
  #drop() {
    this.#socket?.close();
    this.#socket = null;
    this.#awaitsPong = false;
    this.#sent.clear();
    clearTimeout(this.#timer);
  }

  #enter(state, detail) {
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
    this.#sent.delete(id);
    if (type === "error" && code === "rate_limited") this.#pauseOutbox((Number(seconds) || 1) * 1000);
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
    for (const [id, frame] of this.#outbox) {
      if (this.#pause || this.#state !== "open") return;
      if (this.#sent.has(id)) continue;
      this.send(frame);
      this.#sent.add(id);
      this.#pauseOutbox(PACE);
    }
  }
}

/** Returns undefined for what is not JSON. */
function parse(data) {
  try {
    return JSON.parse(data);
  } catch {}
}

/** A version 4 UUID. `crypto.randomUUID` is missing on plain http, which a phone in the same network uses. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4}).(.{3}).(.{3})/, "$1-$2-4$3-8$4-");
}
