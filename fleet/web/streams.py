"""Pages that stay true while they are looked at: server-sent events with the pieces of a page that have changed.

    a new view ──poke──▶ Hub ──▶ Channel: one for all who look at the same ──rendered once──▶ a queue for each of them

Laws.
1. A piece is rendered once for all who look at the same page with the same query, and sent only where it has changed in
   more than how long ago something is: the script counts that.
2. Rendering takes at most a quarter of a processor: after a pass the hub rests three times as long as it took. So does
   it where many look: no more than SENT_S messages and BYTES_S bytes leave a second, so that of a thousand streams each
   hears of news every other second. Rounds come first.
3. Streams are bounded in number, and so are the pages that they are of: each of these takes memory. Of either a user
   who has logged in has a share, so that nobody keeps the others out. A stream has a queue of QUEUED messages, which
   all of a channel share; who does not keep up is cut off, and comes again.
4. A stream with nothing to say says so every HEARTBEAT_S; the connection of who has gone is found by that.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from fleet.web.site import MissingError, Screen, Site

log = logging.getLogger(__name__)

MOST_STREAMS = 1200
MOST_CHANNELS = 200
"""Pages, each with its query, that are looked at at once. Each takes some 0.1 MB; so does each message that waits."""
STREAMS_OF_ONE, PAGES_OF_ONE = 100, 20
"""Of one user; a browser opens six to one host."""
QUEUED = 4
HEARTBEAT_S = 15.0
STUCK_S = 20.0
"""Who has not taken a message after so long is cut off."""
REST_S = 0.5
"""The least time between two passes."""
SENT_S = 500
"""Messages a second, of all streams together; one takes some 50 us of a processor."""
BYTES_S = 4_000_000
"""The same in bytes; who reads them on this machine takes as much again."""
STALE_S = 15.0
"""A pass is made after so long though nothing was heard: what a store says changes by itself."""
_AGES = re.compile(r">[^<]*</time>")
HEARTBEAT = b": still here\n\n"
Looking = Callable[[], Screen]


class Channel:
    """Those who look at the same, and what they have been shown."""

    def __init__(self, site: Site, look: Looking) -> None:
        self._site = site
        self._look = look
        self.queues: set[asyncio.Queue[bytes | None]] = set()
        self.first = asyncio.Lock()
        """Held while it is rendered for the first time."""
        self.is_rendered = False
        self._shown: dict[str, bytes] = {}
        self._ageless: dict[str, bytes] = {}
        """Digests of what is shown but for how long ago something is."""

    def render(self) -> bytes | None:
        """Return a message with what has changed, None where nothing has. Runs on the hub's thread."""
        try:
            screen = self._look()
        except MissingError:
            return None  # it was deleted under the eyes of who looks at it: the page stays as it was
        changed = {}
        for name in screen.parts:
            html = self._site.part(screen, name)
            ageless = hashlib.blake2b(_AGES.sub("></time>", html).encode(), digest_size=16).digest()
            if self._ageless.get(name) != ageless:
                changed[name] = html
            self._shown[name], self._ageless[name] = html.encode(), ageless
        return _message(changed, self._site.clock()) if changed else None

    def whole(self) -> bytes:
        """Return a message with all pieces, as they were rendered last."""
        shown = {name: html.decode() for name, html in self._shown.items()}
        return _message(shown, self._site.clock())


def _message(parts: dict[str, str], now: float) -> bytes:
    return b"data: " + msgspec.json.encode({"now": round(now, 3), "parts": parts}) + b"\n\n"


class Hub:
    """Renders for all streams, on a thread of its own; everything else of it belongs to the server's loop."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._channels: dict[object, Channel] = {}
        self._of_users: defaultdict[str, Counter[object]] = defaultdict(Counter)
        """Name to how many streams of each page."""
        self._news = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = ThreadPoolExecutor(1, "render")
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    @property
    def n_streams(self) -> int:
        """How many are open."""
        return sum(len(channel.queues) for channel in self._channels.values())

    def start(self) -> None:
        """Begin, on the loop that runs."""
        self._loop = asyncio.get_running_loop()
        self._site.lookout.subscribe(lambda _view, _events: self.poke())
        self._task = self._loop.create_task(self._run())

    async def stop(self) -> None:
        """End all streams and the thread."""
        self._close()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown(wait=False, cancel_futures=True)

    def poke(self) -> None:
        """Say that there is something new; from any thread, and after the end too."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed
                self._loop.call_soon_threadsafe(self._news.set)

    def close(self) -> None:
        """End all streams soon, and let no new one begin: the server stops. From any thread."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        self._closing.set()
        for channel in self._channels.values():
            for queue in channel.queues:
                _end(queue)

    async def stream(
        self, key: object, look: Looking, scope: Scope, receive: Receive, send: Send, *, user: str = ""
    ) -> None:
        """Answer a request with a stream. key: equal for those who look at the same. look: makes the screen.

        user: who has logged in; "" where nobody has.
        """
        if self._closing.is_set() or self._is_full(key, user):
            response = PlainTextResponse("too many look on already\n", 503, {"retry-after": "15"})
            await response(scope, receive, send)
            return
        if user:
            self._of_users[user][key] += 1
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED)
        channel = self._channels.setdefault(key, Channel(self._site, look))
        channel.queues.add(queue)
        try:
            async with channel.first:
                if not channel.is_rendered:
                    await self._render(channel)
                else:
                    with contextlib.suppress(asyncio.QueueFull):
                        queue.put_nowait(channel.whole())
            if self._closing.is_set():
                _end(queue)
            await _serve(queue, scope, receive, send)
        finally:
            channel.queues.discard(queue)
            if not channel.queues and self._channels.get(key) is channel:
                del self._channels[key]
            if user:
                self._forget(key, user)

    def _is_full(self, key: object, user: str) -> bool:
        """Return whether there is no room for one more, or none for this user."""
        if self.n_streams >= MOST_STREAMS or (key not in self._channels and len(self._channels) >= MOST_CHANNELS):
            return True
        mine = self._of_users.get(user, Counter())
        return mine.total() >= STREAMS_OF_ONE or (key not in mine and len(mine) >= PAGES_OF_ONE)

    def _forget(self, key: object, user: str) -> None:
        mine = self._of_users[user]
        mine[key] -= 1
        if not mine[key]:
            del mine[key]
        if not mine:
            del self._of_users[user]

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), STALE_S)
            self._news.clear()
            began = time.monotonic()
            n_sent = n_bytes = 0
            for channel in list(self._channels.values()):
                n, size = await self._render(channel)
                n_sent, n_bytes = n_sent + n, n_bytes + n * size
            await asyncio.sleep(rest_s(time.monotonic() - began, n_sent, n_bytes))

    async def _render(self, channel: Channel) -> tuple[int, int]:
        """Render what a channel shows, send what has changed to who looks, and return to how many, and its bytes."""
        message = await asyncio.get_running_loop().run_in_executor(self._thread, _safely, channel)
        channel.is_rendered = True
        if message is None:
            return 0, 0
        for queue in channel.queues:
            try:
                queue.put_nowait(message)
            except asyncio.QueueFull:
                _end(queue)
        return len(channel.queues), len(message)


def rest_s(took_s: float, n_sent: int, n_bytes: int) -> float:
    """Return how long the hub rests after a pass that took so long, and sent so much: law 2."""
    return max(REST_S, 3 * took_s, n_sent / SENT_S, n_bytes / BYTES_S)


def _safely(channel: Channel) -> bytes | None:
    try:
        return channel.render()
    except Exception:
        log.exception("a piece of the page cannot be shown")
        return None


def _end(queue: asyncio.Queue[bytes | None]) -> None:
    """Have its stream end at once, whatever waits in it."""
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(None)


async def _serve(queue: asyncio.Queue[bytes | None], scope: Scope, receive: Receive, send: Send) -> None:
    """Send what comes into the queue until it says that it is over, or the client has gone or does not keep up."""
    headers = [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),
    ]
    gone = asyncio.ensure_future(_gone(receive))
    try:
        async with asyncio.timeout(STUCK_S):
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"retry: 3000\n\n", "more_body": True})
        while True:
            coming = asyncio.ensure_future(queue.get())
            await asyncio.wait({coming, gone}, timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
            message = coming.result() if coming.done() else HEARTBEAT
            coming.cancel()
            if gone.done() or message is None:
                break
            async with asyncio.timeout(STUCK_S):
                await send({"type": "http.response.body", "body": message, "more_body": True})
        if not gone.done():
            async with asyncio.timeout(1.0):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
    except TimeoutError:
        cut: Callable[[], None] = scope.get("fedge.cut", lambda: None)
        cut()
        await asyncio.sleep(0)
    finally:
        gone.cancel()


async def _gone(receive: Receive) -> None:
    """Return when the client has closed its side."""
    while (await receive())["type"] != "http.disconnect":
        pass
