/**
 * What somebody has typed in a room and the server has not confirmed, kept in localStorage until it has.
 *
 * Each message has a key of its own, so that several tabs do not overwrite each other's. The user is part of it:
 * somebody else in the same browser neither sees nor sends it. Storage may be full, or forbidden even to name; then
 * nothing is kept.
 */
export class Unsent {
  #prefix;

  constructor(user, room) {
    this.#prefix = `chat/${user}/${room}/`;
  }

  /** @returns {{id: string, text: string, time: string}[]}  Oldest first. */
  get all() {
    try {
      const keys = Object.keys(localStorage).filter((key) => key.startsWith(this.#prefix));
      const items = keys.map((key) => ({ ...JSON.parse(localStorage[key]), id: key.slice(this.#prefix.length) }));
      return items.sort((a, b) => (a.time < b.time ? -1 : 1));
    } catch {
      return [];
    }
  }

  keep(id, text, time) {
    try {
      localStorage.setItem(this.#prefix + id, JSON.stringify({ text, time }));
    } catch {}
  }

  has(id) {
    try {
      return localStorage.getItem(this.#prefix + id) !== null;
    } catch {
      return false;
    }
  }

  drop(id) {
    try {
      localStorage.removeItem(this.#prefix + id);
    } catch {}
  }
}
