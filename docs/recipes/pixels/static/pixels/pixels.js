import { ReconnectingSocket } from "../realtime/socket.js";

const canvas = document.querySelector("canvas");
const context = canvas.getContext("2d");
const socket = new ReconnectingSocket("/ws/pixels/");

function draw(data) {
  const view = new DataView(data);
  context.fillStyle = `rgb(${view.getUint8(4)}, ${view.getUint8(5)}, ${view.getUint8(6)})`;
  context.fillRect(view.getUint16(0), view.getUint16(2), 1, 1);
}

// Bytes come as an ArrayBuffer, beside the JSON frames of the "frame" event.
socket.addEventListener("message", ({ data }) => draw(data));

canvas.addEventListener("click", ({ offsetX, offsetY }) => {
  const view = new DataView(new ArrayBuffer(7));
  view.setUint16(0, offsetX);
  view.setUint16(2, offsetY);
  view.setUint8(4, 255);
  draw(view.buffer);
  socket.send(view.buffer);
});

socket.open();
