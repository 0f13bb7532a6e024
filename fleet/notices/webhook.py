"""Where a JSON object is posted for each notice, from a thread of its own.

    post ──▶ waiting, bounded ──one at a time──▶ POST ──2xx──▶ done
                  ▲                               ├─ 400, 413, 422 ─▶ it will never be taken: done, and logged
                  └──── again in 1 s … 10 min ◀───┴─ anything else

1. Nobody waits for it. It may be dead, slow or lie: an answer is not read, a redirection is not followed (urllib
   would, to ftp: as well), a certificate is verified.
2. Where more wait than MOST_UNSENT the oldest is dropped and counted; the next one that is taken is preceded by one
   that says how many.
3. An address may hold a secret: what is logged of it is its scheme and its host.
"""

from __future__ import annotations

import base64
import http.client
import logging
import ssl
import threading
import urllib.request
from collections import deque
from collections.abc import Sequence
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, unquote, urlsplit

import msgspec
from msgspec import Struct

from broker.messages import Notice
from fleet.notices.told import MOST_UNSENT

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
RETRY_S = (1.0, 600.0)
"""The first and the last pause between two tries."""
NEVER = (400, 413, 422)
"""Answers that say that this very notice will never be taken."""
DROPPED = "notices.dropped"
"""The kind of the notice that says how many were dropped."""


class WebhookError(Exception):
    """It did not take it: why, without a word of its address."""

    def __init__(self, why: str, *, is_final: bool = False) -> None:
        super().__init__(why)
        self.is_final = is_final


class _Body(Struct):
    fleet: str
    at: float
    kind: str
    text: str
    job: str
    device: str


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


class Post:
    """How one notice is posted. Raises ValueError for an address that is none."""

    def __init__(self, address: str, timeout_s: float = TIMEOUT_S) -> None:
        try:
            parts = urlsplit(address)
            host, port = parts.hostname, parts.port
        except ValueError:  # which may repeat a part of it
            host, port = None, None
        if not host or parts.scheme not in ("http", "https"):
            raise ValueError("it is no address that begins with http:// or https://")
        self._timeout_s = timeout_s
        self.shown = f"{parts.scheme}://{host}{f':{port}' if port else ''}"
        """What may be logged of it."""
        self._headers = {"Content-Type": "application/json", "User-Agent": "fedge"} | _authorization(parts)
        self._address = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
        self._opener = urllib.request.OpenerDirector()  # build_opener would take file: and ftp: as well
        for handler in (
            *(urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), _NoRedirection()),
            *(urllib.request.HTTPSHandler(context=ssl.create_default_context()), urllib.request.HTTPErrorProcessor()),
            urllib.request.HTTPDefaultErrorHandler(),
        ):
            self._opener.add_handler(handler)

    def __call__(self, fleet: str, notice: Notice) -> None:
        """Post it. Raises WebhookError."""
        body = _Body(fleet, notice.at, notice.kind, notice.text, notice.job, notice.device)
        said = msgspec.json.encode(body)
        request = urllib.request.Request(self._address, said, self._headers, method="POST")  # noqa: S310 -- http(s) alone
        try:
            with self._opener.open(request, timeout=self._timeout_s):
                return
        except HTTPError as error:
            error.close()
            moved = ": give the address that it redirects to" if 300 <= error.code < 400 else ""
            raise WebhookError(f"it answers {error.code}{moved}", is_final=error.code in NEVER) from None
        except URLError as error:
            raise WebhookError(_why(error.reason)) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise WebhookError(_why(error)) from None


class Webhook:
    """The queue and its thread. unsent: what was left there when it last ended."""

    def __init__(
        self,
        fleet: str,
        post: Post,
        unsent: Sequence[Notice] = (),
        dropped: int = 0,
        *,
        retry_s: tuple[float, float] = RETRY_S,
    ) -> None:
        self._fleet, self._post, self._retry_s = fleet, post, retry_s
        self._waiting = deque(unsent)
        self.dropped = dropped
        self._said = 0
        """Of these, as many as the notice tells that is being posted."""
        self.n_changes = 0
        """Counts changes of what waits."""
        self._lock = threading.Lock()
        self._woken, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)

    def start(self) -> None:
        """Begin to post what waits."""
        self._thread.start()

    def stop(self) -> None:
        """End, without waiting for an answer that does not come."""
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(0.5)

    def post(self, notice: Notice) -> None:
        """Have a notice posted when that can be done."""
        with self._lock:
            self._waiting.append(notice)
            while len(self._waiting) > MOST_UNSENT:
                self._waiting.popleft()
                self.dropped += 1
            self.n_changes += 1
        self._woken.set()

    def unsent(self) -> list[Notice]:
        """Return what waits, the oldest first."""
        with self._lock:
            return list(self._waiting)

    # The thread.

    def _run(self) -> None:
        pause_s, is_down = self._retry_s[0], False
        while not self._stopping.is_set():
            notice = self._next()
            if notice is None:
                self._woken.wait()
                self._woken.clear()
                continue
            try:
                self._post(self._fleet, notice)
            except WebhookError as error:
                if error.is_final:
                    log.error(
                        "webhook=%s refused kind=%s: %s; it is not tried again", self._post.shown, notice.kind, error
                    )
                    self._done(notice)
                    continue
                (log.debug if is_down else log.warning)(
                    "webhook=%s took nothing: %s; it is tried again, and nothing else waits for it",
                    self._post.shown,
                    error,
                )
                is_down = True
                self._stopping.wait(pause_s)
                pause_s = min(2 * pause_s, self._retry_s[1])
                continue
            if is_down:
                log.info("webhook=%s takes notices again", self._post.shown)
            pause_s, is_down = self._retry_s[0], False
            self._done(notice)

    def _next(self) -> Notice | None:
        with self._lock:
            if self._waiting and self.dropped:
                n = self._said = self.dropped
                lost = f"{n:,} earlier notice{'s' * (n != 1)} could not be posted and {'are' if n > 1 else 'is'} lost"
                return Notice(self._waiting[0].at, DROPPED, lost)
            return self._waiting[0] if self._waiting else None

    def _done(self, notice: Notice) -> None:
        with self._lock:
            if notice.kind == DROPPED:
                self.dropped -= self._said
            elif self._waiting and self._waiting[0] is notice:  # it may have been dropped meanwhile
                self._waiting.popleft()
            self.n_changes += 1


def _authorization(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}


def _why(error: object) -> str:
    """Return what went wrong; of what may repeat the address its kind alone."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not believed: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
