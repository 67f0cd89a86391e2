/**
 * What somebody has typed in a room and the server has not confirmed, kept in localStorage until it has.
 *
 * Each message has a key of its own, so that several tabs do not overwrite each other's. The user is part of it: somebody
 * else in the same browser neither sees nor sends it. Storage may be full or forbidden; then nothing is kept.
 */
export class Unsent {
  #prefix;

  constructor(user, room) {
    this.#prefix = `chat/${user}/${room}/`;
  }

  /** @returns {{id: string, text: string, time: string}[]}  Oldest first. */
  get all() {
    const items = [];
    for (const [key, value] of this.#entries()) {
      if (!key.startsWith(this.#prefix)) continue;
      try {
        items.push({ id: key.slice(this.#prefix.length), ...JSON.parse(value) });
      } catch {} // Not ours.
    }
    return items.sort((a, b) => (a.time < b.time ? -1 : 1));
  }

  keep(id, text, time) {
    try {
      localStorage.setItem(this.#prefix + id, JSON.stringify({ text, time }));
    } catch {}
  }

  has(id) {
    return this.#entries().some(([key]) => key === this.#prefix + id);
  }

  drop(id) {
    try {
      localStorage.removeItem(this.#prefix + id);
    } catch {}
  }

  #entries() {
    try {
      return Object.entries(localStorage);
    } catch {
      return []; // Even to name it may be forbidden.
    }
  }
}
