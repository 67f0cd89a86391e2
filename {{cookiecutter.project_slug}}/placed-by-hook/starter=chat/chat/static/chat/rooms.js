// The script of the page that has the list of rooms alone. That of a room is chat.js.

import { onErase } from "../accounts/kept.js";
import { showLoggedOut } from "../accounts/session.js";
import { Close, ReconnectingSocket } from "../realtime/socket.js";
import { RoomList, TOO_MANY } from "./list.js";

const all = Array.from(document.querySelectorAll("[id]"), (element) => [element.id, element]);
const elements = Object.fromEntries(all);
const { socketPath, user } = elements.list.dataset;

const rooms = new RoomList(elements);
const socket = new ReconnectingSocket(() => `${socketPath}?listed=${rooms.asOf}`, { greets: true });

socket.addEventListener("frame", ({ detail: frame }) => {
  if (frame.type === "connection_established" && frame.user !== user) socket.close({ code: Close.NOT_LOGGED_IN });
  else if (frame.type === "room") rooms.take(frame);
});
socket.addEventListener("statechange", ({ detail }) => {
  if (detail.state === "open") elements.notice.textContent = "";
  if (detail.code === Close.TOO_MANY_MESSAGES) elements.notice.textContent = TOO_MANY;
  if (detail.state === "closed" && detail.code === Close.NOT_LOGGED_IN) {
    showLoggedOut();
    elements.gone.hidden = false;
  }
});
onErase(elements.logout.dataset.userId, () => socket.close({ code: Close.NOT_LOGGED_IN }));

socket.open();
