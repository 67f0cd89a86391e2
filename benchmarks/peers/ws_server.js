// ws, the usual WebSocket library of Node, with the broadcast of its README: node ws_server.js PORT
const { WebSocketServer } = require("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]) });

const rooms = new Map();

server.on("connection", (socket, request) => {
  const members = rooms.get(request.url) ?? new Set();
  rooms.set(request.url, members.add(socket));
  socket.on("close", () => members.delete(socket));
  socket.on("error", () => {});
  socket.on("message", (data) => {
    const frame = JSON.parse(data);
    if (frame.type === "ping") {
      socket.send(JSON.stringify({ type: "pong" }));
    } else {
      const text = JSON.stringify({ type: "message", text: frame.text });
      for (const member of members) {
        if (member.readyState === 1) member.send(text);
      }
    }
  });
  socket.send(JSON.stringify({ type: "connection_established", message: "You are now connected!" }));
});
