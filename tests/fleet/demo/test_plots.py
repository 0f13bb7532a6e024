"""The pictures: PNG files, whatever the curve."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.demo import plots

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("accuracies", [[0.3, 0.6, 0.9], [0.5], [1.0, 1.0], [0.0, 0.0], [0.99, 0.2]])
def test_every_curve_can_be_drawn(accuracies: list[float], tmp_path: Path) -> None:
    by_round, by_bytes = tmp_path / "round.png", tmp_path / "bytes.png"
    sent = [1000.0 * (i + 1) for i in range(len(accuracies))]
    rounds = range(1, len(accuracies) + 1)
    plots.by_round(rounds, accuracies, "accuracy", 0.95, "title", by_round)
    plots.by_bytes(accuracies, sent, [100 * n for n in sent], "accuracy", "title", by_bytes)
    assert by_round.read_bytes().startswith(PNG)
    assert by_bytes.read_bytes().startswith(PNG)
    plots.by_round(rounds, [10 * one for one in accuracies], "rmse", None, "title", by_round)
    plots.by_bytes(accuracies, sent, [100 * n for n in sent], "r2", "title", by_bytes)
    assert by_round.read_bytes().startswith(PNG)
    assert by_bytes.read_bytes().startswith(PNG)
    plots.accuracy_by_bytes_of([("strong", sent, accuracies), ("off", sent, accuracies)], "title", by_bytes)
    assert by_bytes.read_bytes().startswith(PNG)


def test_an_axis_has_names_for_bytes_that_are_near_each_other_and_none_for_values_that_nothing_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    fit = plots._fit
    monkeypatch.setattr(plots, "_fit", lambda axes, *rest: (drawn.append(axes), fit(axes, *rest)))
    plots.by_bytes([1.0, 0.98], [1500.0, 3700.0], [400.0, 9000.0], "recall:fault", "title", tmp_path / "x.png")
    (axes,) = drawn
    low, high = axes.get_xlim()
    named = [axes.xaxis.get_major_formatter()(at) for at in axes.get_xticks() if low <= at <= high]
    assert named == ["500 B", "1 kB", "2 kB", "5 kB", "10 kB"]
    assert max(axes.get_yticks()) == pytest.approx(1.0)
    ours, theirs = sorted(axes.texts, key=lambda text: not text.get_text().startswith("fedge"))
    assert (ours.get_va(), theirs.get_va()) == ("top", "bottom"), "else one name covers the other"


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (812, "812 B"), (1000, "1 kB"), (3_110_000, "3.11 MB"), (2e9, "2 GB")]
)
def test_bytes_are_labelled_in_decimal_units(n: float, text: str) -> None:
    assert plots._bytes(n, 0) == text
