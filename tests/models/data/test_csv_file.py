from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.data import reader, source
from models.data.csv_file import load_rows
from models.data.dataset import Dataset, DatasetError
from models.data.source import DataSource


def load(path: Path, *, label: str = "y", features: Sequence[str] | None = None) -> Dataset:
    return source.load(DataSource(str(path), label, None if features is None else tuple(features)))


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    return tmp_path / "data.csv"


def test_a_csv_gives_all_columns_but_the_label_or_those_asked_for(csv: Path) -> None:
    csv.write_text("\ufefftemp,y, hum\n1,0,2.5\n\n3,1,-4e1\n", encoding="utf-8")
    data = load(csv)
    assert data.X.tolist() == [[1, 2.5], [3, -40]]
    assert data.y.tolist() == [0, 1]
    chosen = load(csv, label="temp", features=["hum"])
    assert chosen.X.tolist() == [[2.5], [-40]]
    assert chosen.y.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a,b\n1,2\n",
            "no column 'y'; the header has a, b: is another one the label. Say in the source's table label = ",
        ),
        ("a,a,y\n1,2,3\n", "more than one column 'a'"),
        ("a,y\n1,0,9\n1,0,9\n", "none of its 2 rows can be used: 2 because the line .*lines 2, 3"),
        ("a,y\nwarm,0\nhot,0\n", "column 'a' holds no numbers"),
        ("a,y\n1,\n", "none of its 1 rows can be used: 1 because 'y' is empty .line 2"),
        ("a,y\n1,0\nnan,0\n,1\n", "2 of 3 rows cannot be used.* 2 because 'a' is empty .lines 3, 4"),
        ("a,y\n", "no rows yet"),
        ("", "no rows yet: it is empty"),
        ("y\n1\n", "there is no feature"),
    ],
)
def test_a_csv_that_cannot_be_trained_on_says_where(csv: Path, text: str, message: str) -> None:
    csv.write_text(text)
    with pytest.raises(DatasetError, match=rf"data\.csv.*{message}"):
        load(csv)


@given(body=st.binary(max_size=80) | st.text('ay,"\n01.', max_size=40).map(str.encode))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_bytes_as_csv_raise_nothing_but_a_dataset_error(csv: Path, body: bytes) -> None:
    csv.write_bytes(b"a,y\n" + body)
    for look in (load, lambda path: load_rows(path, 2)):
        with contextlib.suppress(DatasetError):
            look(csv)


def test_rows_for_a_prediction_may_have_a_header(csv: Path) -> None:
    for text in ("a,b\n1,2\n3,4\n", "1,2\n3,4\n"):
        csv.write_text(text)
        assert load_rows(csv, 2).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(DatasetError, match="line 1: 2 columns where the model has inputs = 3"):
        load_rows(csv, 3)
    csv.write_text("a,b\n")
    with pytest.raises(DatasetError, match="no rows"):
        load_rows(csv, 2)


def test_a_csv_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("missing.csv", "MISSING.CSV"):
        with pytest.raises(DatasetError, match=f"{name}: cannot be read"):
            load(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "rows"), [("a,y\n1,0\n2,1", 1), ("a,y\n1,0\n2,1\n", 2), ("a,y\r\n1,0\r\n2,", 1), ("a,y\r1,0\r", 1)]
)
def test_a_last_line_that_has_no_end_can_be_left_out(csv: Path, text: str, rows: int) -> None:
    csv.write_bytes(text.encode())
    settings = DataSource(str(csv))
    assert len(reader.read_file(settings, ended=True).data.y) == rows
