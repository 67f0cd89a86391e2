/** The list of rooms: found by typing, live, and in the order of their last messages. */

import { gettext, ngettext } from "../accounts/texts.js";
import { paint } from "./people.js";

/** Milliseconds without a key after which a name is looked for. */
const TYPED = 200;
/** What a page says when the server has closed its socket because of a limit. */
export const TOO_MANY = gettext(
  "Too many pages of yours are open, or they have sent too much. Close some; this one tries again by itself.",
);

const language = document.documentElement.lang || undefined;
const clock = new Intl.DateTimeFormat(language, { timeStyle: "short" });
const calendar = new Intl.DateTimeFormat(language, { dateStyle: "short" });

export class RoomList {
  /** Milliseconds since 1970, by the server's clock: the page knows of what has changed until then. */
  asOf;
  #list;
  #blank;
  #field;
  #back;
  /** The slug of the room that the page shows. */
  #current;
  #blocked;
  /** @type {Map<string, {last: number, unread: number, seen: number}>}  By slug; `seen`: the `last` at the last look. */
  #rooms = new Map();
  #prefix = ""; // Of the title.
  #lookedAt; // `asOf` at the last look.
  #timer = 0;
  #search = new AbortController();

  /**
   * @param {Record<string, HTMLElement>} elements  Those of the page by id: list, find, q, new-room, blank-room, back, room.
   */
  constructor({ list, find, q, back, room, "new-room": newRoom, "blank-room": blank }) {
    this.asOf = this.#lookedAt = Number(list.dataset.asOf);
    this.#list = list;
    this.#blank = blank;
    this.#field = q;
    this.#back = back;
    this.#current = room?.dataset.room;
    this.#blocked = new Set(list.dataset.blocked.split(" "));
    this.#dress();
    const look = () => this.#look(find.action, newRoom);
    q.addEventListener("input", () => {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(look, TYPED);
    });
    find.addEventListener("submit", (event) => {
      event.preventDefault();
      look();
    });
    document.addEventListener("visibilitychange", () => this.#turn());
    // Typed before this script came, or kept by the browser on the way back.
    if (q.value !== q.defaultValue) look();
  }

  /** The page shows the room `slug` itself, whose last number is `last`. It may not be in the list yet. */
  know(slug, last) {
    if (!this.#rooms.has(slug)) this.#rooms.set(slug, { last, unread: 0, seen: last });
  }

  /** Takes a `room` frame: how a room stands now. */
  take({ slug, name, is_open: isOpen, last_seq: last, unread, user, text, sent_at: sentAt, as_of: asOf }) {
    this.asOf = asOf;
    // Of one that was not in the list yet, only this message is known to be new, unless it was there at the last look.
    const seen = Date.parse(sentAt) > this.#lookedAt ? last - 1 : last;
    this.#rooms.set(slug, { seen, ...this.#rooms.get(slug), last, unread });
    this.#tellUnseen();
    let item = this.#list.querySelector(`[data-slug="${CSS.escape(slug)}"]`);
    // What is looked for, and a page of older ones, stays as it is; the next look finds the rest.
    if (!item && (this.#field.value || this.#list.querySelector("[rel=prev]"))) return;
    item ??= this.#make(slug, name, isOpen);
    const time = item.querySelector("time");
    item.dataset.unread = unread;
    item.querySelector(".sender").textContent = user;
    const isBlocked = user && this.#blocked.has(user);
    const shown = isBlocked ? gettext("You have blocked this person.") : text || gettext("This message was taken back.");
    item.querySelector(".text").textContent = sentAt && shown;
    // Both in milliseconds: the page's has microseconds.
    if (sentAt && Date.parse(time.dateTime) !== Date.parse(sentAt)) {
      const hadFocus = item.contains(document.activeElement);
      time.dateTime = sentAt;
      this.#list.prepend(item);
      if (hadFocus) item.querySelector("a").focus({ preventScroll: true });
    }
    this.#dress();
  }

  /** The tab was hidden, or is looked at again. */
  #turn() {
    for (const room of this.#rooms.values()) room.seen = room.last;
    this.#lookedAt = this.asOf;
    this.#tellUnseen();
  }

  /**
   * Tells in the title how many messages have come while the tab was hidden, and are not read elsewhere: so many are
   * unread in a room, and so many have come, and the unread ones are the last.
   */
  #tellUnseen() {
    let count = 0;
    for (const { last, unread, seen } of this.#rooms.values()) count += Math.min(unread, Math.max(0, last - seen));
    // Not the title of the beginning: after a logout it tells nothing any more.
    const title = document.title.replace(this.#prefix, "");
    this.#prefix = document.hidden && count ? `(${count}) ` : "";
    document.title = this.#prefix + title;
  }

  #make(slug, name, isOpen) {
    const item = this.#blank.content.firstElementChild.cloneNode(true);
    const link = item.querySelector("a");
    item.dataset.slug = slug;
    item.dataset.unread = 0;
    link.href = this.#list.dataset.address.replace("slug", slug);
    item.querySelector("b bdi").textContent = name;
    item.querySelector(".closed").hidden = isOpen;
    this.#list.querySelector(".none")?.remove();
    this.#list.insertBefore(item, this.#list.querySelector(".pages"));
    return item;
  }

  /** Shows what the server cannot: the reader's own time, initials, and the sum of what is unread elsewhere. */
  #dress() {
    const today = calendar.format(new Date());
    let elsewhere = 0;
    for (const item of this.#list.querySelectorAll("[data-slug]")) {
      const time = item.querySelector("time");
      const date = new Date(time.dateTime);
      const unread = Number(item.dataset.unread);
      const last = Number(item.dataset.last);
      if (!this.#rooms.has(item.dataset.slug)) this.#rooms.set(item.dataset.slug, { last, unread, seen: last });
      const count = item.querySelector(".unread");
      paint(item.querySelector(".avatar"), item.querySelector("b bdi").textContent);
      if (time.dateTime) time.textContent = (calendar.format(date) === today ? clock : calendar).format(date);
      count.hidden = unread === 0;
      count.textContent = unread > 999 ? "999+" : unread;
      count.ariaLabel = ngettext("%s unread message", "%s unread messages", unread);
      if (item.dataset.slug === this.#current) item.querySelector("a").ariaCurrent = "page";
      else elsewhere += unread;
    }
    if (!this.#back) return;
    this.#back.hidden = elsewhere === 0;
    this.#back.textContent = elsewhere > 99 ? "99+" : elsewhere;
    this.#back.ariaLabel = ngettext("%s unread message", "%s unread messages", elsewhere);
  }

  async #look(address, newRoom) {
    this.#search.abort();
    this.#search = new AbortController();
    const wanted = this.#field.value.trim();
    const url = `${address}?${new URLSearchParams({ part: "list", q: wanted })}`;
    try {
      const response = await fetch(url, { signal: this.#search.signal });
      // Somebody has logged out.
      if (!response.ok || response.redirected) return;
      const html = await response.text();
      // The server has escaped what strangers wrote in it.
      this.#list.replaceChildren(document.createRange().createContextualFragment(html));
      this.#dress();
    } catch {
      return; // The next letter looks again.
    }
    if (!this.#list.querySelector("[data-slug]") && wanted) {
      newRoom.open = true;
      newRoom.querySelector("[name=name]").value = wanted;
    }
  }
}
