"""The page of a fleet of real processes in a real browser: what is seen, and what a stranger's words do not do."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from axe_playwright_python.sync_playwright import Axe
from onnxruntime import InferenceSession
from playwright.sync_api import Page, expect

from benchmarks.shown_fleet import NAME, PASSWORD, ShownFleet, until
from tests.web.conftest import HOSTILE, MALLORY, WAITS_MS, Windows

pytestmark = pytest.mark.web
expect.set_options(timeout=WAITS_MS)
PHONE = {"viewport": {"width": 375, "height": 780}, "is_mobile": True, "has_touch": True, "device_scale_factor": 2}
WITHOUT_SCRIPT = {"java_script_enabled": False}
MARK = "window.kept = 'this is the page that was loaded first'"
Paths = Callable[[], list[str]]


@pytest.fixture
def paths(fleet: ShownFleet) -> list[str]:
    """An address of every kind of page."""
    job = f"jobs/{fleet.job}"
    devices = ["devices/device-00", f"devices/{MALLORY}"]
    return [
        "",
        "?q=nobody-is-called-this",
        *devices,
        job,
        f"{job}?x=time",
        f"{job}/rounds/1",
        "events",
        "login",
        "nowhere",
    ]


def n_listening(fleet: ShownFleet) -> int:
    """Return how often a page has said that it listens."""
    return len(re.findall("web=listening", fleet.stage.aggregator.log.read_text(encoding="utf-8")))


def row(page: Page, device: str):  # type: ignore[no-untyped-def]
    return page.locator("#devices tbody tr").filter(has=page.get_by_role("link", name=device, exact=True))


def was_not_loaded_again(page: Page) -> bool:
    return bool(page.evaluate("typeof window.kept === 'string'"))


def test_rows_and_curves_are_there_before_any_script_runs(fleet: ShownFleet, windows: Windows) -> None:
    with windows.open("", **WITHOUT_SCRIPT) as sight:
        for number in range(3):
            expect(row(sight.page, f"device-{number:02}")).to_contain_text("online")
        expect(sight.page.locator("#live")).to_be_hidden()
    with windows.open(f"jobs/{fleet.job}", **WITHOUT_SCRIPT) as sight:
        assert sight.page.locator("svg.curve path.line").count() >= 4
        expect(sight.page.locator("#versions tbody tr")).not_to_have_count(0)
        assert sight.page.locator("canvas").count() == 0


def test_a_device_is_seen_to_go_offline_and_to_come_back(fleet: ShownFleet, windows: Windows) -> None:
    with windows.open("") as sight:
        page = sight.page
        page.evaluate(MARK)
        seen = row(page, "device-01")
        expect(seen).to_contain_text("online")
        fleet.kill("device-01")
        expect(seen).to_contain_text("offline")
        expect(page.locator("#overview .counts")).to_contain_text(re.compile(r"[12]\s+offline"))
        fleet.start("device-01")
        expect(seen).to_contain_text("online")
        assert was_not_loaded_again(page)


def test_a_round_is_seen_to_go_on(fleet: ShownFleet, windows: Windows) -> None:
    with windows.open(f"jobs/{fleet.job}") as sight:
        page = sight.page
        page.evaluate(MARK)
        legend, shown = page.locator("#round .legend"), page.locator("#job [data-version]")
        expect(legend).to_contain_text(re.compile(r"[12]\s+counted"))
        version = str(shown.get_attribute("data-version"))
        expect(shown).not_to_have_attribute("data-version", version)
        newest = str(shown.get_attribute("data-version")).partition(".")[2]
        expect(page.locator("#versions tbody").first).to_contain_text(newest)
        assert was_not_loaded_again(page)


def test_curves_are_drawn_and_grow(fleet: ShownFleet, windows: Windows) -> None:
    with windows.open(f"jobs/{fleet.job}") as sight:
        page = sight.page
        expect(page.locator(".curves canvas").first).to_be_visible()
        assert page.locator(".curves canvas").count() >= 4
        assert page.evaluate(
            "[...document.querySelectorAll('.curves canvas')].every(c => c.getContext('2d')"
            ".getImageData(0, 0, c.width, c.height).data.some(byte => byte > 0))"
        ), "none of them is blank"
        page.get_by_role("link", name="time", exact=True).click()
        expect(page.locator(".curves canvas").first).to_be_visible()


def test_words_of_a_hostile_device_are_text_and_nothing_else(fleet: ShownFleet, windows: Windows) -> None:
    for path in ("", f"devices/{MALLORY}", f"?q={MALLORY}"):
        with windows.open(path) as sight:
            expect(sight.page.get_by_text(HOSTILE, exact=False).first).to_be_attached()
            expect(sight.page.locator("#live")).to_have_text("live")
            sight.page.wait_for_timeout(700)  # a piece that comes by the stream is no other
            assert sight.page.evaluate("window.hacked") is None
            assert sight.page.locator("main img").count() == 0
    with windows.open("?q=%3Cscript%3Ewindow.hacked%3D1%3C/script%3E&label=%22%3E%3Cimg%20src%3Dx%3E") as sight:
        assert sight.page.evaluate("window.hacked") is None
        assert sight.page.get_by_label("Search").input_value() == "<script>window.hacked=1</script>"


def test_who_has_a_keyboard_alone_searches_filters_and_sorts(windows: Windows) -> None:
    with windows.open("") as sight:
        page = sight.page
        page.keyboard.press("Tab")
        expect(page.locator(":focus")).to_have_text("To the content")
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        while page.evaluate("document.activeElement.name") != "q":
            page.keyboard.press("Tab")
        page.keyboard.type("device-02")
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile(r"q=device-02"))
        expect(page.locator("#devices tbody tr")).to_have_count(1)
        page.go_back()
        state = page.locator("select[name=state]")
        state.focus()
        page.keyboard.type("offline")
        page.keyboard.press("Tab")
        while page.evaluate("document.activeElement.type") != "submit":
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile("state=offline"))
        page.goto("")
        page.get_by_role("columnheader", name="Device").get_by_role("link").focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("columnheader", name="Device")).to_have_attribute("aria-sort", "descending")
        expect(page.locator("#devices tbody th").first).to_contain_text(MALLORY)


def test_what_is_unfolded_stays_so_as_the_page_goes_on(fleet: ShownFleet, windows: Windows) -> None:
    until(lambda: fleet.version > 6, "some versions")
    with windows.open(f"jobs/{fleet.job}", **PHONE) as sight:
        page = sight.page
        page.get_by_text("earlier version").click()
        shown = page.locator("#job [data-version]")
        version = str(shown.get_attribute("data-version"))
        expect(shown).not_to_have_attribute("data-version", version)
        expect(page.locator("#versions details")).to_have_attribute("open", "")
        expect(page.get_by_role("region", name="Earlier versions")).to_be_visible()


def test_events_are_seen_as_they_happen_and_are_filtered(fleet: ShownFleet, windows: Windows) -> None:
    with windows.open("events") as sight:
        page = sight.page
        page.evaluate(MARK)
        expect(page.locator("#events")).to_contain_text("job.submitted")
        before = fleet.version
        expect(page.locator("#events")).to_contain_text(re.compile(rf"\b{before + 1}\b"))
        assert was_not_loaded_again(page)
        page.locator("select[name=kind]").select_option("job")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("#events")).to_contain_text("job.submitted")
        expect(page.locator("#events")).not_to_contain_text("version.made")


def test_a_model_is_given_by_its_link_and_by_its_number_and_of_none_a_reason(
    fleet: ShownFleet, windows: Windows
) -> None:
    with windows.open(f"jobs/{fleet.job}", quiet=False) as sight:
        page = sight.page
        with page.expect_download() as given:
            page.get_by_role("link", name="the last", exact=True).click()
        assert given.value.suggested_filename == f"{fleet.job}.onnx"
        (inputs,) = InferenceSession(given.value.path(), providers=["CPUExecutionProvider"]).get_inputs()
        assert inputs.shape[1] == 64
        page.get_by_label("or version").fill("999999999")
        page.get_by_role("button", name="Download").click()
        expect(page.locator("main .note")).to_contain_text("there is no version 999999999")


def logged_in(page: Page) -> None:
    page.get_by_role("link", name="Log in").click()
    page.get_by_label("Name").fill(NAME)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("header .who")).to_contain_text(NAME)


def test_an_action_is_refused_without_a_login_and_done_with_one(fleet: ShownFleet, windows: Windows) -> None:
    job = fleet.job

    def state() -> str:
        return str(fleet.ask("api/fleet")["jobs"][0]["state"])

    with windows.open(f"jobs/{job}", quiet=False) as sight:
        page = sight.page
        expect(page.get_by_role("button", name="Pause")).to_have_count(0)
        send = (
            "async at => (await fetch(at, {method: 'POST', body: new URLSearchParams({form: '0'.repeat(32)})})).status"
        )
        assert page.evaluate(send, f"/actions/jobs/{job}/pause") in (401, 403)
        page.get_by_role("link", name="Log in").click()
        page.get_by_label("Name").fill(NAME)
        page.get_by_label("Password").fill("wrong, and long enough")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_be_visible()
        assert state() == "running"
    with windows.open(f"jobs/{job}") as sight:
        page = sight.page
        logged_in(page)
        page.goto(f"jobs/{job}")
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("status").last).to_be_visible()
        until(lambda: state() == "paused", "a job that is paused")
        page.goto(f"jobs/{job}")
        expect(page.locator("#job")).to_contain_text("paused")
        page.get_by_role("button", name="Resume").click()
        until(lambda: state() == "running", "a job that runs again")
        before = fleet.version
        until(lambda: fleet.version > before, "another version")
        page.goto("devices/device-02")
        page.get_by_label("why").fill(HOSTILE)
        page.get_by_role("button", name="Quarantine").click()
        until(lambda: fleet.ask("api/devices?state=quarantined")["n"] == 1, "a device in quarantine")
        page.goto("devices/device-02")
        expect(page.locator("#device .state")).to_contain_text("quarantine")
        assert page.evaluate("window.hacked") is None
        page.get_by_role("button", name="Release").click()
        until(lambda: fleet.ask("api/devices?state=quarantined")["n"] == 0, "a device that is released")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(windows: Windows, paths: list[str], scheme: str) -> None:
    axe, rules = Axe(), {"runOnly": {"type": "rule", "values": ["color-contrast"]}}  # all that a scheme can change
    with windows.open("", quiet=False, color_scheme=scheme) as sight:
        for path in paths:
            sight.page.goto(path, wait_until="load")
            answer = axe.run(sight.page, options=rules) if scheme == "dark" else axe.run(sight.page)
            found = answer.response["violations"]
            grave = [one for one in found if one["impact"] in ("serious", "critical")]
            said = [(one["id"], one["help"], [node["html"][:200] for node in one["nodes"][:3]]) for one in grave]
            assert not said, f"{path} in {scheme}: {said}"


def test_no_page_is_wider_than_a_phone(windows: Windows, paths: list[str]) -> None:
    with windows.open("", quiet=False, **PHONE) as sight:
        for path in paths:
            sight.page.goto(path, wait_until="load")
            wide = sight.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= 375, f"{path} is {wide} pixels wide"


def test_the_page_goes_on_by_itself_after_the_aggregator_was_killed(fleet: ShownFleet, windows: Windows) -> None:
    with windows.open(f"jobs/{fleet.job}", quiet=False) as sight:
        page = sight.page
        page.evaluate(MARK)
        expect(page.locator("#live")).to_have_text("live")
        listened = n_listening(fleet)
        fleet.kill("aggregator")
        expect(page.locator("#live")).to_have_text("trying again")
        fleet.start("aggregator")
        until(lambda: n_listening(fleet) > listened, "a page that listens again")
        expect(page.locator("#live")).to_have_text("live")
        version = str(page.locator("#job [data-version]").get_attribute("data-version"))
        expect(page.locator("#job [data-version]")).not_to_have_attribute("data-version", version)
        assert was_not_loaded_again(page)
        assert all("ERR_" in said or "Failed to load" in said for said in sight.complaints), sight.complaints
