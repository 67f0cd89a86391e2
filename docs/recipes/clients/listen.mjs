// node listen.mjs wss://site.example/ws/socket-server/ TOKEN: print what comes, and come back after a loss.
// Node has WebSocket since version 22. It sets no headers, as in browsers: the token goes beside a protocol.

const [url, token] = process.argv.slice(2);
let attempts = 0;

function connect() {
  const socket = new WebSocket(url, ["realtime", `bearer.${token}`]);
  socket.onmessage = ({ data }) => {
    attempts = 0;
    console.log(data);
  };
  socket.onclose = ({ code }) => {
    if (code >= 4400 && code <= 4499 && code !== 4429) {
      console.error(`The server says no: ${code}`);
      process.exit(1);
    }
    setTimeout(connect, Math.random() * Math.min(500 * 2 ** attempts++, 30_000));
  };
}

connect();
