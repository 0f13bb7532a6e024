from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import pytest

from edge_agent import files
from edge_agent.heard import MOST_ENDED, NAME, Heard
from runtime.formats import NewerFormatError


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.files.os.fsync", lambda _: None)


def test_what_was_heard_is_known_to_the_next_process(tmp_path: Path) -> None:
    first = Heard(tmp_path)
    assert (first.term, first.has_ended("j-1")) == (0, False)
    first.note_term(7)
    first.note_term(5)
    first.end("j-1")
    again = Heard(tmp_path)
    assert (again.term, again.has_ended("j-1"), again.has_ended("j-2")) == (7, True, False)


def test_under_other_keys_of_the_aggregator_terms_begin_anew_and_deleted_jobs_stay_so(tmp_path: Path) -> None:
    first = Heard(tmp_path, keys="old")
    first.note_term(2**47)
    first.end("j-1")
    assert Heard(tmp_path, keys="old").term == 2**47
    again = Heard(tmp_path, keys="new")
    assert (again.term, again.has_ended("j-1")) == (0, True)
    again.note_term(3)
    assert Heard(tmp_path, keys="new").term == 3


def test_of_very_many_jobs_the_oldest_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.heard.MOST_ENDED", 3)
    heard = Heard(tmp_path)
    for n in range(5):
        heard.end(f"j-{n}")
    assert [Heard(tmp_path).has_ended(f"j-{n}") for n in range(5)] == [False, False, True, True, True]
    assert MOST_ENDED >= 1000


@pytest.mark.parametrize("content", [b"", b"rotten", b"\x00" * 40])
def test_a_file_that_has_rotted_is_begun_anew(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / NAME).write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert Heard(tmp_path).term == 0
    assert "is begun anew" in caplog.text


def test_a_file_of_other_things_is_begun_anew(tmp_path: Path) -> None:
    files.seal(tmp_path / NAME, msgspec.msgpack.encode({"term": "x"}))
    assert Heard(tmp_path).term == 0


def test_a_file_of_a_newer_fedge_is_left_alone(tmp_path: Path) -> None:
    files.seal(tmp_path / NAME, msgspec.msgpack.encode({"term": 3, "format": 2}))
    before = (tmp_path / NAME).read_bytes()
    with pytest.raises(NewerFormatError, match="upgrade this agent"):
        Heard(tmp_path)
    assert (tmp_path / NAME).read_bytes() == before


def test_what_cannot_be_written_is_known_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard = Heard(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "seal", full)
    heard.note_term(3)
    heard.end("j-1")
    assert (heard.term, heard.has_ended("j-1")) == (3, True)
