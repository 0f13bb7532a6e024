"""/metrics beyond this machine: who gets it by Basic credentials, what that costs, and what an attacker tries."""

from __future__ import annotations

import base64
import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.middleware import Middleware

from aggregator.looking_on import WebSettings
from fleet.web import login
from fleet.web.app import app
from fleet.web.login import Door
from fleet.web.metrics import routes
from fleet.web.premises import Inspector
from fleet.web.scrapers import MOST_REMEMBERED, REMEMBERED_S, Remembered, Scrapers
from fleet.web.tries import FREE, Tries
from fleet.web.users import Users, add_user, remove_user
from tests.fleet.web.browser import FROM_HERE, GOOD, HERE, Browser
from tests.fleet.web.made import MadeLookout


def basic(name: str, password: str = GOOD) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


class Page:
    """A page with /metrics, and how often a password was tried."""

    def __init__(self, users: Path, patch: pytest.MonkeyPatch, *, is_needed: bool = True) -> None:
        self.now, self.tried, self.users = 1000.0, 0, users
        door = Door(Users(users), is_needed=is_needed, tries=Tries(lambda: self.now))
        inside = [Middleware(Scrapers, door=door, remembered=Remembered(lambda: self.now)), door.middleware()]
        inspector = Inspector(users.parent, {})
        made = app(MadeLookout(), WebSettings(), more=lambda s: [*door.routes(s), *routes(s, inspector)], inside=inside)
        self._browser, real = Browser(made, HERE), login.matches

        def counted(kept: str, password: str) -> bool:
            self.tried += 1
            return real(kept, password)

        patch.setattr(login, "matches", counted)
        self.ask, self.close = self._browser.request, self._browser.close

    def scrape(self, headers: dict[str, str], path: str = "/metrics") -> httpx.Response:
        return self.ask("GET", path, headers=headers)


@pytest.fixture
def page(users: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    with contextlib.closing(Page(Path(shutil.copy(users, tmp_path)), monkeypatch)) as made:
        yield made


def test_every_user_scrapes_by_name_and_password(page: Page) -> None:
    for name in ("anna", "bo"):
        answer = page.scrape(basic(name))
        assert answer.status_code == 200
        assert "fedge_aggregator_up 1.0" in answer.text
        assert "set-cookie" not in answer.headers, "no session begins"
    asked = page.scrape({})
    assert asked.status_code == 401
    assert asked.headers["www-authenticate"] == 'Basic realm="fedge", charset="UTF-8"'


def test_a_scrape_every_few_seconds_tries_a_password_once_in_a_while(page: Page) -> None:
    scrapes = range(0, int(REMEMBERED_S), 15)
    for _ in scrapes:
        assert page.scrape(basic("bo")).status_code == 200
        page.now += 15.0
    assert page.tried == 1
    assert page.scrape(basic("bo")).status_code == 200
    assert page.tried == 2


def test_who_has_another_password_or_is_gone_is_out_at_once(page: Page, cheap_passwords: None) -> None:
    assert page.scrape(basic("bo")).status_code == 200
    add_user(page.users, "bo", "observer", "another password", again=True)
    assert page.scrape(basic("bo")).status_code == 401
    assert page.scrape(basic("bo", "another password")).status_code == 200
    remove_user(page.users, "bo")
    assert page.scrape(basic("bo", "another password")).status_code == 401


def test_it_is_good_for_nothing_but_to_get_metrics(page: Page) -> None:
    known = basic("anna")
    assert page.scrape(known).status_code == 200
    for path in ("/api/fleet", "/events.jsonl", "/live/", "/metrics/"):
        assert page.scrape(known, path).status_code == 401, path
    assert page.scrape(known, "/").status_code == 303
    assert page.ask("HEAD", "/metrics", headers=known).status_code == 401
    assert page.ask("POST", "/actions/jobs/x/pause", headers=known | FROM_HERE).status_code == 401


@pytest.mark.parametrize(
    "said",
    [
        "",
        "Basic",
        "Basic !",
        "Basic YW5uYQ==",
        "Basic /////w==",
        "Bearer YW5uYTpi",
        f"Basic {'A' * 15_000}",
        basic("", "")["authorization"],
        basic("nobody")["authorization"],
        basic("anna", "x" * 5000)["authorization"],
        basic("an\nna\x00")["authorization"],
    ],
)
def test_whatever_else_is_said_is_a_401(page: Page, said: str) -> None:
    answer = page.scrape({"authorization": said})
    assert (answer.status_code, answer.json()) == (401, {"error": "this takes a login"})


def test_credentials_that_are_said_twice_are_none(page: Page) -> None:
    twice = [(b"authorization", one["authorization"].encode()) for one in (basic("anna"), basic("bo"))]
    assert page.ask("GET", "/metrics", headers=twice).status_code == 401


def test_an_unknown_name_costs_the_work_of_a_wrong_password(page: Page) -> None:
    for n, said in enumerate((basic("nobody"), basic("anna", "wrong wrong wrong")), 1):
        assert page.scrape(said).status_code == 401
        assert page.tried == n


def test_nobody_guesses_faster_than_at_the_form_by_what_is_remembered(page: Page) -> None:
    assert page.scrape(basic("bo")).status_code == 200
    for n in range(FREE):
        assert page.scrape(basic("bo", f"a wrong one, {n}")).status_code == 401
    before = page.tried
    for said in (basic("bo", "one more wrong"), basic("bo")):  # no answer tells which of them is right
        answer = page.scrape(said)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
        assert "try again in 1 second." in answer.text
    assert page.tried == before
    page.now += 2.0
    assert page.scrape(basic("bo")).status_code == 200


def test_where_no_login_is_needed_a_password_is_not_looked_at(users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.closing(Page(users, monkeypatch, is_needed=False)) as page:
        assert page.scrape(basic("nobody", "wrong")).status_code == 200
        assert page.tried == 0


def test_few_are_remembered_and_names_and_passwords_do_not_run_into_each_other() -> None:
    remembered = Remembered()
    remembered.add("a", "bc", "kept")
    assert remembered.has("a", "bc", "kept")
    assert not remembered.has("a", "b", "ckept")
    assert not remembered.has("ab", "c", "kept")
    for n in range(MOST_REMEMBERED):
        remembered.add(f"n{n}", "x", "kept")
    assert not remembered.has("a", "bc", "kept")
    assert remembered.has("n0", "x", "kept")
