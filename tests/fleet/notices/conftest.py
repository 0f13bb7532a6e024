"""A server that listens to notices, on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class Hook:
    """answers: what it says next; the last one for ever. None: nothing, until it is stopped."""

    def __init__(self) -> None:
        self.answers: list[int | None] = [200]
        self.heard: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.location = ""
        self.silent = threading.Event()
        self.released = threading.Event()
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                answer = hook.answers.pop(0) if len(hook.answers) > 1 else hook.answers[0]
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if answer is None:
                    hook.silent.set()
                    hook.released.wait()
                    return
                hook.headers = dict(self.headers)
                if answer == 200:
                    hook.heard.append(body)
                self.send_response(answer)
                if hook.location:
                    self.send_header("Location", hook.location)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def texts(self) -> list[str]:
        return [body["text"] for body in self.heard]


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    monkeypatch.setenv("no_proxy", "*")
    made = Hook()
    yield made
    made.released.set()
    made.server.shutdown()
    made.server.server_close()
