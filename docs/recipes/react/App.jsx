import { useState } from "react";
import { useSocket } from "./useSocket.js";

const SITE = import.meta.env.VITE_SITE; // https://site.example

async function fetchTicket() {
  const response = await fetch(`${SITE}/realtime/ticket/`, { method: "POST", credentials: "include" });
  // Not logged in any more: the server says 4401 to what is no ticket, and the socket gives up.
  if (response.status === 401) return "none";
  if (!response.ok) throw new Error(`no ticket: ${response.status}`);
  return (await response.json()).ticket;
}

export function App() {
  const [lines, setLines] = useState([]);
  const [state, send] = useSocket(`${SITE}/ws/socket-server/`, fetchTicket, (frame) => {
    if (frame.type === "message") setLines((lines) => [...lines, frame]);
  });

  function submit(form) {
    send({ type: "message", text: form.get("text") });
  }

  return (
    <main>
      <p role="status">{state}</p>
      <ol>
        {lines.map((line) => (
          <li key={line.id}>{line.text}</li>
        ))}
      </ol>
      <form action={submit}>
        <input name="text" aria-label="Message" required />
      </form>
    </main>
  );
}
