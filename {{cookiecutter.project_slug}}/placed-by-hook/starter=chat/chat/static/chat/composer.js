/** What is typed, and what of it the server has not confirmed yet. */

import { join } from "./messages.js";
import { format, gettext } from "../accounts/texts.js";

/** A text without it would be an empty bubble. */
const VISIBLE = /[^\s\p{Cc}\p{Cf}]/u;

/** The field, which keeps what is typed as a draft until it is sent. */
export class Composer {
  #form;
  #input;
  #notice;
  #max;
  #kept;

  /**
   * @param {object} elements  Those of the page by id: form, text, notice.
   * @param {number} max  Characters of a message.
   * @param {import("../accounts/kept.js").Kept} kept
   * @param {{send: (text: string) => void, type: () => void}} events  `send` throws an Error whose message is shown,
   *   and the text stays where it was typed.
   */
  constructor({ form, text: input, notice }, max, kept, { send, type }) {
    this.#form = form;
    this.#input = input;
    this.#notice = notice;
    this.#max = max;
    this.#kept = kept;
    input.value ||= kept.draft;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit(send);
    });
    input.addEventListener("input", () => {
      kept.draft = input.value;
      if (notice.dataset.about === "length") this.#measure();
      type();
    });
    input.addEventListener("keydown", (event) => this.#press(event));
  }

  #submit(send) {
    this.#input.focus();
    // Half of a surrogate pair cannot be sent, and NUL cannot be stored.
    const text = this.#input.value.replace(/[\p{Surrogate}\0]/gu, "\uFFFD");
    if (!VISIBLE.test(text) || !this.#measure()) return;
    try {
      send(text);
      this.#input.value = this.#kept.draft = "";
    } catch (error) {
      this.say(error.message);
    }
  }

  /** Says by how much the text is too long, as long as it is. Returns whether it fits. */
  #measure() {
    const length = [...this.#input.value].length; // Code points, as Python counts.
    const fits = length <= this.#max;
    if (!fits) this.say(format(gettext("Not sent: %s characters, and %s fit."), length, this.#max), "length");
    else if (this.#notice.dataset.about === "length") this.say("");
    return fits;
  }

  // Enter sends, with Shift it makes a new line. On a touch screen, which has no Shift+Enter, it is the other way.
  #touch = matchMedia("(hover: none) and (pointer: coarse)");

  #press(event) {
    // While letters are composed, as in Japanese, Enter picks one. Safari tells it by the code 229 only.
    if (event.key !== "Enter" || event.isComposing || event.keyCode === 229) return;
    if (this.#touch.matches ? !event.ctrlKey && !event.metaKey : event.shiftKey) return;
    event.preventDefault();
    this.#form.requestSubmit();
  }

  /** Shows a notice until the next one, or until what it is about is done: the id of a message, or "length". */
  say(text, about = "") {
    this.#notice.textContent = text;
    this.#notice.dataset.about = about;
  }

  /** Takes the notice about something away. */
  unsay(about) {
    if (this.#notice.dataset.about === about) this.say("");
  }

  /** Puts a text before what is in the field, to be changed. */
  edit(text) {
    this.#input.value = this.#kept.draft = [text, this.#input.value].filter(Boolean).join("\n");
    this.#input.focus();
  }

  /** Shows nothing of what was typed any more. A draft stays kept. */
  hide() {
    this.#input.value = "";
    this.say("");
  }
}

/** Messages on their way: what the server has not confirmed, and what it has refused. */
export class Waiting {
  #elements;
  #items;
  #kept;
  #socket;
  #user;
  /** Those on the page, by id. */
  #shown = new Map();

  constructor(elements, items, kept, socket, user) {
    this.#elements = elements;
    this.#items = items;
    this.#kept = kept;
    this.#socket = socket;
    this.#user = user;
    // The browser asks before it leaves with something unsent that is not kept.
    window.addEventListener("beforeunload", (event) => {
      if (this.#shown.size && socket.pending.some(({ id }) => this.#shown.has(id) && !kept.has(id))) {
        event.preventDefault();
      }
    });
  }

  /** Sends what an earlier page has kept. */
  resume() {
    for (const message of this.#kept.unsent) {
      try {
        this.#deliver(message);
      } catch {} // More than fit wait until the next time.
    }
  }

  /** Sends `text`, now or later. Throws a RangeError if it cannot be. */
  send(text) {
    const time = new Date().toISOString();
    this.#kept.keep(this.#deliver({ text, time }), text, time);
  }

  /** An id is that of an earlier try. */
  #deliver({ id, text, time }) {
    id = this.#socket.deliver({ type: "message", text, ...(id && { id }) });
    const item = this.#items.make({ user: this.#user, text, sent_at: time });
    item.querySelector(".note").textContent = gettext("not sent yet");
    this.#elements.waiting.append(item);
    this.#shown.set(id, { item, text });
    return id;
  }

  /** The server has the message. */
  settle(id) {
    this.#kept.drop(id);
    this.#shown.get(id)?.item.remove();
    this.#shown.delete(id);
  }

  /**
   * The server refuses a message. It stays on the page, and can be sent again or edited; until then it stays kept.
   * @param {(text: string) => void} edit
   */
  refuse(id, why, edit) {
    const { item, text } = this.#shown.get(id);
    this.#shown.delete(id);
    const note = item.querySelector(".note");
    item.classList.add("refused");
    note.textContent = format(gettext("not sent: %s"), why);
    for (const [label, act] of [[gettext("Send again"), () => this.send(text)], [gettext("Edit"), () => edit(text)]]) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = label;
      button.addEventListener("click", () => {
        item.remove();
        this.#kept.drop(id);
        act();
      });
      note.append(" ", button);
    }
    this.#elements.messages.append(item);
    join(item);
  }

  has(id) {
    return this.#shown.has(id);
  }

  /** Shows nothing of it any more. What is kept stays kept. */
  hide() {
    const refused = this.#elements.messages.querySelectorAll(".refused");
    for (const item of [...refused, ...this.#elements.waiting.children]) item.remove();
    this.#shown.clear();
  }
}
