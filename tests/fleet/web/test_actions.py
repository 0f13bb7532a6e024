"""What an operator does at the page: on hand-made views, who may and what is asked; and on a real fleet, over TLS."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from aggregator.looking_on import WebSettings
from broker.messages import Quarantine, RollBack
from fleet.cli import main
from fleet.local.processes import FEDGE
from fleet.web.actions import way_in
from fleet.web.app import app
from fleet.web.orders import MOST_UNDER_WAY, Order, Orders, Told
from tests.fleet.conftest import Fleet
from tests.fleet.web.browser import FROM_HERE, GOOD, HERE, Browser
from tests.fleet.web.made import HOSTILE, JOB, MadeLookout, view

DEVICE = "device-00000"
Until = Callable[[Callable[[], bool]], None]


class Page:
    """The page of a hand-made fleet, and the orders that it would send."""

    def __init__(self, users: Path, only_looks: str = "") -> None:
        self.sent: list[tuple[Order, str, str]] = []
        self.answer = Told(True, "done")
        web = WebSettings(bind="127.0.0.1:8080", users_file=str(users))
        more, inside = way_in(web, only_looks, self._send)
        self._browser = Browser(app(MadeLookout(view()), web, more=more, inside=inside), HERE)
        self.csrf = ""

    def _send(self, order: Order, form: str, user: str) -> Told:
        self.sent.append((order, form, user))
        return self.answer

    def enter(self, name: str = "anna") -> Page:
        answer = self._browser.post("/login", data={"name": name, "password": GOOD}, headers=FROM_HERE)
        assert answer.status_code == 303
        self.csrf = found(self.get("/"), "csrf")
        return self

    def get(self, path: str) -> str:
        return self._browser.get(path).text

    def post(self, path: str, headers: dict[str, str] = FROM_HERE, **fields: str) -> httpx.Response:
        fields = {"csrf": self.csrf, "form": "0" * 32} | fields
        return self._browser.post(f"/actions/{path}", data=fields, headers=headers)

    def ask(self, method: str, path: str) -> httpx.Response:
        return self._browser.request(method, f"/actions/{path}", headers=FROM_HERE)

    def close(self) -> None:
        self._browser.close()


def found(text: str, field: str) -> str:
    return str(re.findall(rf'name="{field}" value="([^"]+)"', text)[0])


@pytest.fixture
def page(users: Path) -> Iterator[Page]:
    with contextlib.closing(Page(users)) as made:
        yield made


PAUSE = f"jobs/{JOB}/pause"


def test_an_order_goes_out_once_however_often_its_form_is_sent(page: Page) -> None:
    page.enter()
    assert page.post(PAUSE).status_code == 200
    assert "done" in page.post(PAUSE).text
    assert page.sent == [(Order("pause", JOB), "0" * 32, "anna")]
    page.post(PAUSE, form="1" * 32)
    assert len(page.sent) == 2


def test_forms_of_two_pages_are_two(page: Page) -> None:
    page.enter()
    one, other = (found(page.get(f"/jobs/{JOB}"), "form") for _ in range(2))
    assert one != other


def test_a_refusal_of_the_aggregator_is_shown_and_shown_as_text(page: Page) -> None:
    page.answer = Told(False, HOSTILE)
    answer = page.enter().post(PAUSE)
    assert answer.status_code == 409
    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;" in answer.text


@pytest.mark.parametrize("kind", ["stop", "roll-back"])
def test_what_cannot_be_taken_back_is_asked_once_more(page: Page, kind: str) -> None:
    page.enter()
    question = page.post(f"jobs/{JOB}/{kind}", version="1.39")
    assert page.sent == []
    fields = {name: found(question.text, name) for name in ("csrf", "form")}
    if kind == "roll-back":
        assert "version 1.39" in question.text
        fields["version"] = found(question.text, "version")
    assert page.post(f"jobs/{JOB}/{kind}", confirmed="yes", **fields).status_code == 200
    assert page.sent == [(Order(kind, JOB, "1.39" if kind == "roll-back" else ""), "0" * 32, "anna")]


def test_a_device_is_put_in_quarantine_and_released(page: Page) -> None:
    page.enter()
    assert page.post(f"devices/{DEVICE}/quarantine", why="  smells\nburnt ").status_code == 200
    assert page.post(f"devices/{DEVICE}/release").status_code == 200
    assert [order for order, _, _ in page.sent] == [
        Order("quarantine", DEVICE, "smells burnt"),
        Order("release", DEVICE),
    ]


def test_the_command_says_who_has_asked() -> None:
    quarantine = Order("quarantine", DEVICE, "burnt").command("web-anna-1", "r", "anna")
    assert quarantine == Quarantine("web-anna-1", "r", DEVICE, "burnt (anna)")
    assert Order("roll-back", JOB, "best").command("c", "r", "anna") == RollBack("c", "r", JOB, "best")


FOREIGN = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}


@pytest.mark.parametrize(
    ("path", "more", "status"),
    [
        (PAUSE, {"csrf": ""}, 403),
        (PAUSE, {"csrf": "x" * 43}, 403),
        (PAUSE, {"headers": FOREIGN}, 403),
        (PAUSE, {"headers": {}}, 403),
        (PAUSE, {"headers": {"origin": "http://127.0.0.1:9"}}, 403),
        (PAUSE, {"form": ""}, 400),
        (PAUSE, {"form": "../../etc"}, 400),
        (f"jobs/{JOB}/delete", {}, 404),
        (f"jobs/{JOB}/submit", {}, 404),
        (f"jobs/{JOB}/quarantine", {}, 404),
        ("jobs/nobody/pause", {}, 404),
        ("jobs/%2e%2e%2f%23/pause", {}, 404),
        (f"devices/{DEVICE}/stop", {}, 404),
        ("devices/nobody/release", {}, 404),
        ("devices/%3Cscript%3E/release", {}, 404),
        (f"jobs/{JOB}/roll-back", {"version": "1; drop", "confirmed": "yes"}, 400),
        (f"jobs/{JOB}/roll-back", {"confirmed": "yes"}, 400),
        (f"devices/{DEVICE}/quarantine", {"why": "x" * 201}, 400),
        (f"devices/{DEVICE}/quarantine", {"why": "a\x1b[2Jb"}, 400),
    ],
)
def test_what_is_not_in_order_is_not_sent(page: Page, path: str, more: dict[str, str], status: int) -> None:
    answer = page.enter().post(path, **more)  # type: ignore[arg-type]  # headers is one of them
    assert (answer.status_code, page.sent) == (status, [])


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE"])
def test_nothing_is_done_by_a_link(page: Page, method: str) -> None:
    page.enter()
    for path in (PAUSE, f"jobs/{JOB}/stop?confirmed=yes&csrf={page.csrf}&form={'0' * 32}"):
        assert page.ask(method, path).status_code == 405
    assert page.sent == []


def test_without_a_login_nothing_is_done_and_no_button_is_shown(page: Page) -> None:
    assert page.post(PAUSE).status_code == 401
    assert page.sent == []
    assert "/actions/" not in page.get(f"/jobs/{JOB}")


def test_an_observer_does_nothing_and_has_no_buttons(page: Page) -> None:
    page.enter("bo")
    assert page.post(PAUSE).status_code == 403
    assert page.post(f"devices/{DEVICE}/release").status_code == 403
    assert page.sent == []
    for path in (f"/jobs/{JOB}", f"/devices/{DEVICE}"):
        assert "/actions/" not in page.get(path)


def test_a_page_that_can_only_look_says_so_and_why(users: Path) -> None:
    with contextlib.closing(Page(users, "nobody is named")) as page:
        page.enter()
        for path in (f"/jobs/{JOB}", f"/devices/{DEVICE}"):
            text = page.get(path)
            assert "This page can only look: nobody is named." in text
            assert "/actions/" not in text
        assert page.post(PAUSE).status_code == 403
        assert page.sent == []


def test_orders_that_hang_hold_up_no_more_than_some() -> None:
    import asyncio

    go = threading.Event()

    def hangs(order: Order, form: str, user: str) -> Told:
        go.wait(20)
        return Told(True, "done")

    async def flood() -> list[Told]:
        orders = Orders(hangs)
        under_way = [
            asyncio.ensure_future(orders.give(Order("pause", JOB), str(n), "anna")) for n in range(MOST_UNDER_WAY + 5)
        ]
        while sum(task.done() for task in under_way) < 5:
            await asyncio.sleep(0.01)
        go.set()
        return await asyncio.gather(*under_way)

    answers = asyncio.run(flood())
    assert [told.is_done for told in answers].count(False) == 5


# A real fleet, the real process, over TLS.


@pytest.mark.slow
def test_a_real_job_is_paused_and_resumed_at_the_page(
    two_devices: Fleet, until: Until, users: Path, certificate: tuple[Path, Path], tmp_path: Path
) -> None:
    fleet, log = two_devices, tmp_path / "web.log"
    broker = fleet.config.read_text(encoding="utf-8").partition("[broker]")[2].partition("\n[")[0]
    (tmp_path / "operator.toml").write_text(f'fleet = "demo"\n[broker]{broker}\n', encoding="utf-8")
    config = tmp_path / "web.toml"
    config.write_text(
        fleet.config.read_text(encoding="utf-8")
        + f'\n[observer]\nconfig = "{tmp_path}/operator.toml"\n[web]\nusers_file = "{users}"\n'
        + f'certificate_file = "{certificate[0]}"\nkey_file = "{certificate[1]}"\n',
        encoding="utf-8",
    )
    assert main(["job", "submit", str(fleet.job()), "--config", str(fleet.config)]) == 0
    fleet.children.start("page", [*FEDGE, "web", "run", "--config", str(config), "--web", "127.0.0.1:0"], log)
    until(lambda: "web=listening" in log.read_text(encoding="utf-8"))
    here = re.findall(r"address=(https://\S+)/", log.read_text(encoding="utf-8"))[0]
    with httpx.Client(base_url=here, verify=ssl.create_default_context(cafile=certificate[0]), timeout=60) as browser:
        from_here = {"origin": here}
        until(lambda: bool(browser.get("/api/fleet").json()["jobs"]))
        job = browser.get("/api/fleet").json()["jobs"][0]["job"]
        assert browser.post(f"/actions/jobs/{job}/pause", data={"x": "y"}, headers=from_here).status_code == 401
        answer = browser.post("/login", data={"name": "anna", "password": GOOD}, headers=from_here)
        assert answer.headers["set-cookie"].startswith("__Host-fedge=")
        assert answer.headers["set-cookie"].endswith("Secure")

        def press(kind: str) -> str:
            text = browser.get(f"/jobs/{job}").text
            fields = {name: found(text, name) for name in ("csrf", "form")}
            answer = browser.post(f"/actions/jobs/{job}/{kind}", data=fields, headers=from_here)
            assert answer.status_code == 200, answer.text
            return answer.text

        assert job in press("pause")
        until(lambda: browser.get("/api/fleet").json()["jobs"][0]["state"] == "paused")
        press("resume")
        until(lambda: browser.get("/api/fleet").json()["jobs"][0]["state"] != "paused")
    said = log.read_text(encoding="utf-8")
    assert f"order=pause user=anna target={job} done=True" in said
    assert GOOD not in said

    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    port = int(here.rpartition(":")[2])

    def greet(version: ssl.TLSVersion) -> str | None:
        old.minimum_version, old.maximum_version = ssl.TLSVersion.MINIMUM_SUPPORTED, version
        with socket.create_connection(("127.0.0.1", port), 20) as raw, old.wrap_socket(raw) as secured:
            return secured.version()

    assert greet(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    with pytest.raises(ssl.SSLError), warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        greet(ssl.TLSVersion.TLSv1_1)
