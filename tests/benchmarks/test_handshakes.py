"""The measure of TLS handshakes lets every device in, and says what it cost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import handshakes


def test_every_device_gets_in_with_each_kind_of_tls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "found.json"
    assert handshakes.main(["--devices", "5", "--rounds", "1", "--json", str(path)]) == 0
    found = json.loads(path.read_text())
    assert [(one["kind"], one["devices"]) for one in found] == [(kind, 5) for kind in handshakes.NAMES.values()]
    assert all(one["broker_cpu_s"] > 0 and one["broker_mb"] > 1 for one in found)
    assert capsys.readouterr().out.count("ms each") == 3


def test_a_device_that_is_not_let_in_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(handshakes, "ACCEPTED", b"else")
    assert handshakes.main(["--devices", "1", "--rounds", "1"]) == 1
    assert "device-0 is not let in" in capsys.readouterr().err
