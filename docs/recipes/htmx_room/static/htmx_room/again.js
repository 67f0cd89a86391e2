// The extension comes back by itself after these; the others are for us.
const ITS_OWN = [1006, 1011, 1012, 1013];
const show = (id, text) => (document.getElementById(id).textContent = text);

document.addEventListener("htmx:wsClose", ({ detail }) => {
  const { code } = detail.event;
  const isFinal = code >= 4400 && code <= 4499 && code !== 4429;
  show("state", isFinal ? `Disconnected: the server said no (${code}).` : "reconnecting…");
  if (isFinal || ITS_OWN.includes(code)) return;
  // Spread over some seconds, so that a crowd does not come back all at once.
  setTimeout(() => detail.socketWrapper.reconnect(), 500 + Math.random() * (code === 4429 ? 20_000 : 2_000));
});

// What is no HTML is a frame: an error for what was sent.
document.addEventListener("htmx:wsBeforeMessage", (event) => {
  if (!event.detail.message.startsWith("{")) return show("notice", "");
  event.preventDefault();
  show("notice", JSON.parse(event.detail.message).message);
});
