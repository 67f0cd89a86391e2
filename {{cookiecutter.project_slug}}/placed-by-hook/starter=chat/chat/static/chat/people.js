/** The people of a room: initials in a colour of their own, who is here, and who is typing. */

import { format, gettext } from "../accounts/texts.js";

/** Colours in chat.css: classes color-0, color-1, … */
const COLORS = 12;
/** Milliseconds that somebody counts as typing; the page tells the server a little more often. */
const TYPING = 5_000;
const TELL_TYPING = 3_000;

/** Shows the initial of `name` in `element`, in a colour that this name always has. */
export function paint(element, name) {
  // Of the capitals, since that of a letter may be two: ß.
  const [first] = new Intl.Segmenter(undefined).segment(name.toLocaleUpperCase());
  // Shown by chat.css: it is no text, and not read out.
  element.dataset.initial = first?.segment ?? "?";
  element.className = `avatar color-${colorOf(name)}`;
}

/** @returns {number} */
export function colorOf(name) {
  return [...name].reduce((sum, character) => (sum * 31 + character.codePointAt(0)) % 10_007, 7) % COLORS;
}

/** Fills `link` with the name of somebody, and the address of their page. */
export function linkTo(link, name) {
  link.href = document.getElementById("room").dataset.personAddress.replace("NAME", encodeURIComponent(name));
  link.textContent = name;
}

/** Who is here, as the server tells, and who else has written what is on the page. */
export class Presence {
  #elements;
  #names = new Set();
  #writers = new Set();

  /** @param {Record<string, HTMLElement>} elements  Those of the page by id: present, count, others, writers. */
  constructor(elements) {
    this.#elements = elements;
    for (const avatar of document.querySelectorAll("#members .avatar, #banned .avatar")) {
      paint(avatar, avatar.nextElementSibling.textContent);
    }
  }

  show(names) {
    this.#names = new Set(names);
    this.#elements.count.textContent = `: ${names.length}`;
    this.#elements.present.replaceChildren(...names.map(makePerson));
    this.#showOthers();
  }

  /** Where many are here, only those who come and go are named. */
  change({ came, left }) {
    came.forEach((name) => this.#names.add(name));
    left.forEach((name) => this.#names.delete(name));
    this.show([...this.#names].sort());
  }

  hasWritten(name) {
    if (!name || this.#writers.has(name)) return;
    this.#writers.add(name);
    this.#showOthers();
  }

  #showOthers() {
    const known = new Set(Array.from(document.querySelectorAll("#members bdi, #banned bdi"), (name) => name.textContent));
    const names = [...this.#writers].filter((name) => !this.#names.has(name) && !known.has(name)).sort();
    this.#elements.others.hidden = names.length === 0;
    this.#elements.writers.replaceChildren(...names.map(makePerson));
  }
}

function makePerson(name) {
  const item = document.createElement("li");
  const link = document.createElement("a");
  const avatar = document.createElement("span");
  const label = document.createElement("bdi");
  linkTo(link, name);
  paint(avatar, name);
  label.textContent = name;
  link.replaceChildren(avatar, label);
  item.append(link);
  return item;
}

/** Who is typing, besides the user of this page. Nobody stores it, and whoever stops is forgotten after seconds. */
export class Typing {
  #line;
  #tell;
  #toldAt = -Infinity;
  /** @type {Map<string, ReturnType<typeof setTimeout>>} By name: the timer that forgets it. */
  #timers = new Map();

  /** @param {(frame: object) => void} tell */
  constructor(line, tell) {
    this.#line = line;
    this.#tell = tell;
  }

  /** The user of this page has typed. */
  type() {
    if (performance.now() < this.#toldAt + TELL_TYPING) return;
    this.#toldAt = performance.now();
    this.#tell({ type: "typing" });
  }

  /** What was typed is sent: the next letter is told again, a second later at the earliest. */
  stop() {
    this.#toldAt = performance.now() - TELL_TYPING + 1_000;
  }

  see(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.set(name, setTimeout(() => this.forget(name), TYPING));
    this.#show();
  }

  forget(name) {
    clearTimeout(this.#timers.get(name));
    if (this.#timers.delete(name)) this.#show();
  }

  #show() {
    const names = [...this.#timers.keys()];
    // Isolated, so that a name from right to left does not turn the sentence round.
    const isolated = names.map((name) => `\u2068${name}\u2069`);
    if (names.length === 0) this.#line.textContent = "";
    else if (names.length === 1) this.#line.textContent = format(gettext("%s is typing…"), ...isolated);
    else if (names.length === 2) this.#line.textContent = format(gettext("%s and %s are typing…"), ...isolated);
    else this.#line.textContent = gettext("Several people are typing…");
  }
}
