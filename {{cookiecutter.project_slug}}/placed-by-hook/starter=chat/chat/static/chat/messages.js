/** The messages on the page: their look, the line above those that are unread, and where it is scrolled to. */

import { show } from "./links.js";
import { linkTo, paint } from "./people.js";
import { gettext } from "../accounts/texts.js";

/** Messages on the page: while the reader is at the end, those before are taken away. */
const MAX_SHOWN = 2000;
/** Pixels from the end at which a reader counts as being there. */
const NEAR = 50;
/** Milliseconds after which somebody who goes on is named again. */
const PAUSE = 10 * 60_000;

const language = document.documentElement.lang || undefined;
const clock = new Intl.DateTimeFormat(language, { timeStyle: "short" });
const calendar = new Intl.DateTimeFormat(language, { dateStyle: "full" });

/** Makes items for messages from the template of the page. */
export class Items {
  #blank;
  #user;
  #isOwner;
  #blocked;
  #takeBack;

  /**
   * @param {HTMLTemplateElement} blank
   * @param {{user: string, isOwner: string, blocked: string}} data  Whose page it is, whether the room is theirs, and
   *   whom they do not want to read.
   * @param {(seq: number) => void} takeBack  Called when the user wants to take a message back.
   */
  constructor(blank, { user, isOwner, blocked }, takeBack) {
    this.#blank = blank;
    this.#user = user;
    this.#isOwner = Boolean(isOwner);
    this.#blocked = new Set(blocked.split(" ").filter(Boolean));
    this.#takeBack = takeBack;
  }

  make({ seq, user: name, text, sent_at: time }) {
    const item = this.#blank.content.firstElementChild.cloneNode(true);
    const date = new Date(time);
    const isOwn = name === this.#user;
    if (seq) item.dataset.seq = seq;
    item.dataset.user = name;
    item.dataset.day = calendar.format(date);
    item.classList.toggle("own", isOwn);
    paint(item.querySelector(".avatar"), name);
    if (name) linkTo(item.querySelector("b a"), name);
    else item.querySelector("b").textContent = gettext("deleted account");
    const when = item.querySelector("time");
    when.dateTime = time;
    when.textContent = clock.format(date);
    if (!text) return takeBack(item);
    show(item.querySelector("p"), text);
    if (this.isBlocked(name)) hide(item);
    const button = item.querySelector(".take-back");
    if (seq && (isOwn || this.#isOwner)) button.addEventListener("click", () => this.#ask(seq));
    else button.remove();
    return item;
  }

  isBlocked(name) {
    return this.#blocked.has(name);
  }

  #ask(seq) {
    if (confirm(gettext("Take this message back? Nobody can read it any more."))) this.#takeBack(seq);
  }
}

/** The first message of a day shows the day, and one that soon follows its sender's own does not repeat the name. */
export function join(item) {
  if (!item) return;
  const before = item.previousElementSibling;
  const isNewDay = before?.dataset.day !== item.dataset.day;
  const isSoon = !isNewDay && timeOf(item) - timeOf(before) < PAUSE;
  const goesOn = isSoon && before.dataset.user === item.dataset.user && !item.querySelector(".mark");
  item.classList.toggle("new-day", isNewDay);
  item.classList.toggle("goes-on", goesOn);
}

const timeOf = (item) => Date.parse(item.querySelector("time").dateTime);

/** Somebody has taken the text back. The message stays, since messages are numbered without a gap. */
function takeBack(item) {
  item.classList.add("gone");
  item.querySelector("p").textContent = gettext("This message was taken back.");
  item.querySelector(".take-back")?.remove();
  return item;
}

/** Hides the text of somebody who is blocked behind a button. */
function hide(item) {
  const text = item.querySelector("p");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "show";
  button.textContent = gettext("You have blocked this person. Show the message");
  button.addEventListener("click", () => {
    button.remove();
    text.hidden = false;
    text.tabIndex = -1;
    text.focus();
  });
  text.hidden = true;
  text.before(button);
}

/** The view of a Timeline. */
export class Messages {
  #elements;
  #items;
  #atEnd = true;
  #lastTop = 0;
  #quiet = 0; // The timer that ends it.
  /** The number that was read last when the page was opened; the line stands above the next one of somebody else. */
  #read;
  #line = null;

  /**
   * @param {object} elements  Those of the page by id: scroller, older, newer, log, messages, waiting.
   * @param {Items} items
   * @param {number | null} read
   * @param {{turnBack: () => boolean, atEnd: () => void}} events  `atEnd`: the newest message is in sight.
   */
  constructor(elements, items, read, events) {
    this.#elements = elements;
    this.#items = items;
    this.#read = read;
    this.#hush();
    const { scroller, older, newer, messages, waiting } = elements;
    // A reader at the end stays there when a line or a phone's keyboard comes; one who has scrolled up is left alone.
    scroller.addEventListener("scroll", () => {
      const { scrollTop, scrollHeight, clientHeight } = scroller;
      const wasAtEnd = this.#atEnd;
      this.#atEnd = (wasAtEnd && scrollTop >= this.#lastTop) || scrollHeight - scrollTop - clientHeight < NEAR;
      if (this.#atEnd) newer.hidden = true;
      else if (scrollTop < NEAR && scrollTop < this.#lastTop && !older.hidden) events.turnBack();
      this.#lastTop = scrollTop;
      if (this.#atEnd && !wasAtEnd) events.atEnd();
    });
    const resizes = new ResizeObserver(() => this.#atEnd && this.scrollToEnd());
    for (const element of [scroller, messages, waiting]) resizes.observe(element);
    newer.addEventListener("click", () => {
      scroller.focus({ preventScroll: true });
      this.scrollToEnd();
    });
  }

  get isAtEnd() {
    return this.#atEnd;
  }

  scrollToEnd() {
    this.#atEnd = true;
    this.#elements.scroller.scrollTo(0, this.#elements.scroller.scrollHeight);
  }

  /** Shows where the unread begin, if that is further up. */
  showLine() {
    const { scroller } = this.#elements;
    this.scrollToEnd();
    if (!this.#line) return;
    const top = this.#line.parentElement.getBoundingClientRect().top - scroller.getBoundingClientRect().top;
    if (top >= 0) return;
    this.#atEnd = false;
    scroller.scrollTop += top - NEAR;
    this.#lastTop = scroller.scrollTop;
    this.#elements.newer.hidden = false;
  }

  /** The reader has gone, and what comes from now on is unread, if they have seen all up to `newest`. */
  leave(newest) {
    if (newest === null || !this.#atEnd) return;
    const item = this.#line?.parentElement;
    this.#line?.remove();
    join(item);
    this.#line = null;
    this.#read = newest;
  }

  add(message, isNew) {
    const { messages, newer, older } = this.#elements;
    if (!isNew) this.#hush();
    // Read at once: it comes before the eyes of the reader.
    if (isNew && this.#atEnd && !document.hidden && !this.#line && this.#read !== null) this.#read = message.seq;
    const item = this.#items.make(message);
    messages.append(item);
    if (!this.#line && this.#isUnread(item)) this.#drawLine(item);
    join(item);
    newer.hidden = this.#atEnd;
    while (this.#atEnd && messages.childElementCount > MAX_SHOWN) messages.firstElementChild.remove();
    join(messages.firstElementChild);
    const first = Number(messages.querySelector("[data-seq]").dataset.seq);
    older.hidden = first === 1;
    return first;
  }

  addBefore(page, more) {
    const { messages, scroller, older } = this.#elements;
    this.#hush();
    if (!more && document.activeElement === older) scroller.focus({ preventScroll: true });
    const fromEnd = scroller.scrollHeight - scroller.scrollTop;
    messages.prepend(...page.map((message) => this.#items.make(message)));
    const items = [...messages.children].slice(0, page.length + 1);
    const unread = this.#line && items.find((item) => this.#isUnread(item));
    if (unread) this.#drawLine(unread);
    for (const item of items) join(item);
    older.hidden = !more;
    scroller.scrollTop = scroller.scrollHeight - fromEnd;
  }

  takeBack(seq) {
    const item = this.#elements.messages.querySelector(`[data-seq="${Number(seq)}"]`);
    if (item) takeBack(item);
  }

  clear() {
    this.#line = null;
    const { messages } = this.#elements;
    messages.replaceChildren(...messages.querySelectorAll(".refused")); // The server has nothing of them.
  }

  #isUnread(item) {
    return this.#read !== null && Number(item.dataset.seq) > this.#read && !item.classList.contains("own");
  }

  /** Moves the line above `item`: what was unread further up may come later, as history. */
  #drawLine(item) {
    const before = this.#line?.parentElement;
    this.#line ??= document.createElement("span");
    this.#line.className = "mark";
    this.#line.textContent = gettext("Unread from here");
    item.prepend(this.#line);
    join(before);
  }

  /** Lets screen readers read out what is new, not what comes from long ago. */
  #hush() {
    this.#elements.log.ariaLive = "off";
    clearTimeout(this.#quiet);
    // They look only after the browser has drawn the page.
    this.#quiet = setTimeout(() => (this.#elements.log.ariaLive = "polite"), 1000);
  }
}
