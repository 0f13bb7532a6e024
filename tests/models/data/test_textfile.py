from __future__ import annotations

import gzip
import os
import tracemalloc
from pathlib import Path

import pytest

from models.data.dataset import DatasetError
from models.data.textfile import MOST_LINE, PIECE, TextFile, is_ended, split


def lines(path: Path, *, ended: bool = False) -> list[tuple[int, str]]:
    file = TextFile(str(path), None, ended=ended)
    try:
        return [(at, line) for piece in file.pieces() for at, line in enumerate(split(piece), piece.line)]
    finally:
        file.close()


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_counted_over_pieces_whatever_their_end(tmp_path: Path, end: str) -> None:
    path = tmp_path / "x.csv"
    n = 3 * PIECE // 10
    path.write_bytes("".join(f"{at:07}{end}" for at in range(1, n + 1)).encode())
    found = lines(path)
    assert len(found) == n
    assert all(int(line) == at for at, line in found)


def test_no_sign_but_the_end_of_a_line_ends_one(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a\x0b\x0c\x85\u2028b\nc\n", encoding="utf-8")
    assert [line for _, line in lines(path)] == ["a\x0b\x0c\x85\u2028b\n", "c\n"]


def test_a_file_that_grows_or_is_replaced_gives_what_it_had_when_it_was_opened(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("a,y\n1,0\n")
    file = TextFile(str(path), None, ended=False)
    try:
        first = [piece.text for piece in file.pieces()]
        with path.open("a") as more:
            more.write("2,1\n")
        (tmp_path / "other").write_text("b,y\n")
        (tmp_path / "other").replace(path)
        assert [piece.text for piece in file.pieces()] == first == ["a,y\n1,0\n"]
    finally:
        file.close()


def test_two_who_read_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"".join(b"%08d\n" % at for at in range(PIECE)))
    file = TextFile(str(path), None, ended=False)
    try:
        assert all(one == other for one, other in zip(file.pieces(), file.pieces(), strict=True))
    finally:
        file.close()


def test_a_bomb_is_a_sentence_and_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.csv.gz"
    with gzip.open(path, "wb") as file:
        file.write(b"a,y\n")
        for _ in range(200):
            file.write(bytes(10**6).replace(b"\0", b"1"))
    assert path.stat().st_size < 10**6
    tracemalloc.start()
    try:
        with pytest.raises(DatasetError, match=f"line 2: is longer than {MOST_LINE:,} characters"):
            lines(path)
        assert tracemalloc.get_traced_memory()[1] < 40 * 10**6
    finally:
        tracemalloc.stop()


def test_a_long_file_takes_the_memory_of_a_few_pieces(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b,y\n" + b"1.5,2.5,0\n" * 10**6)
    file = TextFile(str(path), None, ended=False)
    tracemalloc.start()
    try:
        assert sum(piece.text.count("\n") for piece in file.pieces()) == 10**6 + 1
        assert tracemalloc.get_traced_memory()[1] < 8 * PIECE
    finally:
        tracemalloc.stop()
        file.close()


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "x.csv"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(DatasetError, match=r"cannot be read as CSV: (it is no file|Is a directory)"):
            TextFile(str(path), None, ended=False)
    with pytest.raises(DatasetError, match="cannot be read as CSV: No such file"):
        TextFile(str(tmp_path / "none.csv"), None, ended=False)


@pytest.mark.parametrize(
    ("body", "ended"),
    [
        (b"a\n", True),
        (b"a\r", True),
        (b"a", False),
        (b"", True),
        ("a\n".encode("utf-16"), True),
        ("a".encode("utf-16"), False),
        (gzip.compress(b"a", mtime=0), True),
    ],
)
def test_whether_the_last_line_has_its_end_shows_at_the_end_of_the_file(
    tmp_path: Path, body: bytes, ended: bool
) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(body)
    assert is_ended(str(path)) == ended
    assert is_ended(str(tmp_path / "none"))


def test_nobody_waits_for_the_end_of_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.csv")
    assert is_ended(str(tmp_path / "x.csv"))
