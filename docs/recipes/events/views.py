import asyncio
import time

from django.http import HttpResponse, StreamingHttpResponse

from realtime.fanout import Subscription

HEARTBEAT = 15  # seconds, less than a proxy waits
MAX_AGE = 600  # seconds, after which the browser comes back by itself, and is asked again who it is


class Queue(asyncio.Queue):
    """A member of a group, for one reader."""

    def deliver(self, broadcast):
        if "text" in broadcast.event and not self.full():
            self.put_nowait(broadcast.event["text"])

    def handle(self, message):
        """Ignore notify_consumers()."""


async def events(request):
    if not (await request.auser()).is_authenticated:
        # With 204 a browser does not come back.
        return HttpResponse(status=204)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingHttpResponse(stream("lobby"), content_type="text/event-stream", headers=headers)


async def stream(group):
    queue, end = Queue(maxsize=100), time.monotonic() + MAX_AGE
    subscription = await Subscription.join(group, queue)
    try:
        yield ": welcome\n\n"
        # A reader that is too slow comes back, too.
        while time.monotonic() < end and not queue.full():
            try:
                text = await asyncio.wait_for(queue.get(), HEARTBEAT)
                yield "".join(f"data: {line}\n" for line in text.splitlines()) + "\n"
            except TimeoutError:
                yield ": still here\n\n"
    finally:
        await subscription.leave()
