"""The server and its streams over real sockets: what comes, who is cut off, and how it ends."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from aggregator.looking_on import WebSettings
from fleet.web import server, streams
from fleet.web.app import app
from fleet.web.login import Door
from fleet.web.server import WebServer, listening
from fleet.web.streams import Hub
from fleet.web.users import Users, read_users
from tests.fleet.web.made import JOB, MadeLookout, view

Until = Callable[[Callable[[], bool]], None]


async def read_all(request: Request) -> Response:
    """Answer once all of a form has come."""
    return Response(await request.body())


class Served:
    """A page that is served on loopback."""

    def __init__(self, lookout: MadeLookout, *inside: Middleware) -> None:
        self.lookout = lookout
        self.app: Starlette = app(lookout, WebSettings(), inside=inside)
        self.failures: list[str] = []
        self.server = self.at("127.0.0.1:0")

    def at(self, bind: str) -> WebServer:
        return WebServer(self.app, bind, lambda: self.failures.append("ended"), self.app.state.hub.close)

    @property
    def hub(self) -> Hub:
        hub: Hub = self.app.state.hub
        return hub

    def connect(self, request: str, *, buffer: bool = True, token: str = "") -> socket.socket:
        """Ask for something and give the socket."""
        assert self.server.port is not None
        made = socket.socket()
        made.settimeout(20)
        if not buffer:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        made.connect(("127.0.0.1", self.server.port))
        cookie = f"Cookie: fedge-{self.server.port}={token}\r\n" if token else ""
        made.sendall(f"GET {request} HTTP/1.1\r\nHost: localhost\r\n{cookie}\r\n".encode())
        return made

    def get(self, path: str) -> tuple[int, bytes]:
        assert self.server.port is not None
        asking = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        asking.request("GET", path)
        answer = asking.getresponse()
        found = answer.status, answer.read()
        asking.close()
        return found


@pytest.fixture
def served(until: Until) -> Iterator[Served]:
    made = Served(MadeLookout(view(200)))
    made.server.start()
    until(lambda: made.server.port is not None)
    yield made
    made.server.stop()
    assert not made.failures


class Stream:
    """A stream of a page, read message by message."""

    def __init__(self, served: Served, path: str, *, buffer: bool = True, token: str = "") -> None:
        self._socket = served.connect(path, buffer=buffer, token=token)
        self._file = self._socket.makefile("rb")
        self.head = self._until(b"\r\n")

    def _until(self, end: bytes) -> bytes:
        lines = b""
        while (line := self._file.readline()) not in (end, b""):
            lines += line
        return lines

    def message(self) -> dict[str, Any]:
        """Return the next message."""
        while line := self._file.readline():
            if line.startswith(b"data: "):
                found: dict[str, Any] = json.loads(line[6:])
                return found
        raise EOFError

    def is_over(self) -> bool:
        """Read to its end."""
        while self._file.read1(65_536):
            pass
        return True

    def close(self) -> None:
        self._file.close()
        self._socket.close()


def with_state(lookout: MadeLookout, name: str, state: str) -> None:
    """Show the same fleet with one device in another state."""
    changed = structs.replace(lookout.view.devices[name], state=state)
    devices = {**lookout.view.devices, name: changed}
    lookout.show(structs.replace(lookout.view, n=lookout.view.n + 1, devices=devices))


def test_a_stream_begins_with_all_pieces_and_goes_on_with_those_that_have_changed(served: Served) -> None:
    stream = Stream(served, "/live/?q=device-00003")
    assert b"text/event-stream" in stream.head
    first = stream.message()["parts"]
    assert set(first) == {"banner", "overview", "devices"}
    assert "device-00003" in first["devices"]
    assert "device-00004" not in first["devices"], "the same query as the page"
    with_state(served.lookout, "device-00003", "offline")
    changed = stream.message()["parts"]
    assert "offline" in changed["devices"]
    assert "banner" not in changed
    stream.close()


def test_who_looks_at_the_same_shares_one_rendering_and_gone_ones_are_forgotten(
    served: Served, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    rendered: list[str] = []
    part = served.app.state.site.part
    monkeypatch.setattr(
        served.app.state.site, "part", lambda screen, name: (rendered.append(name), part(screen, name))[1]
    )
    found = [Stream(served, "/live/?state=online") for _ in range(20)]
    assert all("devices" in stream.message()["parts"] for stream in found)
    assert rendered.count("devices") == 1
    with_state(served.lookout, "device-00003", "offline")
    assert all("devices" in stream.message()["parts"] for stream in found)
    assert rendered.count("devices") == 2
    for stream in found:
        stream.close()
    with_state(served.lookout, "device-00004", "offline")
    until(lambda: served.hub.n_streams == 0)


def test_nothing_is_sent_where_only_time_has_passed(served: Served) -> None:
    stream = Stream(served, "/live/devices/device-00001")
    stream.message()
    served.lookout.show(structs.replace(served.lookout.view, n=7, at=served.lookout.view.at + 500))
    with_state(served.lookout, "device-00001", "silent")
    assert "silent" in stream.message()["parts"]["device"], "and nothing came before it"
    stream.close()


def test_a_client_that_does_not_keep_up_is_cut_off_and_others_are_not(
    served: Served, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "REST_S", 0.0)
    monkeypatch.setattr(streams, "STUCK_S", 0.3)
    slow, quick = Stream(served, "/live/", buffer=False), Stream(served, "/live/devices/device-00001")
    quick.message()
    shown = 0

    def is_alone() -> bool:
        nonlocal shown
        shown += 1
        with_state(served.lookout, f"device-{shown % 50:05}", "offline" if shown // 50 % 2 else "silent")
        time.sleep(0.01)
        return served.hub.n_streams == 1

    until(is_alone)
    with_state(served.lookout, "device-00001", "quarantined")
    while "quarantine" not in quick.message()["parts"].get("device", ""):
        pass
    slow.close()
    quick.close()


def test_streams_are_bounded_in_number(served: Served, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MOST_STREAMS", 3)
    found = [Stream(served, "/live/events") for _ in range(3)]
    assert all(stream.message() for stream in found)
    assert served.get("/live/events")[0] == 503
    assert served.get("/")[0] == 200
    found.pop().close()
    with_state(served.lookout, "device-00004", "offline")
    until(lambda: served.hub.n_streams == 2)
    for stream in found:
        stream.close()


def test_pages_that_are_looked_at_are_bounded_in_number(
    served: Served, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "MOST_CHANNELS", 2)
    found = [Stream(served, path) for path in ("/live/", "/live/?q=a", "/live/?q=a")]
    assert all(stream.message() for stream in found)
    assert served.get("/live/?q=b")[0] == 503
    found.append(Stream(served, "/live/"))
    assert found[-1].message(), "who looks at what others look at takes no more"
    for stream in found[:2]:
        stream.close()
    with_state(served.lookout, "device-00004", "offline")
    until(lambda: served.hub.n_streams == 2)
    for stream in found[2:]:
        stream.close()


def test_a_user_has_a_share_of_streams_and_pages_and_leaves_the_rest_to_others(
    users: Path, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "STREAMS_OF_ONE", 3)
    monkeypatch.setattr(streams, "PAGES_OF_ONE", 2)
    door = Door(Users(users), is_needed=False)
    made = Served(MadeLookout(view(200)), door.middleware())
    made.server.start()
    until(lambda: made.server.port is not None)
    anna, bo = (door.sessions.open(name, read_users(users)[name].password)[0] for name in ("anna", "bo"))
    with ExitStack() as stack:

        def opened(path: str, token: str) -> Stream:
            return stack.enter_context(closing(Stream(made, path, token=token)))

        hers = [opened(path, anna) for path in ("/live/", "/live/?q=a", "/live/")]
        assert all(stream.message() for stream in hers)
        assert b" 503 " in opened("/live/", anna).head, "a fourth stream"
        hers.pop().close()
        with_state(made.lookout, "device-00003", "offline")
        until(lambda: made.hub.n_streams == 2)
        assert b" 503 " in opened("/live/?q=b", anna).head, "a third page"
        assert all(opened("/live/?q=b", token).message() for token in (bo, ""))
        hers.pop().close()
        with_state(made.lookout, "device-00004", "offline")
        until(lambda: made.hub.n_streams == 3)
        assert opened("/live/?q=c", anna).message(), "a page that is looked at no more takes no room"
    made.server.stop()


def test_a_stream_of_what_is_not_there_says_nothing_and_one_with_a_bad_query_is_refused(served: Served) -> None:
    assert served.get("/live/?page=x")[0] == 400
    assert served.get("/live/nothing")[0] == 404


def test_a_heartbeat_comes_where_nothing_happens(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_S", 0.05)
    stream = Stream(served, f"/live/jobs/{JOB}")
    stream.message()
    while not stream._file.readline().startswith(b": still here"):
        pass
    stream.close()


def test_the_end_of_the_server_ends_its_streams(until: Until, caplog: pytest.LogCaptureFixture) -> None:
    made = Served(MadeLookout())
    made.server.start()
    until(lambda: made.server.port is not None)
    found = [Stream(made, "/live/") for _ in range(5)]
    assert all(stream.message() for stream in found)
    made.server.stop()
    assert not made.server._thread.is_alive()
    assert not caplog.text, "and nobody was cut off for it"
    assert all(stream.is_over() for stream in found)
    for stream in found:
        stream.close()


def test_who_asks_nothing_is_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SILENT_S", 0.05)
    assert served.server.port is not None
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=20) as silent, suppress(OSError):
        assert silent.recv(1) == b""


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("", "POST /login HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nContent-Length: 9\r\n\r\nname="),
        ("GET /static/page.css HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET / HTTP/1.1\r\nHo"),
    ],
)
def test_who_begins_a_question_and_does_not_end_it_is_cut_off(
    served: Served, monkeypatch: pytest.MonkeyPatch, first: str, then: str
) -> None:
    monkeypatch.setattr(server, "SILENT_S", 0.3)
    served.app.router.routes.append(Route("/login", read_all, methods=["POST"]))
    assert served.server.port is not None
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=20) as slow, suppress(ConnectionError):
        if first:
            slow.sendall(first.encode())
            assert slow.recv(1_000_000)
        slow.sendall(then.encode())
        while slow.recv(1_000_000):
            pass


def test_who_has_asked_and_listens_is_not_cut_off(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "SILENT_S", 0.02)
    stream = Stream(served, "/live/?q=device-00003")
    stream.message()
    time.sleep(0.2)
    with_state(served.lookout, "device-00003", "offline")
    assert "offline" in stream.message()["parts"]["devices"]
    stream.close()


def test_who_connects_and_says_nothing_does_not_have_all_files_opened(
    monkeypatch: pytest.MonkeyPatch, until: Until, caplog: pytest.LogCaptureFixture, certificate: tuple[Path, Path]
) -> None:
    monkeypatch.setattr(server, "MOST_SOCKETS", 5)
    made = Served(MadeLookout())
    where = str(certificate[0]), str(certificate[1])
    made.server = WebServer(made.app, "127.0.0.1:0", lambda: None, made.hub.close, where)
    made.server.start()
    until(lambda: made.server.port is not None)
    assert made.server.port is not None
    with ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(socket.create_connection(("127.0.0.1", made.server.port), timeout=20))
        more = stack.enter_context(socket.create_connection(("127.0.0.1", made.server.port), timeout=20))
        with suppress(ConnectionError):
            assert more.recv(1) == b"", "it is closed, and no TLS begins"
    with closing(http.client.HTTPSConnection("127.0.0.1", made.server.port, context=_unverified())) as asking:
        asking.request("GET", "/")
        assert asking.getresponse().status == 200, "who has gone takes no room"
    made.server.stop()
    assert not caplog.text


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_a_head_that_does_not_end_is_refused(served: Served) -> None:
    assert served.server.port is not None
    with socket.create_connection(("127.0.0.1", served.server.port), timeout=20) as long:
        long.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * (server.MOST_HEADERS + 100))
        assert b" 400 " in long.recv(100)


def test_a_port_that_is_taken_is_waited_for(
    until: Until, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "AGAIN_S", (0.02, 0.02))
    with listening("127.0.0.1:0") as taken:
        port = taken.getsockname()[1]
        made = Served(MadeLookout())
        made.server = made.at(f"127.0.0.1:{port}")
        made.server.start()
        until(lambda: "Address already in use" in caplog.text)
        time.sleep(0.1)
        assert caplog.text.count("web=waiting") == 1, "it is said once"
    until(lambda: made.server.port == port)
    until(lambda: made.get("/")[0] == 200)
    made.server.stop()


def test_the_more_look_the_more_rarely_they_hear() -> None:
    assert streams.rest_s(0.01, 10, 10 * 8_000) == streams.REST_S
    assert streams.rest_s(1.0, 10, 0) == 3.0, "rendering takes a quarter of a processor"
    assert streams.rest_s(0.01, 1000, 1000 * 400) == 2.0
    assert streams.rest_s(0.01, 1000, 1000 * 40_000) == 10.0, "of a large fleet's page"


def test_a_rest_follows_from_how_many_were_told(served: Served, until: Until, monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[tuple[int, int]] = []

    def rest_s(_took_s: float, n_sent: int, n_bytes: int) -> float:
        rests.append((n_sent, n_bytes))
        return 0.0

    monkeypatch.setattr(streams, "rest_s", rest_s)
    several = [Stream(served, path) for path in ("/live/", "/live/", "/live/events")]
    for stream in several:
        stream.message()
    served.lookout.show(structs.replace(view(200), trouble="the store is away"))
    size = len(json.dumps(several[0].message()))
    until(lambda: bool(rests) and sum(n for n, _ in rests) == 3)
    assert sum(n for _, n in rests) > 2 * 0.9 * size
    for stream in several:
        stream.close()
