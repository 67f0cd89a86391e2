// socket.io with WebSockets only, and a room: node socketio_server.js PORT
const { createServer } = require("node:http");
const { Server } = require("socket.io");

const http = createServer();
const io = new Server(http, { transports: ["websocket"], serveClient: false });

io.on("connection", (socket) => {
  const room = socket.handshake.query.room ?? "lobby";
  socket.join(room);
  socket.on("echo", () => socket.emit("pong"));
  socket.on("message", (text) => io.to(room).emit("message", text));
  socket.emit("connection_established", "You are now connected!");
});

http.listen(Number(process.argv[2]), "127.0.0.1");
