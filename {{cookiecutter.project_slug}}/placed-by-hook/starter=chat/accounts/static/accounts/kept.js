/**
 * What somebody has typed and the server does not have: a draft for each room, and messages that are not confirmed.
 * It is kept in localStorage, so that it survives a reload and the end of a session.
 *
 * Each text has a key of its own, so that several tabs do not overwrite each other's. The user is part of it, by the
 * primary key: somebody else in the same browser neither sees nor sends it, also not under a name that was another's.
 * Storage may be full, or forbidden even to name; then nothing is kept.
 */
export class Kept {
  #unsent;
  #draft;

  constructor(user, room) {
    this.#unsent = `${unsentOf(user)}${room}/`;
    this.#draft = `${draftsOf(user)}${room}`;
  }

  /** @returns {{id: string, text: string, time: string}[]}  What is not confirmed, oldest first. */
  get unsent() {
    const items = keys(this.#unsent).map((key) => ({ ...parse(read(key)), id: key.slice(this.#unsent.length) }));
    // What another script has left there must not hold back the rest.
    return items.filter(isMessage).sort((a, b) => (a.time < b.time ? -1 : 1));
  }

  keep(id, text, time) {
    write(this.#unsent + id, JSON.stringify({ text, time }));
  }

  has(id) {
    return read(this.#unsent + id) !== null;
  }

  drop(id) {
    write(this.#unsent + id, "");
  }

  /** @returns {string}  What stood in the field for a message last; "" if nothing did. */
  get draft() {
    return read(this.#draft) ?? "";
  }

  set draft(text) {
    write(this.#draft, text);
  }
}

/** Tells whether any text of `user` is kept, in whatever room. What is broken is none. */
export function isAnythingKept(user) {
  return keys(draftsOf(user)).length > 0 || keys(unsentOf(user)).some((key) => isMessage({ ...parse(read(key)) }));
}

/** Erases all texts of `user`, in all tabs: those that show some hear of it by `onErase`. */
export function erase(user) {
  for (const key of keys(unsentOf(user), draftsOf(user))) write(key, "");
  const key = erasedOf(user);
  write(key, "now");
  write(key, "");
  // A browser tells the other tabs only.
  window.dispatchEvent(new StorageEvent("storage", { key, newValue: "now" }));
}

/** Keeps what the last release has kept under the name of a user. */
export function adopt(name, user) {
  for (const [before, now] of [[`chat/${name}/`, unsentOf(user)], [`draft/${name}/`, draftsOf(user)]]) {
    for (const key of keys(before)) {
      write(now + key.slice(before.length), read(key));
      write(key, "");
    }
  }
}

/** Calls `listener` when the texts of `user` are erased, in this tab or another. */
export function onErase(user, listener) {
  window.addEventListener("storage", ({ key, newValue }) => key === erasedOf(user) && newValue && listener());
}

const unsentOf = (user) => `unsent/${user}/`;
const draftsOf = (user) => `drafts/${user}/`;
const erasedOf = (user) => `erased/${user}`;

const isMessage = ({ text, time }) => typeof text === "string" && typeof time === "string" && !isNaN(Date.parse(time));

function keys(...prefixes) {
  try {
    return Object.keys(localStorage).filter((key) => prefixes.some((prefix) => key.startsWith(prefix)));
  } catch {
    return [];
  }
}

function read(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/** Writes a text, or removes the key if it is empty. */
function write(key, text) {
  try {
    if (text) localStorage.setItem(key, text);
    else localStorage.removeItem(key);
  } catch {}
}

function parse(json) {
  try {
    return JSON.parse(json);
  } catch {}
}
