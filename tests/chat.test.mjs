// The chat's scripts without a browser: the state machine of the list of messages, what is kept, and links.

import assert from "node:assert/strict";
import { beforeEach, describe, test } from "node:test";

const scripts = process.env.CHAT_SCRIPTS;
const { Timeline } = await import(`${scripts}/chat/timeline.js`);
const { split } = await import(`${scripts}/chat/links.js`);
const { colorOf, paint } = await import(`${scripts}/chat/people.js`);
const { Kept, adopt, erase, isAnythingKept, onErase } = await import(`${scripts}/accounts/kept.js`);

const message = (seq) => ({ type: "message", seq, id: `id-${seq}`, user: "grace", text: `number ${seq}` });
const range = (first, last) => Array.from({ length: last - first + 1 }, (_, index) => first + index);

/** Shows what a page would: numbers, and which of them are read out. */
class View {
  shown = [];
  readOut = [];
  texts = [];
  takenBack = [];
  more = null;
  limit = Infinity;

  add({ seq, text }, isNew) {
    this.shown.push(seq);
    this.texts.push(text);
    if (isNew) this.readOut.push(seq);
    this.shown = this.shown.slice(-this.limit);
    return this.shown[0];
  }

  addBefore(page, more) {
    this.shown.unshift(...page.map(({ seq }) => seq));
    this.texts.unshift(...page.map(({ text }) => text));
    this.more = more;
  }

  takeBack(seq) {
    this.takenBack.push(seq);
  }

  clear() {
    this.shown = [];
  }
}

describe("the list of messages", () => {
  let view, timeline, asked, isOpen;

  beforeEach(() => {
    [view, asked, isOpen] = [new View(), [], true];
    timeline = new Timeline(view, (frame) => isOpen && asked.push(frame) > 0);
  });

  function open(last, first = 1) {
    assert.equal(timeline.greet({ last_seq: last }), true);
    for (const seq of range(first, last)) timeline.take(message(seq));
  }

  test("shows an unbroken run", () => {
    open(3);
    timeline.take(message(4));
    assert.deepEqual(view.shown, [1, 2, 3, 4]);
    assert.deepEqual([timeline.oldest, timeline.newest, timeline.latest], [1, 4, 4]);
    assert.deepEqual(asked, []);
  });

  test("shows a number once", () => {
    open(3);
    for (const seq of [2, 3, 4, 4, 1]) timeline.take(message(seq));
    assert.deepEqual(view.shown, [1, 2, 3, 4]);
  });

  test("asks once for what is missing, and shows nothing before it comes", () => {
    open(2);
    for (const seq of [5, 6]) timeline.take(message(seq));
    assert.deepEqual(view.shown, [1, 2]);
    assert.deepEqual(asked, [{ type: "resume", after: 2 }]);
    for (const seq of range(3, 6)) timeline.take(message(seq));
    assert.deepEqual(view.shown, range(1, 6));
    timeline.take(message(9));
    assert.deepEqual(asked[1], { type: "resume", after: 6 });
  });

  test("asks again when it could not be asked", () => {
    open(2);
    isOpen = false;
    timeline.take(message(5));
    isOpen = true;
    timeline.take(message(6));
    assert.deepEqual(asked, [{ type: "resume", after: 2 }]);
  });

  test("a pong tells of what is missing, also after it was asked in vain", () => {
    open(1);
    timeline.compare({ last_seq: 1 });
    assert.deepEqual(asked, []);
    for (let pong = 0; pong < 2; pong += 1) timeline.compare({ last_seq: 3 });
    assert.deepEqual(asked, Array(2).fill({ type: "resume", after: 1 }));
  });

  test("begins with the last messages, whatever their first number is", () => {
    open(130, 81);
    assert.deepEqual(view.shown, range(81, 130));
    assert.deepEqual(asked, []);
  });

  test("an answer from long ago is no part of the run that begins", () => {
    timeline.greet({ last_seq: 130 });
    for (const seq of [10, ...range(81, 130)]) timeline.take(message(seq));
    assert.deepEqual(view.shown, range(81, 130));
  });

  test("an empty room begins with number 1", () => {
    open(0, 1);
    timeline.take(message(2));
    assert.deepEqual(view.shown, []);
    assert.deepEqual(asked, [{ type: "resume", after: 0 }]);
  });

  test("after a loss it goes on where it was, without asking", () => {
    open(3);
    timeline.reset();
    assert.equal(timeline.greet({ last_seq: 6 }), true);
    for (const seq of [6, 4, 5, 6]) timeline.take(message(seq));
    assert.deepEqual(view.shown, range(1, 6));
    assert.deepEqual(asked, []);
  });

  for (const last of [-1, 2]) {
    test(`starts anew when the server says that the last one is ${last}`, () => {
      open(3);
      assert.equal(timeline.greet({ last_seq: last }), false);
      assert.deepEqual(view.shown, []);
      assert.deepEqual([timeline.oldest, timeline.newest], [null, null]);
    });
  }

  test("reads out what is new, not what comes from long ago", () => {
    open(60, 11);
    assert.deepEqual(view.readOut, []);
    timeline.take(message(61));
    assert.deepEqual(view.readOut, [61]);
    timeline.compare({ last_seq: 80 });
    for (const seq of range(62, 80)) timeline.take(message(seq));
    assert.deepEqual(view.readOut, [61, ...range(76, 80)]);
  });

  test("turns back a page at a time", () => {
    open(130, 81);
    assert.equal(timeline.turnBack(), true);
    assert.equal(timeline.turnBack(), true);
    assert.deepEqual(asked, [{ type: "history", before: 81 }]);
    timeline.takeHistory({ before: 81, more: true, messages: range(31, 80).map(message) });
    timeline.takeHistory({ before: 81, more: true, messages: range(31, 80).map(message) });
    assert.deepEqual(view.shown, range(31, 130));
    assert.equal(timeline.oldest, 31);
    assert.equal(view.more, true);
    timeline.turnBack();
    assert.deepEqual(asked[1], { type: "history", before: 31 });
    timeline.takeHistory({ before: 31, more: false, messages: [] });
    assert.equal(timeline.oldest, 31);
    assert.equal(view.more, false);
  });

  test("can turn back again after a refusal, and after a loss", () => {
    open(130, 81);
    timeline.turnBack();
    assert.equal(timeline.refused(), true);
    assert.equal(timeline.refused(), false);
    timeline.turnBack();
    timeline.reset();
    isOpen = false;
    assert.equal(timeline.turnBack(), false);
    isOpen = true;
    timeline.turnBack();
    assert.equal(asked.length, 3);
  });

  test("turns back from the first message that the view still shows", () => {
    view.limit = 10;
    open(30);
    timeline.turnBack();
    assert.deepEqual(asked, [{ type: "history", before: 21 }]);
  });

  test("a text that was taken back is not shown when it comes later", () => {
    open(4, 4);
    for (const seq of [3, 4, 5]) timeline.takeBack(seq);
    timeline.take(message(5));
    timeline.take(message(6));
    timeline.turnBack();
    timeline.takeHistory({ before: 4, more: false, messages: range(1, 3).map(message) });
    assert.deepEqual(view.texts, ["number 1", "number 2", "", "number 4", "", "number 6"]);
    assert.deepEqual(view.takenBack, [3, 4, 5]);
  });

  test("in another database the numbers are those of other texts", () => {
    open(4, 4);
    timeline.takeBack(2);
    assert.equal(timeline.greet({ last_seq: 2 }), false);
    timeline.greet({ last_seq: 2 });
    for (const seq of [1, 2]) timeline.take(message(seq));
    assert.deepEqual(view.texts.slice(-2), ["number 1", "number 2"]);
    timeline.take(message(3));
    assert.deepEqual(view.readOut, [3], "the run has begun");
  });

  test("whatever is lost, doubled or overtaken, the run has no gap", () => {
    let seed = 1;
    const random = (below) => (seed = (seed * 48271) % 2147483647) % below;
    for (let round = 0; round < 200; round += 1) {
      [view, asked] = [new View(), []];
      timeline = new Timeline(view, (frame) => random(4) > 0 && asked.push(frame) > 0);
      timeline.greet({ last_seq: 0 });
      for (let step = 0; step < 60; step += 1) {
        const act = random(10);
        if (act < 7) timeline.take(message(1 + random(20)));
        else if (act < 8) timeline.compare({ last_seq: random(20) });
        else if (act < 9 && asked.length) {
          for (const seq of range(asked.at(-1).after + 1, 20)) timeline.take(message(seq));
        } else {
          timeline.reset();
          timeline.greet({ last_seq: 20 });
        }
        assert.deepEqual(view.shown, range(1, view.shown.length));
      }
    }
  });
});

describe("links", () => {
  const links = (text) => split(text).flatMap(({ href }) => href ?? []);

  for (const [text, hrefs] of [
    ["see https://example.com/a?b=c#d.", ["https://example.com/a?b=c#d"]],
    ["(https://en.wikipedia.org/wiki/Moth_(disambiguation))", ["https://en.wikipedia.org/wiki/Moth_(disambiguation)"]],
    ["“http://example.com”, and HTTPS://EXAMPLE.ORG/Ä!", ["http://example.com/", "https://example.org/%C3%84"]],
    ["http://127.0.0.1:8000/rooms/", ["http://127.0.0.1:8000/rooms/"]],
    ["https://müller.example/", ["https://xn--mller-kva.example/"]],
    ["https://हिन्दी.example/", ["https://xn--j2bd4cyah0f.example/"]],
    ["例https://example.com。", ["https://example.com/"]],
    ["example.com www.example.com", []],
    ["javascript:alert(1) data:text/html,x file:///etc/passwd ftp://example.com", []],
    ["javascript://example.com/%0aalert(1) xhttps://example.com", []],
    ["https://bank.example@evil.example/ https://user:secret@evil.example/", []],
    ["https://bank.example\\@evil.example/", ["https://bank.example/"]],
    ["https://example.com/\u202egpj.exe https://exa\u200bmple.com https://\u2066a", []],
    ["https:// http:// https://? https://% https:///example.com", []],
    ["https://bank.example\u2044.evil.example/ https://bank.example\u2215x.example https://bank．evil.example", []],
    ["看https://example.com/例。再看https://example.org、好", ["https://example.com/%E4%BE%8B", "https://example.org/"]],
    ["http://[::1]:8000/x https://🦋.example/", ["http://[::1]:8000/x", "https://xn--bt9h.example/"]],
    ['https://example.com/"onmouseover="alert(1)', ["https://example.com/"]],
    ["https://example.com/<script>", ["https://example.com/"]],
  ]) {
    test(JSON.stringify(text), () => {
      assert.deepEqual(links(text), hrefs);
    });
  }

  test("whatever is written, the parts are the text, and links are of http or https", () => {
    const pieces = [
      "https://", "http://", "HTTP:", "javascript:", "//", "example.com", "@", ":", "/", "\\", "?", "#", "%", "%0a",
      " ", "\n", "\t", "\0", "<", ">", '"', "'", "`", "&", "&#106;", "(", ")", "[", "]", ".", ",", "é", "中", "م",
      "🦋", "\u202e", "\u2066", "\u200b", "\u00ad", "\ud83d", "\udc00", "x", "1", "xn--", "data:", "．", "。", "／",
      "\u2044", "\u2215",
    ];
    let seed = 7;
    const random = (below) => (seed = (seed * 48271) % 2147483647) % below;
    for (let round = 0; round < 50_000; round += 1) {
      const text = Array.from({ length: 1 + random(14) }, () => pieces[random(pieces.length)]).join("");
      const parts = split(text);
      assert.equal(parts.map((part) => part.text).join(""), text);
      for (const { text: shown, href } of parts) {
        assert.ok(shown);
        if (href === undefined) continue;
        const url = new URL(href);
        assert.match(url.protocol, /^https?:$/);
        assert.match(shown, /^https?:\/\//i);
        assert.equal(url.href, href);
        assert.equal(url.username + url.password, "");
        assert.doesNotMatch(shown.split(/[/?#]/)[2], /[\u2044\u2215．。／@]/u);
        assert.doesNotMatch(shown, /[\s<>"'`\u202a-\u202e\u2066-\u2069\u200b]/u);
        assert.doesNotMatch(href, /[\s<>"]/);
      }
    }
  });

  test("a text that is meant to take long does not", () => {
    const begin = performance.now();
    for (const part of ["https://", "https://a.example/(", "https://a.example/)", "http://a.", "."])
      split(part.repeat(2000 / part.length));
    // As many as somebody may send at once.
    for (let count = 0; count < 200; count += 1) split(`https://a.example/${")".repeat(1980)}`);
    assert.ok(performance.now() - begin < 500);
  });
});

describe("what is kept", () => {
  const time = "2026-11-22T12:00:00Z";

  beforeEach(() => {
    const storage = {};
    const methods = {
      getItem: (key) => (key in storage ? storage[key] : null),
      setItem: (key, value) => void (storage[key] = String(value)),
      removeItem: (key) => void delete storage[key],
    };
    for (const [name, value] of Object.entries(methods)) Object.defineProperty(storage, name, { value });
    globalThis.localStorage = storage;
    globalThis.window = new EventTarget();
    globalThis.StorageEvent = class extends Event {
      constructor(type, values) {
        super(type);
        Object.assign(this, values);
      }
    };
  });

  test("each room of each user has its own", () => {
    const kept = new Kept("ada", "lobby");
    kept.draft = "half a";
    kept.keep("2", "two", "2026-11-22T12:00:02Z");
    kept.keep("1", "one", time);
    assert.deepEqual(
      new Kept("ada", "lobby").unsent.map(({ id, text }) => [id, text]),
      [["1", "one"], ["2", "two"]],
    );
    for (const other of [new Kept("grace", "lobby"), new Kept("ada", "tea"), new Kept("ad", "lobby")]) {
      assert.equal(other.draft, "");
      assert.deepEqual(other.unsent, []);
    }
    kept.drop("1");
    kept.draft = "";
    assert.deepEqual(Object.keys(localStorage), ["unsent/ada/lobby/2"]);
  });

  test("one broken value holds back no other", () => {
    const kept = new Kept("ada", "lobby");
    kept.keep("1", "one", time);
    for (const value of ["{", "null", "7", '"x"', "[]", '{"text": 7}', `{"text": "x", "time": "never"}`])
      localStorage.setItem(`unsent/ada/lobby/${value}`, value);
    assert.deepEqual(kept.unsent.map(({ text }) => text), ["one"]);
    kept.drop("1");
    assert.equal(isAnythingKept("ada"), false);
  });

  test("what is erased is gone in all tabs, and other users' is not", () => {
    const tabs = [];
    onErase("ada", () => tabs.push("ada"));
    onErase("grace", () => tabs.push("grace"));
    new Kept("ada", "lobby").draft = "a";
    assert.equal(isAnythingKept("ada"), true);
    new Kept("ada", "tea").keep("1", "b", time);
    new Kept("grace", "lobby").draft = "c";
    assert.equal(isAnythingKept("ada"), true);
    erase("ada");
    assert.equal(isAnythingKept("ada"), false);
    assert.deepEqual(Object.keys(localStorage), ["drafts/grace/lobby"]);
    // Another tab hears of the key twice.
    for (const newValue of ["now", null]) {
      window.dispatchEvent(new StorageEvent("storage", { key: "erased/ada", newValue }));
    }
    assert.deepEqual(tabs, ["ada", "ada"]);
  });

  test("what the last release has kept under a name is the user's", () => {
    localStorage.setItem("draft/ada/lobby", "a");
    localStorage.setItem("chat/ada/lobby/1", JSON.stringify({ text: "b", time }));
    new Kept("ada", "lobby").draft = "of the user with this key";
    adopt("ada", "7");
    assert.equal(new Kept("7", "lobby").draft, "a");
    assert.equal(new Kept("7", "lobby").unsent[0].text, "b");
    adopt("ada", "8");
    assert.equal(isAnythingKept("8"), false);
  });

  test("without storage nothing is kept, and nothing fails", () => {
    Object.defineProperty(globalThis, "localStorage", {
      configurable: true,
      get() {
        throw new DOMException("no", "SecurityError");
      },
    });
    const kept = new Kept("ada", "lobby");
    kept.draft = "x";
    kept.keep("1", "x", time);
    kept.drop("1");
    assert.deepEqual([kept.draft, kept.unsent, kept.has("1"), isAnythingKept("ada")], ["", [], false, false]);
    Object.defineProperty(globalThis, "localStorage", { configurable: true, writable: true, value: {} });
  });
});

test("the initial is what is read as one letter, as a capital", () => {
  const names = ["ada", "ßa", "ﬀ", "A\u0345\u0345", "é", "e\u0301a", "👩‍👩‍👧‍👦 home", "مريم", "日本", ""];
  const initials = names.map((name) => {
    const element = { dataset: {} };
    paint(element, name);
    return element.dataset.initial;
  });
  assert.deepEqual(initials, ["A", "S", "F", "A", "É", "E\u0301", "👩‍👩‍👧‍👦", "م", "日", "?"]);
});

test("a name has one of twelve colours, always the same", () => {
  const colors = new Set(range(1, 200).map((number) => colorOf(`user ${number}`)));
  assert.deepEqual([...colors].sort((a, b) => a - b), range(0, 11));
  assert.equal(colorOf("ada"), colorOf("ada"));
  assert.ok(colorOf("") >= 0);
});
