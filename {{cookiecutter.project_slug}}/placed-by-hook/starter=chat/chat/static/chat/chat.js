// Step 4 of 4: the WebSocket script. It shows the frames of the consumer (step 2, chat/consumers.py), and sends what is
// typed. Coming back after a loss, and sending again, is left to realtime's socket.js.
//
// A room numbers its messages 1, 2, 3, …, and the page shows an unbroken run of them. One that does not continue the
// run is not shown: the page asks for what is missing, and the server sends everything from there on again.

import { Close, ReconnectingSocket } from "../realtime/socket.js";
import { Unsent } from "./unsent.js";

/** Messages on the page: while the reader is at the end, those before are taken away. */
const MAX_SHOWN = 2000;
/** As many messages that come at once are read out by a screen reader; more would talk for minutes. */
const MAX_READ_OUT = 5;
const WHY_CLOSED = {
  [Close.NOT_LOGGED_IN]: "You are logged out.",
  [Close.NOT_ALLOWED]: "You are not a member of this room.",
  [Close.NOT_FOUND]: "There is no such room, or you are not a member of it.",
};

const all = Array.from(document.querySelectorAll("[id]"), (element) => [element.id, element]);
const elements = Object.fromEntries(all);
const { state, login, people, count, present, scroller, older, log, messages } = elements;
const { waiting, newer, notice, form, text: input, "blank-item": blank } = elements;
const { socketPath, maxTextLength, room, user } = elements.room.dataset;

// A room greets, and says whom: before that nothing is sent in anybody's name.
const socket = new ReconnectingSocket(() => socketPath + (newest === null ? "" : `?after=${newest}`), { greets: true });
const unsent = new Unsent(user, room);
const items = new Map(); // Those of `waiting`, by id.
let oldest = null; // The run of numbers on the page; null before there is one.
let newest = null;
let latest = 0; // The highest number that the server has told of.
let starting = false; // The server is sending the first messages.
let catchingUp = false; // It is sending what is missing, or has been asked to.
let turningBack = false; // It has been asked for a page of history.
let atEnd = true;
let lastTop = 0;
let quiet = 0; // The timer that ends it.

socket.addEventListener("statechange", ({ detail }) => {
  const why = WHY_CLOSED[detail.code] ?? `The server said no (${detail.code ?? detail.reason}).`;
  if (detail.state === "open") say("");
  state.dataset.state = detail.state;
  if (detail.state === "connecting") state.textContent = "connecting…";
  if (detail.state === "reconnecting") state.textContent = "reconnecting…";
  if (detail.state === "closed") state.textContent = why;
  login.hidden = detail.state !== "closed" || detail.code !== Close.NOT_LOGGED_IN;
  people.hidden = detail.state === "closed"; // Nobody tells this page any more who is here.
  starting = catchingUp = turningBack = false;
});

// One case for each type of frame that the consumer sends.
socket.addEventListener("frame", ({ detail: frame }) => {
  if (frame.type === "connection_established") greet(frame);
  else if (frame.type === "message") take(frame);
  else if (frame.type === "pong") compare(frame);
  else if (frame.type === "history") showHistory(frame);
  else if (frame.type === "presence") showPresent(frame.users);
  else if (frame.type === "presence_change") changePresent(frame);
  else if (frame.type === "error") showError(frame);
});

// Messages

function greet({ user: greeted, last_seq }) {
  // Somebody else has logged in meanwhile, in another tab: what waits here is not theirs to send.
  if (greeted !== user) return socket.close({ code: Close.NOT_LOGGED_IN });
  if (newest > last_seq) return startAnew();
  state.textContent = "connected";
  latest = last_seq;
  if (newest === null) hush();
  if (newest === null && latest === 0) newest = 0;
  starting = newest === null;
  catchingUp = newest !== latest; // Without being asked.
}

/** The page has missed very many messages, or the server has another database now, with fewer of them. */
function startAnew() {
  clear();
  socket.close();
  socket.open();
}

function clear() {
  oldest = newest = null;
  messages.replaceChildren();
}

function take(frame) {
  unsent.drop(frame.id);
  latest = Math.max(latest, frame.seq);
  if (newest !== null && frame.seq > newest + 1) {
    if (!starting) return catchUp();
    clear(); // What came before it was from long ago: the answer to a message that was sent again.
  }
  if (newest === null || frame.seq > newest) show(frame);
  removeWaiting(frame.id);
  if (newest === latest) starting = catchingUp = false;
}

function catchUp() {
  if (!catchingUp) catchingUp = socket.send({ type: "resume", after: newest });
}

function compare({ last_seq }) {
  latest = Math.max(latest, last_seq);
  if (newest === null || newest >= latest) return;
  catchingUp = false; // It may have been asked in vain.
  catchUp();
}

function show(frame) {
  if (latest - frame.seq >= MAX_READ_OUT) hush();
  const item = makeItem(frame);
  messages.append(item);
  join(item);
  newest = frame.seq;
  oldest ??= newest;
  newer.hidden = atEnd;
  if (atEnd) trim();
  older.hidden = oldest === 1;
}

function trim() {
  while (messages.childElementCount > MAX_SHOWN) messages.firstElementChild.remove();
  join(messages.firstElementChild);
  oldest = Number(messages.querySelector("[data-seq]").dataset.seq);
}

function showHistory({ before, more, messages: page }) {
  turningBack = false;
  if (before !== oldest) return;
  hush();
  if (!more && document.activeElement === older) scroller.focus({ preventScroll: true });
  const fromEnd = scroller.scrollHeight - scroller.scrollTop;
  messages.prepend(...page.map(makeItem));
  for (const item of [...messages.children].slice(0, page.length + 1)) join(item);
  oldest = page[0]?.seq ?? oldest;
  older.hidden = !more;
  scroller.scrollTop = scroller.scrollHeight - fromEnd;
}

function turnBack() {
  if (older.hidden || turningBack) return;
  turningBack = socket.send({ type: "history", before: oldest });
}

/** Where many are here, only those who come and go are named. */
function changePresent({ came, left }) {
  const names = new Set(Array.from(present.children, (item) => item.textContent));
  came.forEach((name) => names.add(name));
  left.forEach((name) => names.delete(name));
  showPresent([...names].sort());
}

function showPresent(names) {
  count.textContent = `: ${names.length}`;
  present.replaceChildren(
    ...names.map((name) => {
      const item = document.createElement("li");
      item.dir = "auto";
      item.textContent = name;
      return item;
    }),
  );
}

function showError({ id, code, message }) {
  turningBack = false;
  const item = items.get(id);
  if (!item || code === "rate_limited") return say(message, id);
  unsent.drop(id);
  removeWaiting(id);
  item.classList.add("refused");
  item.lastElementChild.textContent = `not sent: ${message}`;
  messages.append(item);
  join(item);
}

/** Show a notice until the next one, or until the message with the id `about` has its answer. */
function say(text, about = "") {
  notice.textContent = text;
  notice.dataset.about = about;
}

// What is typed

form.addEventListener("submit", (event) => {
  event.preventDefault();
  input.focus();
  // Half of a surrogate pair cannot be sent, and NUL cannot be stored.
  const text = input.value.replace(/[\p{Surrogate}\0]/gu, "\uFFFD");
  const length = [...text].length; // Code points, as Python counts.
  if (!text.trim()) return;
  try {
    if (length > maxTextLength) throw new RangeError(`Not sent: ${length} characters, and ${maxTextLength} fit.`);
    if (socket.state === "closed") throw new RangeError("Not sent: there is no connection.");
    const time = new Date().toISOString();
    unsent.keep(deliver({ text, time }), text, time);
    say(socket.state === "open" ? "" : "This is sent as soon as the connection is back.");
    input.value = "";
    scrollToEnd();
  } catch (error) {
    say(error.message); // The text stays where it was typed.
  }
});

// Enter sends, with Shift it makes a new line. On a touch screen, where there is no Shift+Enter, it is the other way.
const touch = matchMedia("(hover: none) and (pointer: coarse)");
input.addEventListener("keydown", (event) => {
  // While letters are composed, as in Japanese, Enter picks one. Safari tells it by the code 229 only.
  if (event.key !== "Enter" || event.isComposing || event.keyCode === 229) return;
  if (touch.matches ? !event.ctrlKey && !event.metaKey : event.shiftKey) return;
  event.preventDefault();
  form.requestSubmit();
});

/** Send `text`, now or later, and show it as waiting. An id is that of an earlier try. */
function deliver({ id, text, time }) {
  id = socket.deliver({ type: "message", text, ...(id && { id }) });
  const item = makeItem({ user, text, sent_at: time });
  item.lastElementChild.textContent = "not sent yet";
  waiting.append(item);
  items.set(id, item);
  return id;
}

function removeWaiting(id) {
  if (notice.dataset.about === id) say("");
  items.get(id)?.remove();
  items.delete(id);
}

// The browser asks before it leaves with something unsent that is not kept.
window.addEventListener("beforeunload", (event) => {
  if (socket.pending.some(({ id }) => !unsent.has(id))) event.preventDefault();
});

// Items

const clock = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const calendar = new Intl.DateTimeFormat(undefined, { dateStyle: "full" });

function makeItem({ seq, user: name, text, sent_at }) {
  const item = blank.content.firstElementChild.cloneNode(true);
  const [who, what, when] = item.children;
  const date = new Date(sent_at);
  if (seq) item.dataset.seq = seq;
  item.dataset.user = name;
  item.dataset.day = calendar.format(date);
  if (name === user) item.classList.add("own");
  who.textContent = name || "deleted account";
  what.textContent = text; // Never innerHTML: a stranger wrote it.
  when.dateTime = sent_at;
  when.textContent = clock.format(date);
  return item;
}

/** The first message of a day shows the day, and one that follows its sender's own does not repeat the name. */
function join(item) {
  const { user: name, day } = item.previousElementSibling?.dataset ?? {};
  item.classList.toggle("new-day", day !== item.dataset.day);
  item.classList.toggle("goes-on", day === item.dataset.day && name === item.dataset.user);
}

/** Let screen readers read out what is new, not what comes from long ago. */
function hush() {
  log.ariaLive = "off";
  clearTimeout(quiet);
  // They look only after the browser has drawn the page.
  quiet = setTimeout(() => (log.ariaLive = "polite"), 1000);
}

// Scrolling

// A reader at the end stays there when a line or a phone's keyboard comes; one who has scrolled up is left alone.
scroller.addEventListener("scroll", () => {
  const { scrollTop, scrollHeight, clientHeight } = scroller;
  atEnd = (atEnd && scrollTop >= lastTop) || scrollHeight - scrollTop - clientHeight < 50;
  if (atEnd) newer.hidden = true;
  else if (scrollTop < 50 && scrollTop < lastTop) turnBack();
  lastTop = scrollTop;
});
const resizes = new ResizeObserver(() => atEnd && scrollToEnd());
for (const element of [scroller, messages, waiting]) resizes.observe(element);

function scrollToEnd() {
  atEnd = true;
  scroller.scrollTo(0, scroller.scrollHeight);
}

older.addEventListener("click", () => {
  turnBack();
  if (!turningBack) say("Older messages can be fetched when the connection is back.");
});
newer.addEventListener("click", () => {
  scroller.focus({ preventScroll: true });
  scrollToEnd();
});

people.open ||= matchMedia("(min-width: 60rem)").matches;
for (const message of unsent.all) {
  try {
    deliver(message);
  } catch {} // More than fit wait until the next time.
}
socket.open();
