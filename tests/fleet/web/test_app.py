"""Pages on hand-made views: what they show, what they refuse, and that no word of a stranger becomes markup."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import pytest
from msgspec import structs

from aggregator.looking_on import WebSettings
from aggregator.reader import Reader
from aggregator.store import Store
from broker.messages import Version
from fleet.sight.store_readings import StoreReadings
from fleet.sight.view import DeviceState
from fleet.web.app import TABLE, app
from tests.fleet.web.made import HOSTILE, JOB, Asking, MadeLookout, device, hostile, view

PAGES = ("/", "/devices/device-00001", f"/jobs/{JOB}", f"/jobs/{JOB}?x=time", f"/jobs/{JOB}/rounds/40", "/events")
DATA = (
    *("/api/fleet", "/api/devices", "/api/devices/device-00001", f"/api/jobs/{JOB}", f"/api/jobs/{JOB}/curve"),
    *(f"/api/jobs/{JOB}/rounds/40", "/api/events"),
)


@pytest.fixture
def lookout() -> MadeLookout:
    return MadeLookout()


@pytest.fixture
def client(lookout: MadeLookout) -> Asking:
    return Asking(app(lookout, WebSettings()))


class Markup(HTMLParser):
    """What a page is made of. open: elements that were not closed."""

    VOID = frozenset({"meta", "link", "input", "br", "hr", "img"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_whole_without_its_script_and_has_no_code_or_style_in_it(client: Asking, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    page = Markup(answer.text)
    assert not page.open
    assert not page.wrong
    ids = [attributes["id"] for _, attributes in page.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.found:
        assert not {name for name in attributes if name.startswith("on") or name == "style"}
        assert tag != "style"
        assert tag != "script" or attributes["src"]
        for address in (attributes.get("href"), attributes.get("src"), attributes.get("action")):
            assert address is None or address.startswith(("/", "?", "#")), "everything is of this site"
    assert {"skip", None} & {attributes.get("class") for tag, attributes in page.found if tag == "a"}
    assert all("scope" in attributes for tag, attributes in page.found if tag == "th")
    assert [tag for tag, _ in page.found if tag == "h1"] == ["h1"]


@pytest.mark.parametrize("path", PAGES)
def test_words_of_strangers_are_shown_as_they_are_and_are_no_markup(path: str) -> None:
    seen = view(3, hostile("device-00001"))
    bad = structs.replace(seen.jobs[JOB], name=HOSTILE, reason=HOSTILE, metrics={HOSTILE: 1.0})
    seen = structs.replace(seen, fleet=HOSTILE, trouble=HOSTILE, jobs={JOB: bad})
    answer = Asking(app(MadeLookout(seen), WebSettings())).get(path)
    assert answer.status_code == 200
    assert "<script>alert" not in answer.text
    assert str(97 * 8387) not in answer.text, "no word is a template"
    page = Markup(answer.text)
    assert not page.wrong
    assert any(HOSTILE in text for text in page.text)
    assert all(attributes.get("src") for tag, attributes in page.found if tag == "script")


def test_a_row_says_everything_of_its_device(client: Asking) -> None:
    text = " ".join(Markup(client.get("/").text).text)
    for said in ("device-00001", "online", "training 40 %", "site=hall 1", "digits", "41 °C", "2 GB", "1 kB", "39"):
        assert said in text, said


def test_a_job_says_what_its_round_waits_for_and_what_has_come_of_it(client: Asking) -> None:
    text = " ".join(Markup(client.get(f"/jobs/{JOB}").text).text)
    assert "It waits for 1 more update, of which 1 has arrived; nothing has come of 1 device: device-00002." in text
    assert "on the worst device" in text
    assert "inputs = 64" in text
    assert client.get(f"/jobs/{JOB}").text.count('class="curve"') == 2 + 3 + 4, "a drawing of each curve"
    curve = client.get(f"/api/jobs/{JOB}/curve").json()
    assert len(curve["numbers"]) == 41
    assert [series["name"] for series in curve["series"]][:2] == ["accuracy", "loss"]


def test_each_state_has_a_word_and_a_shape_of_its_own_that_no_other_is_shown_with() -> None:
    told = {}
    for state in get_args(DeviceState):
        seen = view(0, structs.replace(device("d"), state=state))
        for path in ("/", "/devices/d"):
            page = Asking(app(MadeLookout(seen), WebSettings())).get(path).text
            (shape, word), *more = re.findall(r'<span class="state s-\w+"><span[^>]*>(.)</span> ([\w ]+)</span>', page)[
                -1:
            ]
            assert not more
            assert told.setdefault(state, (shape, word)) == (shape, word)
    assert told["offline"] == ("○", "offline")
    assert told["online"] == ("●", "online")
    assert len(set(told.values())) == len({word for _, word in told.values()}) == len(told)


def test_what_is_long_is_folded_without_a_script(client: Asking) -> None:
    text = client.get(f"/jobs/{JOB}").text
    seen, _, folded = text.partition("<summary>15 earlier versions</summary>")
    assert "1.36</a>" in seen
    assert "1.35</a>" not in seen
    assert folded.partition("</details>")[0].count("<tr>") == 1 + 15
    assert folded.partition("</details>")[0].count(">1.35</a>") == 1


def test_a_round_that_is_open_has_fates_before_the_store_knows_them(client: Asking) -> None:
    (attempt,) = client.get(f"/api/jobs/{JOB}/rounds/41").json()["attempts"]
    assert attempt["fates"]["device-00000"] == "counted"
    assert attempt["fates"]["device-00002"] == "awaited: nothing has arrived yet"


def test_a_round_shows_its_last_attempt_or_another_and_the_fates_that_are_asked_for(client: Asking) -> None:
    last = client.get(f"/jobs/{JOB}/rounds/40").text
    assert "1–50 of 120 devices" in last
    assert "1–40 of 40 devices" in client.get(f"/jobs/{JOB}/rounds/40?fate=refused").text
    assert "its norm" not in client.get(f"/jobs/{JOB}/rounds/40?attempt=1").text


@pytest.mark.parametrize("path", DATA)
def test_scripts_get_the_same_as_json(client: Asking, path: str) -> None:
    answer = client.get(path)
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()


def test_events_come_as_json_lines(client: Asking) -> None:
    lines = client.get("/events.jsonl?kind=device&most=7").text.splitlines()
    assert [json.loads(line)["n"] for line in lines] == list(range(300, 293, -1))
    assert "before=251" in client.get("/events").text, "a link to the earlier ones"


@pytest.mark.parametrize(
    "path", ["/nothing", "/devices/nobody", "/jobs/none", f"/jobs/{JOB}/rounds/99", "/api/jobs/none"]
)
def test_what_is_not_there_is_said_to_be_missing(client: Asking, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "There is no" in answer.text or "Nothing is known" in answer.text


@pytest.mark.parametrize("number", [2**63 + 1, 10**900], ids=["beyond 64 bits", "long"])
def test_a_round_that_no_store_can_count_to_is_missing(lookout: MadeLookout, tmp_path: Path, number: int) -> None:
    Store(tmp_path, synced=False).close()
    lookout.readings = StoreReadings(Reader(tmp_path))  # type: ignore[assignment]  # as made, but of a real store
    client = Asking(app(lookout, WebSettings()))
    for path in (f"/jobs/{JOB}/rounds/{number}", f"/api/jobs/{JOB}/rounds/{number}"):
        assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    "query",
    ["page=0", "page=x", "page=9999999999", "state=gone", f"q={'x' * 101}", "evil=1", "sort=secret", "order=up"],
)
def test_a_query_that_no_page_knows_is_refused(client: Asking, query: str) -> None:
    answer = client.get(f"/?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.text


def test_a_store_that_cannot_be_read_is_said_on_every_page_and_goes_on_by_itself(
    lookout: MadeLookout, client: Asking
) -> None:
    healthy, broken = lookout.view, "the store is of a newer fedge (schema 9)"
    lookout.readings.broken = broken
    lookout.view = structs.replace(healthy, trouble=broken)
    for path in PAGES:
        answer = client.get(path)
        assert answer.status_code == 200
        assert broken in answer.text
    assert client.get("/api/events").json() == {"error": broken}
    assert client.get("/api/events").status_code == 503
    lookout.readings.broken, lookout.view = "", healthy
    for path in PAGES:
        assert broken not in client.get(path).text


def test_a_broker_and_an_aggregator_that_are_away_are_said(lookout: MadeLookout, client: Asking) -> None:
    healthy = lookout.view
    assert "banner bad" not in client.get("/").text
    lookout.view = structs.replace(healthy, connected=False)
    assert "No connection to the broker" in client.get("/events").text
    lookout.view = structs.replace(healthy, aggregator=structs.replace(healthy.aggregator, online=False))
    assert "No aggregator is there" in client.get("/events").text


def test_a_curve_is_read_once_for_all_who_look(lookout: MadeLookout, client: Asking) -> None:
    client.get(f"/api/jobs/{JOB}/curve")
    before = lookout.readings.calls
    client.get(f"/api/jobs/{JOB}/curve")
    assert lookout.readings.calls == before
    made = structs.replace(lookout.view.jobs[JOB], version=Version(1, 41))
    lookout.view = structs.replace(lookout.view, jobs={JOB: made})
    client.get(f"/api/jobs/{JOB}/curve")
    assert lookout.readings.calls == before + 1, "a version was made"


def test_everybody_has_the_same_rules_said(client: Asking) -> None:
    for path in ("/", "/static/page.css", "/nothing", "/api/fleet", "/?page=x"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/static//etc/passwd"]
)
def test_no_path_leads_out_of_the_assets(client: Asking, path: str) -> None:
    assert client.get(path).status_code == 404


def test_every_page_has_a_stream_and_says_where(client: Asking) -> None:
    for shown in TABLE:
        assert shown.data is not None
    body = next(a for tag, a in Markup(client.get("/?q=hall&page=1").text).found if tag == "body")
    assert body["data-live"] == "/live/?q=hall"
