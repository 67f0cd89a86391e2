import struct

from realtime.consumers import RealtimeConsumer
from realtime.frames import FrameError

# x, y and a colour: red, green, blue.
PIXEL = struct.Struct("!HH3B")


class PixelsConsumer(RealtimeConsumer):
    frames_per_second = 60

    async def connect(self):
        await self.accept()
        await self.join("pixels")

    async def receive_bytes(self, data):
        if len(data) != PIXEL.size or max(PIXEL.unpack(data)[:2]) >= 64:
            raise FrameError("no_pixel", "A pixel has 7 bytes, and its place is from 0 to 63.")
        await self.broadcast("pixels", data, to_self=False)
