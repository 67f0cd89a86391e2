import { useEffect, useRef, useState } from "react";
import { ReconnectingSocket } from "./socket.js";

/** Returns the state of a socket to `url`, and a function that sends a frame. onFrame: called with each that comes. */
export function useSocket(url, token, onFrame) {
  const [state, setState] = useState("connecting");
  const live = useRef(null);
  const listener = useRef(onFrame);
  useEffect(() => {
    listener.current = onFrame;
  });
  useEffect(() => {
    const socket = new ReconnectingSocket(url, { token });
    socket.addEventListener("statechange", ({ detail }) => setState(detail.state));
    socket.addEventListener("frame", ({ detail }) => listener.current(detail));
    socket.open();
    live.current = socket;
    // StrictMode mounts twice, and closes the first one here.
    return () => socket.close();
  }, [url, token]);
  return [state, (frame) => live.current.deliver(frame)];
}
