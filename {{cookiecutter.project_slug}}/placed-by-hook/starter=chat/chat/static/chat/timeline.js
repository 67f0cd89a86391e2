/**
 * The messages of a room as a page has them: an unbroken run of numbers, from `oldest` to `newest`.
 *
 * A message that does not continue the run is not shown: the page asks for what is missing, and the server sends
 * everything from there on again. What is shown is told to a view, so that this needs no browser.
 */

/** As many messages that come at once are read out by a screen reader; more would talk for minutes. */
const MAX_READ_OUT = 5;

/**
 * @typedef {{seq: number, id: string, user: string, text: string, sent_at: string}} Message
 *
 * @typedef {object} View
 * @property {(message: Message, isNew: boolean) => number} add  Shows a message at the end, and returns the number of
 *   the first one that it still shows. `isNew`: it has just been written, and is no part of a long replay.
 * @property {(messages: Message[], more: boolean) => void} addBefore  Shows a page of history. `more`: there is more.
 * @property {(seq: number) => void} takeBack  Shows that a text was taken back, if the message is on the page.
 * @property {() => void} clear
 */

export class Timeline {
  /** The run; null before there is one. */
  oldest = null;
  newest = null;
  /** The highest number that the server has told of. */
  latest = 0;
  #view;
  #ask;
  /** The server is sending the first messages. */
  #starting = false;
  /** It is sending what is missing, or has been asked to. */
  #catchingUp = false;
  /** It has been asked for a page of history. */
  #turningBack = false;
  /** The numbers of messages that were taken back: their texts may still be on their way. */
  #takenBack = new Set();

  /**
   * @param {View} view
   * @param {(frame: object) => boolean} ask  Sends a frame now or not at all, and returns whether it was sent.
   */
  constructor(view, ask) {
    this.#view = view;
    this.#ask = ask;
  }

  /** The connection is another one: what was asked for may not come. */
  reset() {
    this.#turningBack = false;
  }

  clear() {
    this.oldest = this.newest = null;
    this.#takenBack.clear();
    this.#view.clear();
  }

  /**
   * Takes the server's greeting.
   * @returns {boolean}  False if the page must connect again and start anew: it has missed very many messages, or the
   *   server has another database now, with fewer of them.
   */
  greet({ last_seq: last }) {
    if (this.newest > last) {
      this.clear();
      return false;
    }
    this.latest = last;
    if (this.newest === null && last === 0) this.newest = 0;
    this.#starting = this.newest === null;
    this.#catchingUp = this.newest !== last; // Without being asked.
    return true;
  }

  /** @param {Message} message */
  take(message) {
    const { seq } = message;
    this.latest = Math.max(this.latest, seq);
    if (this.newest !== null && seq > this.newest + 1) {
      if (!this.#starting) return this.#catchUp();
      this.clear(); // What came before it was from long ago: the answer to a message that was sent again.
    }
    if (this.newest === null || seq > this.newest) {
      this.newest = seq;
      this.oldest = this.#view.add(this.#current(message), !this.#starting && this.latest - seq < MAX_READ_OUT);
    }
    if (this.newest === this.latest) this.#starting = this.#catchingUp = false;
  }

  /** Takes a pong, which tells the last number. */
  compare({ last_seq: last }) {
    this.latest = Math.max(this.latest, last);
    if (this.newest === null || this.newest >= this.latest) return;
    this.#catchingUp = false; // It may have been asked in vain.
    this.#catchUp();
  }

  #catchUp() {
    if (!this.#catchingUp) this.#catchingUp = this.#ask({ type: "resume", after: this.newest });
  }

  /**
   * Asks for a page of history.
   * @returns {boolean}  False if that cannot be asked now.
   */
  turnBack() {
    if (!this.#turningBack) this.#turningBack = this.#ask({ type: "history", before: this.oldest });
    return this.#turningBack;
  }

  /** Takes a page of history. */
  takeHistory({ before, more, messages }) {
    this.#turningBack = false;
    if (before !== this.oldest) return;
    this.oldest = messages[0]?.seq ?? this.oldest;
    this.#view.addBefore(messages.map((message) => this.#current(message)), more);
  }

  /** The text of the message of this number was taken back. */
  takeBack(seq) {
    this.#takenBack.add(seq);
    this.#view.takeBack(seq);
  }

  /** @param {Message} message */
  #current(message) {
    return this.#takenBack.has(message.seq) ? { ...message, text: "" } : message;
  }

  /** The server has refused a frame. Returns whether it may have been a request for history. */
  refused() {
    const wasTurningBack = this.#turningBack;
    this.#turningBack = false;
    return wasTurningBack;
  }
}
