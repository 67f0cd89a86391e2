/**
 * A WebSocket that comes back.
 *
 *     const socket = new ReconnectingSocket("/ws/socket-server/");
 *     socket.addEventListener("statechange", ({ detail }) => console.log(detail.state));
 *     socket.addEventListener("frame", ({ detail }) => console.log(detail.type));
 *     socket.open();
 *     socket.deliver({ type: "message", text: "Hello" });
 *
 * It tries again after every loss, waiting longer each time, and at once when the network or the reader is back.
 * It stops when the server closes with 4400 to 4499, since asking again would bring the same answer. Two of them
 * are exceptions: 4429 means later, and after 4401 it tries once more, since a login in another tab has changed
 * the cookie.
 *
 * Any consumer will do: the first thing that the server says shows that it is there. A RealtimeConsumer says more,
 * and is known by its greeting, `connection_established`:
 * - It answers pings. A ping without an answer counts as a loss, so that a dead network is noticed. A consumer that
 *   begins with another frame is asked once, and not again if it does not answer. One that begins with what is no
 *   frame (HTML, JSON without a type), or says nothing, is never asked: a ping could be an error there.
 * - Its greeting and pongs name the largest frame that it takes, `max_size` in bytes; the seconds over which its
 *   clients should spread when they come back, `crowd`; and how many frames it takes from one user, in the long run
 *   (`frames_per_second`, null without a limit) and at once (`frame_burst`).
 *
 * Whatever the consumer, the server may say `{"type": "wait", "seconds": n}` when others come first. Such an attempt
 * does not count as failed.
 *
 * This file needs nothing but a browser: it can be copied into a project with a bundler as it is.
 */

/** The close codes of realtime/close.py: two of RFC 6455, and those of the application. */
export const Close = Object.freeze({
  NORMAL: 1000, INTERNAL_ERROR: 1011,
  COME_BACK: 4000, NOT_LOGGED_IN: 4401, NOT_ALLOWED: 4403, NOT_FOUND: 4404, TOO_MANY_MESSAGES: 4429,
});

// All times are milliseconds, save where a frame or an option says seconds.

/** For each step: connecting, greeting, a pong. Above the server's PATIENCE, 8 s for a database or a Redis. */
const ANSWER_TIMEOUT = 10_000;
/** How often to ask whether the server is still there: below the 60 s after which proxies close an idle connection. */
const PING_INTERVAL = 25_000;
/** The first ping comes sooner: its answer shows that the connection is a good one. */
const FIRST_PING = 5_000;
/** The wait for the next attempt is random between 0 and a window, which is the server's `crowd` or, if larger, this… */
const MIN_WINDOW = 500;
/** …half as long again with each attempt since the last good connection, up to this. A few short waits by chance must not
 *  make a long one. */
const MAX_WINDOW = 30_000;
/** Waited in addition after NOT_LOGGED_IN: a login closes the sockets of the old session before the browser has the
 *  new cookie. */
const LOGIN_DELAY = 2_000;
/** A hidden page tries so often at once, then once in each interval: 20 times in an hour. */
const HIDDEN_BURST = 8;
const HIDDEN_INTERVAL = 300_000;
/** How many messages the outbox holds before it refuses more. */
const MAX_PENDING = 1_000;
/** Events of `window` that tell of the network and the reader. */
const PAGE_EVENTS = ["focus", "pageshow", "pagehide", "online", "offline"];

// Warnings for whoever writes the consumer.
const SILENT = "WebSocket: silent for 10 s, so it counts as connected; let the consumer's connect() send a frame.";
const NO_PONG = 'WebSocket: a ping had no answer, so it was the last; answer {"type": "ping"} with {"type": "pong"}.';
const NO_ID = "WebSocket: no answer to a delivered frame in 10 s; let the consumer send a frame with its id.";

/**
 * @typedef {"connecting" | "open" | "reconnecting" | "closed"} State
 *   `connecting`: the first attempt. `open`: the server has said something. `reconnecting`: lost, waiting or trying
 *   again. `closed`: not opened yet, or stopped for good.
 *
 * @typedef {{type: string, [key: string]: unknown}} Frame
 *   A JSON object, as sent in either direction.
 *
 * @typedef {{code?: number, reason?: string}} Why
 *   That of the close that caused a change. Without a code the page itself closed, or the browser refused to open.
 *
 * @typedef {object} Options
 * @property {string | string[]} [protocols]  Subprotocols to offer; "realtime" if there is a token, else none.
 * @property {string | (() => string | null | undefined | Promise<string | null | undefined>)} [token]  A bearer
 *   token, such as a ticket of /realtime/ticket/, offered as a subprotocol. A function is called for each attempt;
 *   one that throws makes it a failed attempt.
 * @property {number} [pace]  How many messages a second `deliver` sends after a burst, if not half of what the server
 *   allows; 10 for one that says nothing.
 * @property {boolean} [greets]  The server is known to be a RealtimeConsumer: silence is a failed attempt already
 *   before its first greeting, not a consumer that has nothing to say.
 *
 * @typedef {object} Events
 * @property {CustomEvent<{state: State} & Why>} statechange
 * @property {CustomEvent<Frame>} frame
 * @property {MessageEvent<string | ArrayBuffer>} message
 */

/**
 * @typedef {object} Listening
 * @property {<K extends keyof Events>(type: K, listener: (event: Events[K]) => void,
 *   options?: boolean | AddEventListenerOptions) => void} addEventListener
 */
const TypedEventTarget = /** @type {new () => Listening & EventTarget} */ (EventTarget);

/**
 * Fires three events:
 * - `statechange`, a CustomEvent with the detail `{state, code, reason}`. Failed attempts in a row are one
 *   `reconnecting`, and another for each that the server has closed with 4401 or 4429.
 * - `frame`, a CustomEvent whose detail is the `Frame` that the server sent, of whatever type. A delivered frame
 *   that turns out to be too large for the server is refused by an `error` frame of our own, code "too_large".
 * - `message`, a MessageEvent, for what is no frame: its `data` is a string or an ArrayBuffer.
 */
export class ReconnectingSocket extends TypedEventTarget {
  #options;
  /** @type {State} */
  #state = "closed";
  /** @type {WebSocket | undefined} The only live connection; events of any other are ignored. */
  #socket;
  /** @type {ReturnType<typeof setTimeout> | undefined} The one thing that is waited for: connecting, the greeting,
   *  the next ping, its answer, or the next attempt. */
  #timer;
  /** Whether to begin anew when the network or the reader is back: an attempt that waits to be made, or one that may
   *  hang, since the page was hidden or offline meanwhile. */
  #mayHurry = false;
  /** On the clock of `performance.now()`, as whatever is called "next" or "before" here. */
  #notBefore = -Infinity;
  #nextHidden = -Infinity;
  /** Whether the server has asked this attempt to wait for its turn. */
  #isQueued = false;
  #awaitsPong = false;
  /** @type {boolean | undefined} Whether it is a RealtimeConsumer; false when it has not answered our one ping, or
   *  not greeted. */
  #isRealtime;
  /** Attempts since the last good connection, and whether one of them was made because of NOT_LOGGED_IN. */
  #attempts = 0;
  #hasTriedAgain = false;
  /** What the server said last, or until it has. */
  #told = { maxSize: Infinity, crowd: 5, rate: 20, burst: 200 };
  /** @type {Map<string, Frame>} By id, oldest first, until the server shows that it has it. */
  #outbox = new Map();
  /** @type {Set<string>} Those of them that went out over the present connection. */
  #sent = new Set();
  /** @type {boolean | undefined} Whether the server answers with their ids, so that it is worth waiting for it. */
  #answersIds;
  /** Whether nothing at all has come since something was sent from the outbox. */
  #isSilent = false;
  #nextMessage = -Infinity;
  /** @type {ReturnType<typeof setTimeout> | undefined} The next look at the outbox. */
  #outboxTimer;
  #pageEvents = new AbortController();

  /**
   * @param {string | URL | (() => string | URL)} address  A path on this page's host, such as "/ws/socket-server/",
   *   or a URL (ws, wss, http, https). A function is called for each attempt, so that a query string can say what
   *   was seen last.
   * @param {Options} [options]
   */
  constructor(address, { protocols = [], token, pace, greets } = {}) {
    super();
    this.#options = { address, protocols, token, pace };
    this.#isRealtime = greets || undefined;
  }

  /** @returns {State} */
  get state() { return this.#state; }

  /** @returns {Frame[]}  What `deliver` took and the server has not confirmed, oldest first. */
  get pending() { return [...this.#outbox.values()]; }

  /** Connects, and stays connected until `close()` or a close code that means no. */
  open() {
    if (this.#state !== "closed") return;
    this.#trust();
    const { signal } = (this.#pageEvents = new AbortController());
    document.addEventListener("visibilitychange", this.#look, { signal });
    for (const type of PAGE_EVENTS) window.addEventListener(type, this.#look, { signal });
    this.#enter("connecting");
    if (!signal.aborted) this.#connect();
  }

  /**
   * Disconnects and stays so. The outbox is kept; `open()` begins anew.
   * @param {Why} [why]  For the detail of `statechange`.
   */
  close(why) {
    this.#pageEvents.abort();
    this.#drop();
    this.#enter("closed", why);
  }

  /**
   * Sends now or not at all: for what is of no use later, such as "is typing".
   * @param {Frame | string | BufferSource} frame  A string and bytes are sent as they are.
   * @returns {boolean}  Whether it was handed to an open connection.
   * @throws {RangeError}  It is larger than the server takes.
   */
  send(frame) {
    const data = typeof frame === "object" && "type" in frame ? JSON.stringify(frame) : frame;
    this.#measure(data);
    if (this.#state === "open") this.#socket?.send(data);
    return this.#state === "open";
  }

  /**
   * Sends now or after reconnecting, and again after each loss, until a frame comes back with the same id. An `error`
   * frame refuses it, save one with the code "rate_limited", after which it is sent again later. The order is kept:
   * what is delivered while answers are awaited goes out after them. The server may see an id twice, after a loss:
   * who shows messages skips known ids.
   * @param {Frame} frame  Gets an `id` unless it has one.
   * @returns {string}  The id.
   * @throws {RangeError}  The frame is larger than the server takes, or the outbox is full; it was not taken.
   */
  deliver(frame) {
    const id = String(frame.id ?? newId());
    this.#measure(JSON.stringify({ ...frame, id }));
    if (this.#outbox.size >= MAX_PENDING) throw new RangeError(`${MAX_PENDING} messages wait already; no more fit.`);
    this.#outbox.set(id, { ...frame, id });
    this.#flush();
    return id;
  }

  // The connection

  #connect() {
    const isHidden = document.visibilityState === "hidden";
    const early = isHidden ? this.#nextHidden - performance.now() : 0;
    this.#mayHurry = isHidden;
    // Better an attempt that may hang than none.
    if (early > 0) return this.#socket || this.#wait(early, () => this.#connect());
    this.#drop();

    if (isHidden) this.#nextHidden = nextOf(this.#nextHidden, HIDDEN_BURST, HIDDEN_INTERVAL);
    this.#wait(ANSWER_TIMEOUT, () => this.#lose());
    const { token } = this.#options;
    if (typeof token !== "function") return this.#start(token);
    const timer = this.#timer; // This attempt's own: another has another.
    new Promise((resolve) => resolve(token())).then(
      (value) => timer === this.#timer && this.#start(value),
      (error) => {
        console.warn("WebSocket: the token function failed, and is asked again later:", error);
        if (timer === this.#timer) this.#lose();
      },
    );
  }

  /** @param {string | null | undefined} token */
  #start(token) {
    try {
      const socket = new WebSocket(urlOf(this.#options.address), offer([this.#options.protocols].flat(), token));
      socket.binaryType = "arraybuffer";
      socket.onopen = () => socket === this.#socket && this.#wait(ANSWER_TIMEOUT, () => this.#endure(SILENT));
      socket.onmessage = ({ data }) => socket === this.#socket && this.#receive(data);
      socket.onclose = (event) => socket === this.#socket && this.#lose(event);
      this.#socket = socket;
    } catch (error) {
      console.warn("WebSocket: it cannot be opened:", error);
      this.close({ reason: String(error) });
    }
  }

  /** @param {string | ArrayBuffer} data */
  #receive(data) {
    const frame = parse(data);
    this.#isSilent = false;
    // What only a RealtimeConsumer sends.
    if (frame && ["connection_established", "pong"].includes(frame.type)) this.#note(frame);
    if (this.#state !== "open" && frame?.type === "wait") {
      this.#isQueued = true;
      this.#wait(milliseconds(frame.seconds) + ANSWER_TIMEOUT, () => this.#endure(SILENT));
    } else if (this.#state !== "open") {
      this.#wait(FIRST_PING, () => ((this.#isRealtime ?? frame) ? this.#ping() : this.#trust()));
      this.#enter("open");
    } else if (this.#isRealtime && (this.#awaitsPong || frame?.type === "connection_established")) {
      // Whatever comes after a ping shows that the server is there. A greeting may come late.
      this.#trust();
      this.#wait(PING_INTERVAL, () => this.#ping());
    }
    if (frame) this.#settle(frame);
    this.dispatchEvent(frame ? new CustomEvent("frame", { detail: frame }) : new MessageEvent("message", { data }));
    // Last, so that a page that finds somebody else greeted can close before it sends in that name.
    this.#flush();
  }

  /** @param {Frame} frame */
  #note({ max_size: size, crowd, frames_per_second: rate, frame_burst: burst }) {
    this.#isRealtime = true;
    if (typeof size === "number" && size > 0) this.#told.maxSize = size;
    if (typeof crowd === "number" && crowd >= 0) this.#told.crowd = crowd;
    if (rate === null || (typeof rate === "number" && rate > 0)) this.#told.rate = rate ?? Infinity;
    if (typeof burst === "number" && burst > 0) this.#told.burst = burst;
  }

  #ping() {
    this.#awaitsPong = true;
    this.#wait(ANSWER_TIMEOUT, () => this.#endure(NO_PONG));
    this.#socket?.send('{"type":"ping"}');
  }

  /**
   * Nothing has come for ANSWER_TIMEOUT: a loss, unless it may be a consumer that neither greets nor answers pings.
   * @param {string} remedy
   */
  #endure(remedy) {
    if (this.#isRealtime) return this.#lose();
    if (this.#isRealtime === undefined) console.warn(remedy);
    this.#isRealtime = false;
    this.#trust();
    this.#enter("open");
    this.#flush();
  }

  /** The connection is a good one: after a loss everything begins anew. */
  #trust() {
    this.#awaitsPong = this.#hasTriedAgain = false;
    this.#attempts = 0;
  }

  /** @param {Why} [why] */
  #lose({ code = 0, reason } = {}) {
    // The ping may have ended it, in a consumer that knows none.
    if (this.#awaitsPong) this.#isRealtime ??= false;
    const isLogin = code === Close.NOT_LOGGED_IN && !this.#hasTriedAgain;
    const isLater = code === Close.TOO_MANY_MESSAGES;
    // Until the server's bucket is full again.
    const extra = isLogin ? LOGIN_DELAY : isLater ? milliseconds(this.#told.burst / this.#told.rate) : 0;
    if (code >= 4400 && code <= 4499 && !isLogin && !isLater) return this.close({ code, reason });

    // Full jitter: after a restart the server's clients do not all return in the same instant.
    const window = Math.max(milliseconds(this.#told.crowd), Math.min(MAX_WINDOW, MIN_WINDOW * 1.5 ** this.#attempts));
    if (!this.#isQueued || this.#state === "open") this.#attempts += 1;
    this.#hasTriedAgain ||= isLogin;
    this.#drop();
    this.#wait(extra + Math.random() * window, () => this.#connect());
    this.#notBefore = performance.now() + extra;
    this.#mayHurry = true;
    this.#enter("reconnecting", code ? { code, reason } : {});
  }

  /**
   * The network or the reader is gone or back. When it is back there is no reason to wait, and good reason to doubt an
   * old connection.
   * @param {Event} event
   */
  #look = ({ type }) => {
    const isBack = type === "online" || (type !== "offline" && document.visibilityState !== "hidden");
    // Browsers keep a page for the back button only if it holds no connection.
    if (type === "pagehide") this.#socket && this.#lose();
    else if (!isBack) this.#mayHurry ||= !this.#isQueued;
    else if (this.#state === "open") this.#isRealtime && !this.#awaitsPong && this.#ping();
    else if (this.#mayHurry && this.#notBefore <= performance.now()) this.#connect();
  };

  /** Forgets the connection at once: its close event may come a minute late, or never. */
  #drop() {
    this.#socket?.close();
    this.#socket = undefined;
    this.#awaitsPong = this.#isQueued = false;
    this.#sent.clear();
    clearTimeout(this.#outboxTimer);
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /**
   * @param {State} state
   * @param {Why} [why]
   */
  #enter(state, why) {
    if (state === this.#state && !(state === "reconnecting" && (why?.code ?? 0) >= 4400)) return;
    this.#state = state;
    this.dispatchEvent(new CustomEvent("statechange", { detail: { state, ...why } }));
  }

  /**
   * @param {number} delay
   * @param {() => void} then
   */
  #wait(delay, then) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(then, delay);
  }

  // The outbox

  /**
   * @param {string | BufferSource} data
   * @throws {RangeError}  The server can never take it.
   */
  #measure(data) {
    const size = typeof data === "string" ? new TextEncoder().encode(data).length : data.byteLength;
    if (size > this.#told.maxSize) throw new RangeError(`Too large: ${size} bytes, and ${this.#told.maxSize} fit.`);
  }

  /**
   * The server's word on a message: it has it, refuses it, or refuses it for now.
   * @param {Frame} frame
   */
  #settle({ type, id, code, retry_after: seconds }) {
    if (this.#sent.delete(String(id))) this.#answersIds ??= true;
    if (type !== "error" || code !== "rate_limited") this.#outbox.delete(String(id));
    else this.#nextMessage = Math.max(this.#nextMessage, performance.now() + (milliseconds(seconds) || 1000));
  }

  /**
   * Sends in one go what waits and this connection has not carried yet. What comes later waits for the answers to all
   * of it: a message that the server refuses for now must not be overtaken by the next one.
   * @param {boolean} [isOverdue]  The answers have not come, and are not waited for any more.
   */
  #flush(isOverdue = false) {
    // The network may be dead, which is no fault of the consumer's: the ping that is on its way, or this one, tells.
    const isDoubtful = isOverdue && this.#isSilent && this.#isRealtime;
    if (isDoubtful && !this.#awaitsPong) this.#ping();
    if (isDoubtful) this.#outboxTimer = setTimeout(() => this.#flush(true), ANSWER_TIMEOUT);
    if (isOverdue && !isDoubtful) console.warn(NO_ID);
    if (isOverdue && !isDoubtful) this.#answersIds = false;
    if (isDoubtful || this.#state !== "open" || (this.#answersIds && this.#sent.size)) return;
    let early = 0;
    for (const [id, frame] of this.#outbox) {
      if (this.#sent.has(id)) continue;
      early = this.#nextMessage - performance.now();
      if (early > 0) break;
      try {
        if (!this.send(frame)) return; // The page has closed, in an event.
        // The other half is for `send` and other tabs.
        const interval = 1000 / (this.#options.pace ?? this.#told.rate / 2);
        this.#nextMessage = nextOf(this.#nextMessage, Math.max(1, this.#told.burst / 2), interval);
        this.#sent.add(id);
        this.#isSilent = true;
      } catch (error) {
        this.#outbox.delete(id);
        const detail = { type: "error", code: "too_large", message: /** @type {Error} */ (error).message, id };
        this.dispatchEvent(new CustomEvent("frame", { detail }));
      }
    }
    clearTimeout(this.#outboxTimer);
    if (early > 0 && !(this.#sent.size && this.#answersIds)) this.#outboxTimer = setTimeout(() => this.#flush(), early);
    else if (this.#sent.size && this.#answersIds !== false)
      this.#outboxTimer = setTimeout(() => this.#flush(true), ANSWER_TIMEOUT);
  }
}

/** @param {unknown} seconds  Returns 0 for what is no time, and at most a day: setTimeout takes no more than 24. */
const milliseconds = (seconds) => Math.min(Math.max(0, Number(seconds) * 1000) || 0, 86_400_000);

/**
 * Returns when the next one is allowed after one now: `burst` at once, then one in each `interval`.
 * @param {number} next  What it returned for the one before.
 * @param {number} burst
 * @param {number} interval
 */
const nextOf = (next, burst, interval) => Math.max(next, performance.now() - (burst - 1) * interval) + interval;

/** @param {string | URL | (() => string | URL)} address */
function urlOf(address) {
  const url = new URL(typeof address === "function" ? address() : address, `${location.protocol}//${location.host}`);
  return url.href.replace(/^http/, "ws");
}

/**
 * Returns the subprotocols to offer. A browser fails when the server picks none, and the token is none to pick: so it
 * is never alone. A subprotocol is a token of RFC 9110, section 5.6.2; anything else crosses as base64url.
 * @param {string[]} protocols
 * @param {string | null | undefined} token
 */
function offer(protocols, token) {
  if (!token) return protocols;
  const base64 = btoa(String.fromCharCode(...new TextEncoder().encode(token))).replace(/=+$/, "");
  const isPlain = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/.test(token);
  const coded = isPlain ? `bearer.${token}` : `bearer64.${base64.replaceAll("+", "-").replaceAll("/", "_")}`;
  return [...(protocols.length ? protocols : ["realtime"]), coded];
}

/**
 * @param {string | ArrayBuffer} data
 * @returns {Frame | undefined}  Undefined for what is no frame.
 */
function parse(data) {
  try {
    const value = typeof data === "string" ? JSON.parse(data) : undefined;
    return typeof value?.type === "string" ? value : undefined;
  } catch {}
}

/** A version 4 UUID. `crypto.randomUUID` is missing on plain http, which a phone in the same network uses. */
function newId() {
  const hex = Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0"));
  return hex.join("").replace(/^(.{8})(.{4}).(.{3}).(.{3})/, "$1-$2-4$3-8$4-");
}
