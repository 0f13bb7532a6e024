"""A browser without a screen: it asks an application in this process, and keeps its cookies."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from starlette.applications import Starlette

GOOD = "correct horse battery"
"""The password of all users of these tests."""
HERE = "http://127.0.0.1:8080"
FROM_HERE = {"origin": HERE, "sec-fetch-site": "same-origin"}


class Browser:
    """One profile of one browser. base: scheme, name and port under which it knows the page."""

    def __init__(self, app: Starlette, base: str) -> None:
        self._loop = asyncio.new_event_loop()
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        self._client = httpx.AsyncClient(transport=transport, base_url=base)
        self.cookies = self._client.cookies

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self._loop.run_until_complete(self._client.request(method, path, **more))

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)

    def close(self) -> None:
        self._loop.run_until_complete(self._client.aclose())
        self._loop.close()
