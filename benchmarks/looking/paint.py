"""When something is seen: the first paint of the page in a real Chromium (Debian's), and the demo's first live row."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from broker.embedded import on_leash
from fleet.local.processes import FEDGE
from runtime.children import environment

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TIMES = """() => {
  const [page] = performance.getEntriesByType("navigation");
  const paints = Object.fromEntries(performance.getEntriesByType("paint").map((p) => [p.name, p.startTime]));
  return {...paints, "first byte": page.responseStart, "DOMContentLoaded": page.domContentLoadedEventEnd,
          "load": page.loadEventEnd};
}"""
PAINTED = "() => performance.getEntriesByName('first-contentful-paint').length > 0"
ONLINE = "#devices tbody .s-online"
"""A row of a device that is there."""
DEVICES = 10
"""Of the demo."""
PATIENCE_S = 120.0
Found = TypeVar("Found")


class NoBrowserError(RuntimeError):
    """There is no Chromium here; the message says how to get it."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a browser without a screen. Raises NoBrowserError."""
    from playwright.sync_api import sync_playwright  # which sizes and pairs do without

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        raise NoBrowserError("there is no Chromium here: deploy/need.sh chromium (Debian) gets it")
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=program, args=root, timeout=1000 * PATIENCE_S)
        yield browser
        browser.close()


def of_page(page: str, tries: int) -> Mapping[str, float]:
    """Return when what happens as the page is loaded by a browser that keeps nothing of it, in ms: medians.

    Raises NoBrowserError.
    """
    found = []
    with chromium() as browser:
        for _ in range(tries):
            context = browser.new_context()
            window = context.new_page()
            window.goto(page, wait_until="load")
            window.wait_for_function(PAINTED)
            found.append(window.evaluate(TIMES))
            context.close()
    return {name: statistics.median(each[name] for each in found) for name in found[0]}


def told(found: Sequence[tuple[int, Mapping[str, float]]]) -> list[str]:
    """Return the table of first paints, in ms."""
    names = list(found[0][1])
    lines = ["ms from the click; medians, each in a profile of its own"]
    lines.append(f"{'devices':<10}" + "".join(f"{name:>24}" for name in names))
    for n, times in found:
        lines.append(f"{n:<10,}" + "".join(f"{times[name]:>24.0f}" for name in names))
    return lines


def of_demo() -> Mapping[str, float]:
    """Return when what is there after `fedge demo` was started, in seconds.

    Raises NoBrowserError, TimeoutError, and playwright's errors where a browser sees no device in PATIENCE_S.
    """
    found = {}
    with chromium() as browser, tempfile.TemporaryDirectory(prefix="fedge-looking-") as folder:
        window, began, log = browser.new_page(), time.monotonic(), Path(folder) / "said"
        with _demo(Path(folder) / "out", log):
            page = _until(lambda: re.findall(r"look at it: (\S+)", log.read_text(encoding="utf-8")), "no address")[0]
            found["its address is said"] = time.monotonic() - began
            _until(lambda: _n_online(page) is not None, "the page does not answer")
            found["the page answers"] = time.monotonic() - began
            window.goto(page)
            window.wait_for_selector(ONLINE, timeout=1000 * PATIENCE_S)
            found["a browser shows a live row"] = time.monotonic() - began
            _until(lambda: (_n_online(page) or 0) >= DEVICES, f"there are no {DEVICES} devices")
            found["all devices are online"] = time.monotonic() - began
    return found


def demo_told(found: Mapping[str, float]) -> list[str]:
    """Return what was measured of the demo."""
    return ["s after `fedge demo` was started", *(f"{name:<28} {seconds:6.1f}" for name, seconds in found.items())]


@contextmanager
def _demo(out: Path, log: Path) -> Iterator[None]:
    """Run a demo, which ends with the block. What it says goes to `log`."""
    command = on_leash([*FEDGE, "demo", "--devices", str(DEVICES), "--out", str(out)])
    with log.open("wb") as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            env=environment(PYTHONUNBUFFERED="1"),
            process_group=0,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def _until(found: Callable[[], Found], what: str) -> Found:
    """Return what is found, as soon as it is anything. Raises TimeoutError, with the sentence `what`."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not (it := found()):
        if time.monotonic() > give_up_at:
            raise TimeoutError(what)
        time.sleep(0.02)
    return it


def _n_online(page: str) -> int | None:
    """Return how many devices the page shows as online; None where nobody answers."""
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{page}api/fleet", timeout=10) as answer:  # noqa: S310
        return int(json.load(answer)["devices"].get("online", 0))
    return None
