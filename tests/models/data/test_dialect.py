"""A table in any dialect is read back as the numbers that were written."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.contract import NO_CONTRACT, ContractSpec
from models.data import csv_file, source, table
from models.data.blocks import Kind
from models.data.dialect import found
from models.data.settings import SourceSettings
from models.data.source import DataSource


class Way(NamedTuple):
    """How a table is written."""

    delimiter: str
    decimal: str
    encoding: str
    end: str
    quote_all: bool
    compressed: bool
    comment: str
    trailing: bool


WAYS = st.builds(
    Way,
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from([".", ","]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "# a, b; c\n"]),
    st.booleans(),
).filter(lambda way: way.delimiter != "," or way.decimal == ".")
NUMBERS = st.floats(-3e38, 3e38, width=64) | st.integers(-(10**6), 10**6).map(float)
NAMES = st.lists(
    st.text("abcdefgh °(%)_", min_size=1, max_size=6).map(str.strip).filter(lambda name: name and name != "y"),
    min_size=1,
    max_size=5,
    unique=True,
)


@given(names=NAMES, data=st.data(), way=WAYS)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_what_was_written_is_read_back_in_any_dialect(
    tmp_path: Path, names: list[str], data: st.DataObject, way: Way
) -> None:
    row = st.lists(NUMBERS, min_size=len(names) + 1, max_size=len(names) + 1)
    rows = data.draw(st.lists(row, min_size=3, max_size=8))
    rows[0][0] = 0.5  # there is a number with a point, or a comma
    file = io.StringIO()
    quoting = csv.QUOTE_ALL if way.quote_all else csv.QUOTE_MINIMAL
    writer = csv.writer(file, delimiter=way.delimiter, lineterminator=way.end, quoting=quoting)
    writer.writerow([*names, "y", *[""] * way.trailing])
    for cells in rows:
        writer.writerow([*(repr(cell).replace(".", way.decimal) for cell in cells), *[""] * way.trailing])
    body = (way.comment + file.getvalue()).encode(way.encoding)
    path = tmp_path / "x.csv"
    path.write_bytes(gzip.compress(body) if way.compressed else body)
    opened = table.known(DataSource(str(path))).open(DataSource(str(path)), ended=False)
    try:
        assert opened.header == (*names, "y")
        for _ in range(2):
            blocks = list(opened.blocks(dict.fromkeys(opened.header, Kind.NUMBER)))
            assert [fault for block in blocks for fault in block.faults] == []
            for at, name in enumerate(opened.header):
                read = [cell for block in blocks for cell in list(block.columns[name])]
                assert read == [cells[at] for cells in rows]
    finally:
        opened.close()


CELLS = st.sampled_from(
    ["1", "-2.5", "", "NA", "1_0", "warm", "1e300", "inf", " 3 ", "nan", "-", "1,5", "#", "true", "٣"]
)


@given(
    rows=st.lists(st.lists(CELLS, min_size=2, max_size=4), max_size=12) | st.lists(st.just(["", "", ""])),
    way=st.sampled_from([";", "\t", "|"]),
    end=st.sampled_from(["\n", "\r\n"]),
    keys=st.fixed_dictionaries({}, optional={"decimal": st.just(","), "missing_values": st.just(("1",))}),
    kinds=st.tuples(st.sampled_from(Kind), st.sampled_from(Kind)),
)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_the_quick_way_and_row_by_row_come_to_the_same(
    tmp_path: Path, rows: list[list[str]], way: str, end: str, keys: dict[str, Any], kinds: tuple[Kind, Kind]
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("".join(way.join(row) + end for row in (["a", "b", "y"], *rows)).encode())
    source = DataSource(str(path), delimiter=way, **keys)
    found = []
    for is_quick in (True, False):
        opened = csv_file.open_table(source, ended=False)
        with contextlib.closing(opened), pytest.MonkeyPatch.context() as patch:
            if not is_quick:
                patch.setattr(csv_file._Reading, "_quick", lambda _self, _piece: None)
            try:
                blocks = list(opened.blocks({"a": kinds[0], "b": kinds[1], "y": Kind.NUMBER}))
            except table.DatasetError as error:
                found.append(str(error))
                continue
        found.append(
            repr(
                [
                    ({k: list(v) for k, v in block.columns.items()}, block.lines.tolist(), block.faults)
                    for block in blocks
                ]
            )
        )
    assert found[0] == found[1]


@given(body=st.binary(max_size=200) | st.text('ay,;\t"\n\r01.#\x00é', max_size=80).map(str.encode))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.npz"])
def test_any_bytes_raise_nothing_but_a_dataset_error(tmp_path: Path, name: str, body: bytes) -> None:
    path = tmp_path / name
    for content in (body, b"a,y\n1,0\n" + body, gzip.compress(b"a;y\n" + body)):
        path.write_bytes(content)
        for ended in (False, True):
            _drain(DataSource(str(path)), ended=ended)


def _drain(source: DataSource, *, ended: bool) -> None:
    try:
        opened = table.known(source).open(source, ended=ended)
    except table.DatasetError:
        return
    try:
        for kind in Kind:
            for block in opened.blocks(dict.fromkeys(dict.fromkeys(opened.header), kind)):
                assert all(len(cells) == len(block.lines) for cells in block.columns.values())
    except table.DatasetError:
        return
    finally:
        opened.close()


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("0,1,2,3,4\n5,6,7,8,9\n", ("0", "1", "2", "3", "4")),
        ("400,402,404,410,class\n1,2,3,4,ok\n", ("400", "402", "404", "410", "class")),
        ("2019,2020,y\n1,2,0\n", ("2019", "2020", "y")),
        ("id,2020\n1,2\n", ("id", "2020")),
        (",a,y\n0,1,2\n", ("", "a", "y")),
        ("a,y,\n1,0,5\n", ("a", "y", "")),
        ("Temp C\n21.5\n22.5\n", ("Temp C",)),
        ("id,y\n#17,1\n#18,0\n#19,1\n", ("id", "y")),
        ('"a\nb",y\n1,0\n', ("a\nb", "y")),
        ("# x\n#y\n", ()),
    ],
)
def test_the_names_of_columns_are_those_that_stand_there(text: str, header: tuple[str, ...]) -> None:
    assert found(text, SourceSettings("x.csv")).header == header


def test_what_is_said_is_not_looked_for() -> None:
    said = SourceSettings("x.csv", delimiter=";", decimal=".", comment="", quote="", thousands=",")
    dialect = found('a;"y\n#1;2,5\n', said)
    assert (dialect.delimiter, dialect.comment, dialect.quote, dialect.notes) == (";", "", "", ())
    assert dialect.header == ("a", '"y')
    assert (dialect.cells.decimal, dialect.cells.thousands) == (".", ",")


SECRETS = st.sampled_from(["SECRET", "7SECRET", "SECRET,5", '"SECRET', "SECRET\x00", "1", "2.5", "2024-01-01", ""])


@given(
    rows=st.lists(st.lists(SECRETS, min_size=1, max_size=4), min_size=1, max_size=6),
    way=st.sampled_from([",", ";", "\t"]),
    kind=st.sampled_from(Kind),
    encoding=st.sampled_from(["utf-8", "utf-16"]),
)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_no_cell_stands_in_what_is_told(
    tmp_path: Path, rows: list[list[str]], way: str, kind: Kind, encoding: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("".join(way.join(row) + "\n" for row in (["a", "b", "y"], *rows)).encode(encoding))
    source = DataSource(str(path), time="b")
    told: list[object] = []
    try:
        opened = csv_file.open_table(source, ended=False)
    except table.DatasetError as error:
        told.append(error)
    else:
        with contextlib.closing(opened):
            told.append(opened.notes)
            try:
                told += [block.faults for block in opened.blocks(dict.fromkeys(opened.header, kind))]
            except table.DatasetError as error:
                told.append(error)
    assert "SECRET" not in str(told)


@pytest.mark.parametrize("contract", [NO_CONTRACT, ContractSpec(features=("a", "b"), label="y")])
@pytest.mark.parametrize("keys", [{}, {"rename": {"name": "a"}}])
@pytest.mark.parametrize("text", ["SECRET,Rome\nMiller,Oslo\nBo,Bonn\n", "SECRET;Rome\n", "SECRET,x,\nMiller,,n/a\n"])
def test_a_first_line_that_may_be_a_row_is_told_to_nobody(
    tmp_path: Path, text: str, keys: dict[str, Any], contract: ContractSpec
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(table.DatasetError, match=r"no column '.*is that line a row") as error:
        source.open(DataSource(str(path), **keys), contract).snapshot()
    assert "SECRET" not in str(error.value)
    assert "SECRET" in error.value.cell


@pytest.mark.parametrize("text", ["temp,state\n1,ok\n", "temp,y\nwarm,ok\n", "temp,when\nwarm,2024-01-02\n"])
def test_names_over_numbers_or_with_one_that_is_wanted_are_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(table.DatasetError, match=r"no column .*the header has temp, "):
        source.open(DataSource(str(path)), ContractSpec(features=("a", "b"), label="y")).snapshot()
