"""What the page is made of is in the wheel, and stays as its makers gave it."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

from fleet.web.site import FOLDER

ROOT = FOLDER.parents[1]
UPLOT = "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f"
"""As `npm pack uplot@1.6.32` has it."""


def assets() -> set[Path]:
    return {path for folder in ("templates", "static") for path in (FOLDER / folder).rglob("*") if path.is_file()}


def test_a_wheel_has_every_asset() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["fleet.web"]
    assert {path for pattern in patterns for path in FOLDER.glob(pattern) if path.is_file()} == assets()


def test_every_address_of_an_asset_is_one_that_is_there() -> None:
    named = {
        name
        for path in assets()
        if path.suffix in (".html", ".css")
        for name in re.findall(r"/static/([\w./-]+)", path.read_text(encoding="utf-8"))
    }
    assert {"page.css", "live.js", "charts.js", "icon.svg"} <= named
    assert all((FOLDER / "static" / name).is_file() for name in named)


def test_nothing_is_of_another_site() -> None:
    ours = [path for path in assets() if path.parent.name != "uplot" and path.suffix != ".svg"]
    assert not [path for path in ours if re.search(r"https?://", path.read_text(encoding="utf-8"))]


def test_uplot_is_vendored_with_its_licence() -> None:
    folder = FOLDER / "static" / "uplot"
    assert b"uPlot (v1.6.32)" in (folder / "uPlot.iife.min.js").read_bytes()[:100]
    assert "MIT" in (folder / "LICENSE").read_text(encoding="utf-8")
    digest = hashlib.sha256((folder / "uPlot.iife.min.js").read_bytes()).hexdigest()
    assert digest == "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f", (
        "as `npm pack uplot@1.6.32` has it"
    )
