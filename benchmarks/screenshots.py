"""Pictures of the page of a fleet at work, to be looked at: `python -m benchmarks.screenshots --out DIR`.

Real processes and a real Chromium (Debian's). Every kind of page in light, dark and on a phone; --readme FILE writes
the one that README shows.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.shown_fleet import ShownFleet, shown_fleet, until

WAYS: dict[str, dict[str, Any]] = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    "phone": {
        "color_scheme": "light",
        "viewport": {"width": 375, "height": 800},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}
SECONDS = (0.3, 0.4, 0.6, 0.5, 1.5, 0.3, 0.8, 0.4, 0.5, 0.4)
"""How long each device takes to read its rows."""
SITES = ("hall", "yard", "roof")
VERSIONS = 12
"""That there are before pictures are taken."""
SETTLED_MS = 1500


def taken(page: Page, path: str, file: Path, *, whole: bool = True) -> None:
    """Write the picture of a page, once its script has drawn."""
    page.goto(path, wait_until="load")
    page.wait_for_timeout(SETTLED_MS)
    page.screenshot(path=file, full_page=whole)


def pictures(browser: Browser, fleet: ShownFleet, out: Path) -> list[Path]:
    """Write every page in every way, and return the files."""
    job = f"jobs/{fleet.job}"
    pages = {"fleet": "", "device": "devices/device-04", "job": job, "round": f"{job}/rounds/3", "events": "events"}
    files = []
    for way, how in WAYS.items():
        context = browser.new_context(base_url=fleet.page, **how)
        page = context.new_page()
        for name, path in pages.items():
            files.append(out / f"{name}-{way}.png")
            taken(page, path, files[-1])
        context.close()
    return files


def readme(browser: Browser, fleet: ShownFleet, file: Path) -> None:
    """Write README's picture: the fleet's page as a window shows it."""
    context = browser.new_context(base_url=fleet.page, color_scheme="light", viewport={"width": 1100, "height": 720})
    taken(context.new_page(), "", file, whole=False)
    context.close()


def main() -> int:
    """Start a fleet, take the pictures, and say where they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="README's picture, beside the others")
    arguments = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        print("there is no Chromium here: deploy/need.sh chromium (Debian) gets it", file=sys.stderr)
        return 1
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        shown_fleet(Path(folder), SECONDS, labels=SITES) as fleet,
        sync_playwright() as player,
    ):
        fleet.start()
        fleet.submit()
        until(lambda: fleet.version >= VERSIONS, "versions")
        until(lambda: all(one["serves"] for one in fleet.ask("api/devices")["devices"]), "versions in service")
        fleet.kill("device-07")
        root = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = player.chromium.launch(executable_path=program, args=root, timeout=120_000)
        if arguments.readme:
            readme(browser, fleet, arguments.readme)
        for file in pictures(browser, fleet, arguments.out):
            print(file)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
