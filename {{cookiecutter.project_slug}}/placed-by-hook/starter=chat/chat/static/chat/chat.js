// Step 4 of 4: the WebSocket script. It shows the frames of the consumer (step 2, chat/consumers.py), and sends what is
// typed. Coming back after a loss, and sending again, is left to realtime's socket.js.
//
// timeline.js keeps the messages in order; messages.js, composer.js, people.js and list.js show what is on the page.

import { Kept, adopt, onErase } from "../accounts/kept.js";
import { showLoggedOut } from "../accounts/session.js";
import { format, gettext } from "../accounts/texts.js";
import { Close, ReconnectingSocket } from "../realtime/socket.js";
import { Composer, Waiting } from "./composer.js";
import { RoomList, TOO_MANY } from "./list.js";
import { Items, Messages } from "./messages.js";
import { Presence, Typing } from "./people.js";
import { Timeline } from "./timeline.js";

/** Milliseconds in which several messages that were seen are told as one. */
const SEEN = 1_000;
const WHY_CLOSED = {
  [Close.NOT_LOGGED_IN]: gettext("You are logged out."),
  [Close.NOT_ALLOWED]: gettext("You can no longer enter this room."),
  [Close.NOT_FOUND]: gettext("There is no such room, or you are not a member of it."),
};
/** By the code of an error frame, whose own message is English and shown for any other code. */
const WHY_REFUSED = {
  rate_limited: gettext("That was a lot at once. What you wrote is sent in a moment, all by itself."),
  too_large: gettext("This does not fit into one message. Send it in parts."),
  text_too_long: gettext("This does not fit into one message. Send it in parts."),
  not_allowed: gettext("Only its writer and the owner of the room can take back a message."),
};

const all = Array.from(document.querySelectorAll("[id]"), (element) => [element.id, element]);
const elements = Object.fromEntries(all);
const { state, login, people, older, typing: typingLine, "blank-item": blank } = elements;
const { socketPath, maxTextLength, room, user, userId, readSeq } = elements.room.dataset;

adopt(user, userId);
const kept = new Kept(userId, room);
// A room greets, and says whom: before that nothing is sent in anybody's name.
const socket = new ReconnectingSocket(addressOf, { greets: true });
const items = new Items(blank, elements.room.dataset, askToTakeBack);
const waiting = new Waiting(elements, items, kept, socket, user);
const read = readSeq === "" ? null : Number(readSeq);
const view = new Messages(elements, items, read, { turnBack: () => timeline.turnBack(), atEnd: see });
const timeline = new Timeline(view, (frame) => socket.send(frame));
const presence = new Presence(elements);
const typing = new Typing(typingLine, (frame) => socket.send(frame));
const composer = new Composer(elements, Number(maxTextLength), kept, { send, type: () => typing.type() });
const rooms = new RoomList(elements);
let seen = 0; // The number that the server was told last.
let seeing = 0; // The timer until it may be told again.
let edits = null; // How often a text was changed or taken back, as far as this page has heard.
let isFirst = true; // The messages that the page opens with are not all there yet.

function addressOf() {
  const after = timeline.newest === null ? "" : `after=${timeline.newest}&`;
  return `${socketPath}?${after}listed=${rooms.asOf}`;
}

socket.addEventListener("statechange", ({ detail }) => {
  const { state: now, code, reason } = detail;
  const unknown = format(gettext("The server said no (%s)."), code ?? reason);
  if (now === "open") composer.say("");
  state.dataset.state = now;
  if (now === "connecting") state.textContent = gettext("connecting…");
  if (now === "reconnecting") state.textContent = gettext("reconnecting…");
  if (now === "closed") state.textContent = WHY_CLOSED[code] ?? unknown;
  if (code === Close.TOO_MANY_MESSAGES) composer.say(TOO_MANY);
  login.hidden = now !== "closed" || code !== Close.NOT_LOGGED_IN;
  people.hidden = now === "closed"; // Nobody tells this page any more who is here.
  timeline.reset();
  if (now === "closed" && code === Close.NOT_LOGGED_IN) hide();
});

// One case for each type of frame that the consumer sends.
socket.addEventListener("frame", ({ detail: frame }) => {
  if (frame.type === "connection_established") greet(frame);
  else if (frame.type === "message") take(frame);
  else if (frame.type === "pong") compare(frame);
  else if (frame.type === "history") takeHistory(frame);
  else if (frame.type === "presence") presence.show(frame.users);
  else if (frame.type === "presence_change") presence.change(frame);
  else if (frame.type === "typing" && frame.user !== user && !items.isBlocked(frame.user)) typing.see(frame.user);
  else if (frame.type === "taken_back") takeBack(frame);
  else if (frame.type === "room") rooms.take(frame);
  else if (frame.type === "error") showError(frame);
});

function greet(frame) {
  // Somebody else has logged in meanwhile, in another tab: what waits here is not theirs to send.
  if (frame.user !== user && frame.user_id === userId) return takeNewName();
  if (frame.user !== user) return socket.close({ code: Close.NOT_LOGGED_IN });
  state.textContent = gettext("connected");
  seen = 0; // A server that was killed may have forgotten it.
  see();
  // While it was away, a message that it shows got another text.
  if (edits !== null && edits !== frame.edits) return startAnew();
  edits = frame.edits;
  rooms.know(room, frame.last_seq);
  if (!timeline.greet(frame)) startAnew();
}

/** Connects again, without what is on the page. */
function startAnew() {
  edits = null;
  if (!document.hidden) view.leave(timeline.newest);
  timeline.clear();
  socket.close();
  socket.open();
}

function compare(pong) {
  // A message of this page has another text now, and nobody has told.
  if (edits !== (pong.edits ?? edits)) return startAnew();
  timeline.compare(pong);
}

function askToTakeBack(seq) {
  const wasSent = socket.send({ type: "take_back", seq, id: `take_back ${seq}` });
  if (!wasSent) composer.say(gettext("Messages can be taken back when the connection is back."));
}

function takeBack({ seq, edits: now }) {
  timeline.takeBack(seq);
  composer.unsay(`take_back ${seq}`);
  // If there were others in between, the next pong tells.
  if (now === edits + 1) edits = now;
}

function takeHistory(frame) {
  timeline.takeHistory(frame);
  composer.unsay("history");
  for (const { user: name } of frame.messages) presence.hasWritten(name);
}

/** The user of this page has another name now. */
function takeNewName() {
  socket.close();
  location.reload();
}

function take(frame) {
  waiting.settle(frame.id);
  composer.unsay(frame.id);
  typing.forget(frame.user);
  presence.hasWritten(frame.user);
  timeline.take(frame);
  if (isFirst && timeline.newest === timeline.latest) view.showLine();
  isFirst &&= timeline.newest !== timeline.latest;
  see();
}

/** Tells the server what the reader has seen, now and at most once in SEEN: all, when the end is in sight. */
function see() {
  if (seeing || document.hidden || !tellSeen()) return;
  seeing = setTimeout(() => {
    seeing = 0;
    see();
  }, SEEN);
}

/** Returns whether there was something to tell. */
function tellSeen() {
  const { newest } = timeline;
  if (isFirst || !view.isAtEnd || newest <= seen || !socket.send({ type: "read", seq: newest })) return false;
  seen = newest;
  return true;
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) return see();
  tellSeen();
  view.leave(timeline.newest);
});
// Firefox closes the socket before it tells that it hides the page; Safari on a phone tells only that.
for (const type of ["beforeunload", "pagehide"]) window.addEventListener(type, () => document.hidden || tellSeen());

function send(text) {
  if (socket.state === "closed") throw new Error(gettext("Not sent: there is no connection."));
  try {
    waiting.send(text);
  } catch {
    throw new Error(gettext("Not sent: it is too long, or too much waits for the connection. Try it again later."));
  }
  typing.stop();
  composer.say(socket.state === "open" ? "" : gettext("This is sent as soon as the connection is back."));
  view.scrollToEnd();
}

function showError({ id, code, message }) {
  const wasAsked = timeline.refused();
  const isWaiting = waiting.has(id);
  const again = code === "rate_limited" && !isWaiting && gettext("That was a lot at once. Try it again in a moment.");
  const why = again || (WHY_REFUSED[code] ?? message);
  // What the reader has not asked for: that they type, or have seen something. The last release knows no such frames.
  if (!id && !wasAsked) return;
  if (!isWaiting || code === "rate_limited") return composer.say(why, id ?? "history");
  waiting.refuse(id, why, (text) => composer.edit(text));
  composer.unsay(id);
}

/** The session has ended. What was typed stays kept for its writer, and nothing stays on the page. */
function hide() {
  showLoggedOut();
  timeline.clear();
  waiting.hide();
  composer.hide();
}

// Somebody has pressed Log out, here or in another tab.
onErase(userId, () => {
  socket.close({ code: Close.NOT_LOGGED_IN });
  hide();
});

// Only another member lets one into a closed room again.
const leave = document.querySelector("[data-question]");
leave?.addEventListener("submit", (event) => confirm(leave.dataset.question) || event.preventDefault());

older.addEventListener("click", () => {
  if (!timeline.turnBack()) composer.say(gettext("Older messages can be fetched when the connection is back."));
});

people.open ||= matchMedia("(min-width: 75rem)").matches;
waiting.resume();
socket.open();
