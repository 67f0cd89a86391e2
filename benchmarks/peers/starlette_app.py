"""Bare Starlette: a set of sockets and a loop, without sessions, users or a check of the Origin."""

import json

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

members = set()


async def socket_server(websocket: WebSocket):
    await websocket.accept()
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


app = Starlette(routes=[WebSocketRoute("/ws/socket-server/", socket_server)])
