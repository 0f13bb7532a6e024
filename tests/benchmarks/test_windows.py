"""The table of raw windows: who is held out, a line for each fleet, and their mean beside what is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.windows import CLASSES, COLUMNS, FOLDS, LENGTH, Line, main, read

PEOPLE, ROWS = 8, 12


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a file of eight people with a device each; the first column of a window is the number of its person."""
    rng, subject = np.random.default_rng(0), np.repeat(np.arange(PEOPLE), ROWS)
    X = rng.normal(size=(len(subject), LENGTH, COLUMNS)).astype(np.float16)
    X[:, :, 0] = subject[:, None]
    y = rng.integers(0, CLASSES, len(subject)).astype(np.uint8)
    np.savez(tmp_path / "windows.npz", X=X, y=y, device=subject, subject=subject)
    return tmp_path / "windows.npz"


@pytest.mark.parametrize("fold", range(FOLDS))
def test_every_fourth_person_is_held_out_with_all_windows(data: Path, fold: int) -> None:
    shares, test = read(data, fold)
    people = [{round(10 * float(x)) for x in part.X[:, 0]} for part in (*shares, test)]
    assert people[-1] == {fold, fold + FOLDS}
    assert people[:-1] == [{person} for person in range(PEOPLE) if person % FOLDS != fold]
    assert sum(len(part.y) for part in (*shares, test)) == PEOPLE * ROWS


def test_a_line_for_each_fleet_and_the_mean_of_the_folds(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--data", str(data), "--kinds", "cnn1d", "--folds", "1", "3", "--rounds", "2"])
    said = capsys.readouterr()
    lines = [line.split() for line in said.out.splitlines() if line.startswith("cnn1d")]
    assert [line[1:3] for line in lines] == [
        *(["off", "1"], ["strong", "1"], ["off", "3"], ["strong", "3"]),
        *(["off", "mean"], ["strong", "mean"]),
    ]
    for first, second, mean in ((lines[0], lines[2], lines[4]), (lines[1], lines[3], lines[5])):
        fleet, pooled = ((float(first[at]) + float(second[at])) / 2 for at in (3, 4))
        assert [float(mean[3]), float(mean[4])] == pytest.approx([fleet, pooled], abs=1e-4)
        assert mean[10:] == (["met"] if fleet - pooled >= -0.02 else ["missed", "by", mean[-1]])
    assert said.err.count("so far") == 6


def test_points_are_those_that_the_fleet_is_better_by() -> None:
    line = Line("gru", "off", "1", 0.85, 0.87, 10.0, 20.0)
    assert line.points == pytest.approx(-2.0)
    assert Line.mean([line, line._replace(fleet=0.89)]).points == pytest.approx(0.0)
