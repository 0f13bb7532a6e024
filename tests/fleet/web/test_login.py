"""Who gets in at the page, and what an attacker tries: a row of the table below is a test."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.types import Message

from aggregator.looking_on import WebSettings
from broker.connection import BrokerSettings
from broker.wire import Wire
from fleet.sight.lookout import lookout_on
from fleet.web import login
from fleet.web.app import app
from fleet.web.login import MOST_WAITING, WRONG, Door, NotAllowedError, form_of
from fleet.web.sessions import LONGEST_S, Sessions
from fleet.web.tries import FREE, Tries
from fleet.web.users import Users, add_user, remove_user
from tests.clocks import Clock
from tests.fleet.web.browser import FROM_HERE, GOOD, HERE, Browser


class Page:
    """The page of a fleet that nobody runs, and its users."""

    def __init__(self, users: Path, *, is_needed: bool) -> None:
        self.users, self.clock = users, Clock(1000.0)
        self.door = Door(Users(users), is_needed=is_needed, sessions=Sessions(self.clock), tries=Tries(self.clock))
        self._browsers: list[Browser] = []
        self._app = app(
            lookout_on(BrokerSettings(), Wire("f")),
            WebSettings(bind="127.0.0.1:8080", users_file=str(users)),
            more=self.door.routes,
            inside=[self.door.middleware()],
        )

    def client(self, base: str = HERE) -> Browser:
        return self._opened(base)

    def _opened(self, base: str) -> Browser:
        self._browsers.append(browser := Browser(self._app, base))
        return browser

    def close(self) -> None:
        for browser in self._browsers:
            browser.close()

    def logged_in(self, name: str = "anna", base: str = HERE) -> Browser:
        client = self.client(base)
        assert enter(client, name, headers=FROM_HERE | {"origin": base}).status_code == 303
        return client


def enter(client: Browser, name: str = "anna", password: str = GOOD, **more: object):  # type: ignore[no-untyped-def]
    more.setdefault("headers", FROM_HERE)
    return client.post("/login", data={"name": name, "password": password}, **more)  # type: ignore[arg-type]


def main_of(text: str) -> str:
    """What a page shows, without its hour."""
    return text.partition("<main")[2]


def is_in(client: Browser) -> bool:
    return "Log out" in client.get("/").text


@pytest.fixture
def page(users: Path) -> Iterator[Page]:
    with contextlib.closing(Page(users, is_needed=False)) as made:
        yield made


@pytest.fixture
def closed(users: Path) -> Iterator[Page]:
    with contextlib.closing(Page(users, is_needed=True)) as made:
        yield made


def test_somebody_logs_in_and_out(page: Page) -> None:
    client = page.client()
    assert "Log in" in client.get("/").text
    assert 'name="password"' in client.get("/login").text
    answer = enter(client)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    text = client.get("/").text
    assert "anna, operator" in text
    csrf = re.findall(r'name="csrf" value="([^"]{43})"', text)[0]
    assert client.post("/logout", data={"csrf": csrf}, headers=FROM_HERE).status_code == 303
    assert not is_in(client)


@pytest.mark.parametrize(("name", "password"), [("anna", GOOD + "x"), ("anna", ""), ("nobody", GOOD), ("", "")])
def test_a_wrong_name_and_a_wrong_password_are_told_the_same(page: Page, name: str, password: str) -> None:
    client = page.client()
    answer = enter(client, name, password)
    assert answer.status_code == 401
    assert WRONG in answer.text
    assert main_of(answer.text) == main_of(enter(client, "anna", "wrong wrong wrong").text)
    assert "set-cookie" not in answer.headers


def test_an_unknown_name_costs_the_work_of_a_wrong_password(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    real = login.matches
    monkeypatch.setattr(login, "matches", lambda kept, password: done.append(kept[:26]) or real(kept, password))
    enter(page.client(), "nobody")
    enter(page.client(), "anna", "wrong wrong wrong")
    assert len(done) == 2
    assert done[0] == done[1]  # the same parameters


def test_the_cookie_is_for_this_site_alone_and_for_no_script(page: Page) -> None:
    cookie = enter(page.client()).headers["set-cookie"]
    assert re.fullmatch(r"fedge-8080=[\w-]{43}; HttpOnly; Path=/; SameSite=strict", cookie)
    base = "https://127.0.0.1:8080"
    cookie = enter(page.client(base), headers={"origin": base}).headers["set-cookie"]
    assert re.fullmatch(r"__Host-fedge=[\w-]{43}; HttpOnly; Path=/; SameSite=strict; Secure", cookie)


def test_a_session_that_somebody_planted_is_not_the_one_that_is_opened(page: Page) -> None:
    client = page.client()
    client.cookies.set("fedge-8080", "planted" * 6)
    token = enter(client).headers["set-cookie"].partition("=")[2].partition(";")[0]
    assert token != "planted" * 6
    other = page.client()
    other.cookies.set("fedge-8080", "planted" * 6)
    assert not is_in(other)


def test_the_session_before_a_login_ends_with_it(page: Page) -> None:
    client = page.logged_in()
    before = dict(client.cookies)
    enter(client)
    other = page.client()
    other.cookies.update(before)
    assert not is_in(other)
    assert is_in(client)


ATTACKS: dict[str, dict[str, str]] = {
    "another site's form": {"origin": "https://evil.example", "sec-fetch-site": "cross-site"},
    "another site's form, in an old browser": {"origin": "https://evil.example"},
    "a page of this machine at another port": {"origin": "http://127.0.0.1:9", "sec-fetch-site": "same-site"},
    "the same, in an old browser": {"origin": "http://127.0.0.1:9"},
    "a sandboxed frame": {"origin": "null", "sec-fetch-site": "cross-site"},
    "a sandboxed frame, in an old browser": {"origin": "null"},
    "nobody says from where": {},
    "an origin that lies and a browser that does not": {"origin": HERE, "sec-fetch-site": "cross-site"},
    "an origin that is no address": {"origin": "http://[::1"},
    "a name that begins like ours": {"origin": HERE + ".evil.example"},
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_another_site_sends_changes_nothing(page: Page, attack: str) -> None:
    client = page.client()
    answer = enter(client, headers=ATTACKS[attack])
    assert answer.status_code == 403
    assert "another site" in answer.text
    assert "set-cookie" not in answer.headers
    inside = page.logged_in()
    csrf = re.findall(r'name="csrf" value="([^"]+)"', inside.get("/").text)[0]
    assert inside.post("/logout", data={"csrf": csrf}, headers=ATTACKS[attack]).status_code == 403
    assert is_in(inside)


def test_a_browser_without_referrers_is_known_by_what_it_cannot_forge(page: Page) -> None:
    assert enter(page.client(), headers={"origin": "null", "sec-fetch-site": "same-origin"}).status_code == 303


def test_over_tls_a_page_without_it_is_another_site(page: Page) -> None:
    assert enter(page.client("https://127.0.0.1:8080"), headers={"origin": HERE}).status_code == 403


def test_a_form_without_the_token_of_its_session_changes_nothing(page: Page) -> None:
    client, other = page.logged_in(), page.logged_in("bo")
    theirs = re.findall(r'name="csrf" value="([^"]+)"', other.get("/").text)[0]
    for fields in ({"x": "y"}, {"csrf": ""}, {"csrf": theirs}, {"csrf": "é"}):
        assert client.post("/logout", data=fields, headers=FROM_HERE).status_code == 403
    assert is_in(client)


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b'{"name": "anna"}', 415),
        ("text/plain", b"name=anna", 415),
        ("multipart/form-data; boundary=x", b"--x--", 415),
        ("application/x-www-form-urlencoded", b"name=anna&name=bo", 400),
        ("application/x-www-form-urlencoded", b"name=%ff", 400),
        ("application/x-www-form-urlencoded", b"\xff", 400),
        ("application/x-www-form-urlencoded", b"&".join(b"f%d=1" % n for n in range(99)), 400),
        ("application/x-www-form-urlencoded", b"name=" + b"a" * 20_000, 413),
    ],
)
def test_what_is_no_form_of_ours_is_refused(page: Page, kind: str, body: bytes, status: int) -> None:
    answer = page.client().post("/login", content=body, headers=FROM_HERE | {"content-type": kind})
    assert answer.status_code == status


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nobody_is_logged_out_by_anything_but_a_form(page: Page, method: str) -> None:
    client = page.logged_in()
    assert client.request(method, "/logout", headers=FROM_HERE).status_code == 405
    assert is_in(client)


def test_a_form_that_is_broken_off_is_a_refusal_and_no_fault() -> None:
    async def gone() -> Message:
        return {"type": "http.disconnect"}

    head = {"host": "localhost", "origin": "http://localhost", "content-type": "application/x-www-form-urlencoded"}
    headers = [(name.encode(), value.encode()) for name, value in head.items()]
    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "path": "/login",
        "query_string": b"",
        "headers": headers,
    }
    with pytest.raises(NotAllowedError, match="did not come to its end"):
        asyncio.run(form_of(Request(scope, gone)))


def test_many_wrong_passwords_have_to_wait_and_even_the_right_one_is_not_looked_at(page: Page) -> None:
    client = page.client()
    for _ in range(FREE):
        assert enter(client, password="wrong wrong wrong").status_code == 401
    answer = enter(client)
    assert answer.status_code == 429
    assert "try again in" in answer.text
    assert "set-cookie" not in answer.headers
    page.clock.now += 2.0
    assert enter(client).status_code == 303


def test_a_flood_of_logins_tries_one_at_a_time_and_holds_no_page_up(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, most, answers = [0], [0], []
    go = threading.Event()

    def slow(kept: str, password: str) -> bool:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        go.wait(20)
        at_once[0] -= 1
        return False

    monkeypatch.setattr(login, "matches", slow)

    async def one(n: int) -> str:
        try:
            await page.door.try_(f"192.0.2.{n}", f"name{n}", GOOD)
        except NotAllowedError as error:
            return str(error)
        return "looked at"

    async def flood() -> None:
        under_way = [asyncio.ensure_future(one(n)) for n in range(MOST_WAITING + 20)]
        while not at_once[0]:
            await asyncio.sleep(0.01)
        refused = [task.result() for task in under_way if task.done()]
        assert len(refused) == 20  # at once, while the first is still looked at
        go.set()
        answers.extend(await asyncio.gather(*under_way))

    asyncio.run(flood())
    assert most == [1]
    assert answers.count("looked at") == MOST_WAITING


def test_where_looking_takes_a_login_nothing_is_seen_without(closed: Page) -> None:
    client = closed.client()
    for path in (
        "/",
        "/events?kind=device",
        "/jobs/x",
        "/devices/x",
        "/jobs/x/model.onnx",
        "//",
        "/loginx",
        "/nowhere",
    ):
        answer = client.get(path)
        assert answer.status_code in (303, 404), path
        assert "No job has been submitted" not in answer.text
    for path in ("/api/devices", "/api/fleet", "/live/", "/events.jsonl", "/metrics"):
        assert client.get(path).status_code == 401
    assert client.post("/actions/jobs/x/pause", headers=FROM_HERE).status_code == 401
    assert client.get("/static/page.css").status_code == 200
    assert client.get("/static/%2e%2e/templates/page.html").status_code == 404
    answer = client.get("/events?kind=device")
    assert answer.headers["location"] == "/login?next=%2Fevents%3Fkind%3Ddevice"
    inside = closed.logged_in("bo")
    assert inside.get("/").status_code == 200
    assert inside.get("/api/fleet").status_code == 200


@pytest.mark.parametrize(
    "to", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/a\r\nx: y", "", "/é"]
)
def test_a_login_leads_to_no_other_site(page: Page, to: str) -> None:
    client = page.client()
    answer = client.post("/login", data={"name": "anna", "password": GOOD, "next": to}, headers=FROM_HERE)
    assert answer.headers["location"] == "/"
    form = client.get("/login", params={"next": '"><script>'}).text
    assert "<script>" not in form.replace('<script src="', "")


def test_a_login_leads_to_where_somebody_wanted_to_go(closed: Page) -> None:
    fields = {"name": "anna", "password": GOOD, "next": "/events?kind=device"}
    answer = closed.client().post("/login", data=fields, headers=FROM_HERE)
    assert answer.headers["location"] == "/events?kind=device"


def test_a_session_ends_with_its_time(page: Page) -> None:
    client = page.logged_in()
    page.clock.now += LONGEST_S
    assert not is_in(client)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Page]:
    path = tmp_path / "users.toml"
    add_user(path, "anna", "operator", GOOD)
    with contextlib.closing(Page(path, is_needed=True)) as made:
        yield made


def another_password(path: Path) -> None:
    add_user(path, "anna", "operator", "another good one", again=True)


def broken(path: Path) -> None:
    path.write_text("[users")


@pytest.mark.parametrize("change", [lambda path: remove_user(path, "anna"), another_password, broken, Path.unlink])
def test_who_is_taken_out_of_the_file_is_out_at_once(own: Page, change: Callable[[Path], object]) -> None:
    client = own.logged_in()
    assert client.get("/").status_code == 200
    change(own.users)
    assert client.get("/").status_code == 303
    assert client.get("/api/fleet").status_code == 401


def test_a_role_that_is_taken_away_is_gone_at_once(own: Page) -> None:
    client = own.logged_in()
    kept = own.users.read_text()
    own.users.write_text(kept.replace('"operator"', '"observer"'))
    assert "anna, observer" in client.get("/").text


def test_a_broken_file_is_told_of_at_the_login(own: Page) -> None:
    broken(own.users)
    client = own.client()
    assert "Nobody can log in" in client.get("/login").text
    answer = enter(client)
    assert answer.status_code == 401
    assert "Nobody can log in" in answer.text


def test_a_live_stream_ends_with_its_session(own: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "LOOK_S", 0.05)
    client = own.logged_in()
    ended = threading.Event()

    def cut() -> None:
        ended.set()

    async def stream() -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/live/",
            "raw_path": b"/live/",
            "query_string": b"",
            "scheme": "http",
            "server": ("127.0.0.1", 8080),
            "client": ("127.0.0.1", 1),
            "headers": [
                (b"host", b"127.0.0.1:8080"),
                (b"cookie", f"fedge-8080={client.cookies['fedge-8080']}".encode()),
            ],
            "fedge.cut": cut,
        }
        said: list[object] = []

        async def receive() -> dict[str, object]:
            await asyncio.sleep(30)
            return {"type": "http.disconnect"}

        async def send(message: object) -> None:
            said.append(message)

        serving = asyncio.ensure_future(own._app(scope, receive, send))  # type: ignore[arg-type]
        while len(said) < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        assert not serving.done()
        remove_user(own.users, "anna")
        await asyncio.wait_for(serving, 20)

    asyncio.run(stream())
    assert ended.is_set()
