// Step 4 of 4: the WebSocket script. It shows the frames of the consumer (step 2, chat/consumers.py), and sends
// what is typed. Coming back after a loss, and keeping what was typed meanwhile, is left to realtime's socket.js.

import { Close, ReconnectingSocket } from "../realtime/socket.js";

const GAP = "What others wrote meanwhile is missing here.";
const WHY_CLOSED = {
  [Close.NOT_LOGGED_IN]: "log in, then reload this page.",
  [Close.NOT_ALLOWED]: "you are not allowed in here.",
  [Close.NOT_FOUND]: "the server has no socket at this address.",
};

const ids = ["state", "scroller", "messages", "waiting", "notice", "form", "text", "blank-item"];
const [state, scroller, messages, waiting, notice, form, input, blank] = ids.map((id) => document.getElementById(id));
const { socketPath, maxTextLength } = document.body.dataset;
const socket = new ReconnectingSocket(socketPath);
const shown = new Map(); // The list item of each message, by id, oldest first.
let atEnd = true;
let lastTop = 0;

socket.addEventListener("statechange", ({ detail }) => {
  const why = WHY_CLOSED[detail.code] ?? `the server said no (${detail.code ?? detail.reason}).`;
  const isBack = detail.state === "open" && state.dataset.state === "reconnecting";
  if (isBack) say("");
  if (isBack && messages.querySelector("li:last-child:not(.gap)")) addItem(messages, "gap", GAP);
  state.dataset.state = detail.state;
  if (detail.state === "open") state.textContent = "connected";
  if (detail.state === "reconnecting") state.textContent = "reconnecting…";
  if (detail.state === "closed") state.textContent = `Disconnected: ${why}`;
});

// One case for each type of frame that the consumer sends.
socket.addEventListener("frame", ({ detail: frame }) => {
  if (frame.type === "message") showMessage(frame);
  else if (frame.type === "error") showError(frame);
});

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
    addItem(waiting, "own", text, socket.deliver({ type: "message", text }), "not sent yet");
    say(socket.state === "open" ? "" : "This is sent as soon as the connection is back.");
    input.value = "";
    atEnd = true;
  } catch (error) {
    say(error.message); // The text stays where it was typed.
  }
});

// A reader at the end stays there when a line or a phone's keyboard comes; one who has scrolled up is left alone.
scroller.addEventListener("scroll", () => {
  const { scrollTop, scrollHeight, clientHeight } = scroller;
  atEnd = (atEnd && scrollTop >= lastTop) || scrollHeight - scrollTop - clientHeight < 50;
  lastTop = scrollTop;
});
const resizes = new ResizeObserver(() => atEnd && scroller.scrollTo(0, scroller.scrollHeight));
for (const element of [scroller, messages, waiting]) resizes.observe(element);

// The browser asks before it leaves with something unsent.
window.addEventListener("beforeunload", (event) => socket.pending.length && event.preventDefault());

function showMessage({ id, text }) {
  const known = shown.get(id);
  if (known?.parentElement === messages) return; // Sent again after a loss, although it had arrived.
  addItem(messages, known ? "own" : "", text, id ?? undefined);
}

function showError({ id, code, message }) {
  const text = shown.get(id)?.firstElementChild.textContent;
  if (!text || code === "rate_limited") say(message, id);
  else addItem(messages, "own refused", text, id, `not sent: ${message}`);
}

/** Shows a notice until the next one, or until the message with the id `about` has its answer. */
function say(text, about = "") {
  notice.textContent = text;
  notice.dataset.about = about;
}

function addItem(list, className, text, id = Symbol("no id"), note = "") {
  const item = blank.content.firstElementChild.cloneNode(true);
  item.className = className;
  item.firstElementChild.textContent = text; // Never innerHTML: a stranger wrote it.
  item.lastElementChild.textContent = note;
  removeItem(id);
  list.append(item);
  shown.set(id, item);
  if (shown.size > 1000) removeItem(shown.keys().next().value);
}

function removeItem(id) {
  if (notice.dataset.about === id) say("");
  shown.get(id)?.remove();
  shown.delete(id);
}

socket.open();
