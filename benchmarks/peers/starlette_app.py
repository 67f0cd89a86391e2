"""Bare Starlette: a set of sockets for each room and a loop, without sessions, users or a check of the Origin."""

import json
from collections import defaultdict

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

rooms = defaultdict(set)


async def socket_server(websocket: WebSocket):
    await websocket.accept()
    members = rooms[websocket.path_params.get("room", "lobby")]
    members.add(websocket)
    try:
        await websocket.send_text(json.dumps({"type": "connection_established", "message": "You are now connected!"}))
        while True:
            frame = json.loads(await websocket.receive_text())
            if frame["type"] == "ping":
                await websocket.send_text(json.dumps({"type": "pong"}))
            else:
                text = json.dumps({"type": "message", "text": frame["text"]})
                for member in list(members):
                    await member.send_text(text)
    except WebSocketDisconnect:
        pass
    finally:
        members.discard(websocket)


app = Starlette(routes=[WebSocketRoute(path, socket_server) for path in ("/ws/socket-server/", "/ws/rooms/{room}/")])
