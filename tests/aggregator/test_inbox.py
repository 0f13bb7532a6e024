from __future__ import annotations

import math
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from msgspec import structs

from aggregator.inbox import MOST_CHUNKS, Inbox
from aggregator.room import IDLE_S, MOST_IN_LINE, TURN_S
from aggregator.spool import SpoolError
from broker import chunks
from broker.errors import WireError
from broker.messages import Chunk, Offer, Version, Want
from tests.counting import Name, Number, Work, work_of

BODY = b"0123456789"


def offer(device: str = "a", body: bytes = BODY, chunk_bytes: int = 4, inline: bytes = b"", job: str = "j") -> Offer:
    return Offer(job, device, Version(1, 0), 1, chunks.digest(body), len(body), chunk_bytes, body=inline)


def chunk(index: int, device: str = "a", body: bytes = BODY, chunk_bytes: int = 4) -> Chunk:
    return Chunk("j", device, chunks.digest(body), index, chunks.cut(body, chunk_bytes)[index])


def test_a_body_that_came_along_is_there_at_once() -> None:
    inbox = Inbox(100)
    assert inbox.collect(offer(inline=BODY), 0.0) == BODY
    assert inbox.room.reserved == 0


@pytest.mark.parametrize("inline", [b"012345678", b"01234567890", b"0123456780"])
def test_a_body_that_is_not_what_the_offer_says_is_refused(inline: bytes) -> None:
    with pytest.raises(WireError):
        Inbox(100).collect(offer(inline=inline), 0.0)


def test_what_is_missing_is_asked_for() -> None:
    inbox = Inbox(100)
    assert inbox.collect(offer(), 0.0) == Want("a", "j", chunks.digest(BODY), "07")
    assert inbox.add(chunk(1), 1.0) is None
    assert inbox.collect(offer(), 2.0) == Want("a", "j", chunks.digest(BODY), "05")


def test_the_last_chunk_gives_the_offer_and_the_offer_the_body() -> None:
    inbox = Inbox(100)
    inbox.collect(offer(), 0.0)
    given = [inbox.add(chunk(index), 1.0) for index in (2, 0, 1)]
    assert given == [None, None, offer()]
    assert inbox.collect(offer(), 2.0) == BODY
    assert inbox.room.reserved == 0


def test_a_chunk_that_nobody_asked_for_is_dropped() -> None:
    inbox = Inbox(100)
    assert inbox.add(chunk(0), 0.0) is None
    inbox.collect(offer(), 0.0)
    assert inbox.add(chunk(0, body=b"another body"), 0.0) is None
    assert inbox.add(chunk(0, device="b"), 0.0) is None


def test_a_chunk_of_a_wrong_length_is_refused() -> None:
    inbox = Inbox(100)
    inbox.collect(offer(), 0.0)
    with pytest.raises(WireError):
        inbox.add(Chunk("j", "a", chunks.digest(BODY), 0, b"01234"), 0.0)


def test_chunks_that_make_another_body_are_refused_and_their_room_is_given_back() -> None:
    inbox = Inbox(100)
    lie = Offer("j", "a", Version(1, 0), 1, "f" * 32, 10, 10)
    inbox.collect(lie, 0.0)
    assert inbox.add(Chunk("j", "a", "f" * 32, 0, BODY), 0.0) == lie
    with pytest.raises(WireError, match="do not make that body"):
        inbox.collect(lie, 0.0)
    assert inbox.room.reserved == 0
    assert isinstance(inbox.collect(lie, 1.0), Want)


def test_a_body_cut_too_finely_is_refused() -> None:
    with pytest.raises(WireError, match="too finely"):
        Inbox(10**9).collect(Offer("j", "a", Version(1, 0), 1, "f" * 32, MOST_CHUNKS + 1, 1), 0.0)


def test_all_together_reserve_no_more_than_the_quota() -> None:
    inbox = Inbox(25)
    assert inbox.collect(offer("a"), 0.0)
    assert inbox.collect(offer("b"), 0.0)
    assert inbox.collect(offer("c"), 0.0) is None
    assert inbox.room.reserved == 20


def test_what_was_begun_can_be_finished_when_the_quota_is_used_up() -> None:
    inbox = Inbox(25)
    for device in "abc":
        inbox.collect(offer(device), 0.0)
    for device in "ab":
        assert [inbox.add(chunk(index, device), 1.0) for index in range(3)][-1] == offer(device)
        assert inbox.collect(offer(device), 1.0) == BODY
    assert isinstance(inbox.collect(offer("c"), 2.0), Want)


def test_an_idle_upload_gives_way() -> None:
    inbox = Inbox(15)
    inbox.collect(offer("a"), 0.0)
    inbox.add(chunk(0), TURN_S - 1)
    assert inbox.collect(offer("b"), TURN_S - 0.5) is None
    assert isinstance(inbox.collect(offer("b"), TURN_S + 0.5), Want)
    assert inbox.add(chunk(1), TURN_S + 0.5) is None
    assert inbox.room.reserved == 10


def test_who_waits_is_called_when_an_idle_upload_has_had_its_turn() -> None:
    inbox = Inbox(15)
    inbox.collect(offer("a"), 0.0)
    inbox.collect(offer("b"), 1.0)
    assert inbox.deadline == TURN_S
    inbox.tick(inbox.deadline)
    assert inbox.has_called
    assert [one.device for one in inbox.call(TURN_S)] == ["b"]


def test_an_idle_upload_keeps_its_room_while_nobody_needs_it() -> None:
    inbox = Inbox(100)
    inbox.collect(offer("a"), 0.0)
    inbox.collect(offer("b"), 10 * IDLE_S)
    assert inbox.room.reserved == 20
    inbox.tick(10 * IDLE_S)
    assert inbox.room.reserved == 20
    assert inbox.deadline == math.inf


def test_a_slow_link_that_is_alone_gets_through_though_others_had_none_of_its_patience() -> None:
    inbox = Inbox(15)
    inbox.collect(offer("a"), 0.0)
    inbox.collect(offer("b"), 1.0)
    inbox.tick(TURN_S)  # a gives way
    inbox.call(TURN_S)
    inbox.collect(offer("b"), TURN_S)
    for index in range(3):
        inbox.add(chunk(index, "b"), TURN_S + 1)
    assert inbox.collect(offer("b"), TURN_S + 1) == BODY
    now = TURN_S + 2
    for index in range(3):
        assert inbox.collect(offer("a"), now), "it is a guest, and alone"
        inbox.add(chunk(index, "a"), now := now + 100.0)
        inbox.tick(now)
    assert inbox.collect(offer("a"), now) == BODY


def test_a_base_under_another_name_keeps_what_has_come() -> None:
    inbox = Inbox(15)
    inbox.collect(offer(), 0.0)
    inbox.add(chunk(0), 0.0)
    renamed = structs.replace(offer(), base=Version(2, 0))
    assert inbox.collect(renamed, 0.0) == Want("a", "j", chunks.digest(BODY), "06")
    inbox.add(chunk(1), 0.0)
    assert inbox.add(chunk(2), 0.0) == renamed


def test_an_update_larger_than_all_the_room_does_not_hold_up_the_line() -> None:
    inbox = Inbox(15)
    inbox.collect(offer("a"), 0.0)
    assert inbox.collect(offer("big", bytes(16)), 0.0) is None
    assert inbox.collect(offer("b"), 0.0) is None
    inbox.forget("j", "a")
    assert [one.device for one in inbox.call(0.0)] == ["b"]


def test_another_offer_of_a_device_replaces_the_first() -> None:
    inbox = Inbox(100)
    inbox.collect(offer(), 0.0)
    inbox.add(chunk(0), 0.0)
    finer = offer(chunk_bytes=5)
    assert inbox.collect(finer, 1.0) == Want("a", "j", chunks.digest(BODY), "03")
    assert inbox.room.reserved == 10


def test_an_assembly_has_no_more_than_its_offer_says() -> None:
    inbox = Inbox(100)
    inbox.collect(offer(), 0.0)
    with pytest.raises(WireError, match="chunk 3 of a body that has 3"):
        inbox.add(Chunk("j", "a", chunks.digest(BODY), 3, b"more"), 0.0)


def test_a_job_whose_base_was_left_is_forgotten() -> None:
    inbox = Inbox(100)
    inbox.collect(offer(), 0.0)
    inbox.collect(offer(job="other"), 0.0)
    inbox.forget_job("j")
    assert inbox.room.reserved == 10
    assert inbox.add(chunk(0), 1.0) is None


# Who finds no room.


def test_who_finds_no_room_is_called_when_there_is_some() -> None:
    inbox = Inbox(20)
    for device in ("a", "b", "c"):
        inbox.collect(offer(device), 0.0)
    assert not inbox.has_called
    inbox.forget("j", "a")
    assert inbox.has_called
    assert inbox.call(0.0) == [offer("c")]
    assert not inbox.has_called
    assert inbox.call(0.0) == []


def test_a_large_update_in_line_is_not_passed_by_for_ever() -> None:
    inbox = Inbox(20)
    inbox.collect(offer("a"), 0.0)
    inbox.collect(offer("b", body=bytes(20)), 0.0)
    inbox.collect(offer("c"), 0.0)
    inbox.collect(offer("d"), 0.0)
    inbox.forget("j", "c")
    assert inbox.call(0.0) == []
    inbox.forget("j", "a")
    assert [one.device for one in inbox.call(0.0)] == ["b"]


def test_the_line_has_an_end_and_forgets_a_base_that_was_left() -> None:
    inbox = Inbox(10)
    inbox.collect(offer("a"), 0.0)
    for n in range(MOST_IN_LINE + 5):
        inbox.collect(offer(f"d{n}"), 0.0)
    inbox.collect(offer("k", job="k"), 0.0)
    inbox.forget("j", "a")
    assert [one.device for one in inbox.call(0.0)] == ["d6"]
    inbox.collect(offer("a"), 0.0)
    inbox.forget_job("j")
    assert [one.device for one in inbox.call(0.0)] == ["k"]


def test_who_is_overdue_for_longest_gives_way_first() -> None:
    inbox = Inbox(2 * len(BODY))
    inbox.collect(offer("b"), 0.0)
    inbox.collect(offer("a"), 1.0)
    now = 2 * TURN_S
    inbox.add(chunk(0, "a"), now - 1)
    assert isinstance(inbox.collect(offer("c"), now), Want)
    inbox.add(chunk(0, "b"), now)
    assert inbox.add(chunk(1, "a"), now) is None
    assert inbox.collect(offer("a"), now) == Want("a", "j", chunks.digest(BODY), "04"), "a has kept what had come"


def work_among(n_waiting: int, act: Callable[[Inbox, int], object], n_chunks: int = 1) -> Work:
    """Return what 20 acts take among so many unfinished updates, one of which is of so many chunks."""
    inbox = Inbox(2**40)
    for number in range(n_waiting):
        inbox.collect(offer(Name(f"d{number}")), 0.0)
    inbox.collect(offer(Name("big"), bytes(n_chunks), chunk_bytes=1), 0.0)
    return work_of(partial(act, inbox, number) for number in range(20))


def comes_new(inbox: Inbox, number: int) -> object:
    return inbox.collect(offer(Name(f"new{number}")), 1.0)


def test_an_offer_costs_the_same_with_many_unfinished_updates() -> None:
    few, many = work_among(100, comes_new), work_among(4000, comes_new)
    assert many.is_about(few), f"{few} with 100 of them, {many} with 4,000"


def test_a_chunk_costs_the_same_of_a_body_of_many() -> None:
    def work(n: int) -> Work:
        name = chunks.digest(bytes(n))
        return work_among(
            n, lambda inbox, index: inbox.add(Chunk("j", Name("big"), name, Number(index), b"\0"), 1.0), n
        )

    few, many = work(200), work(4000)
    assert many.is_about(few), f"{few} of 200 chunks, {many} of 4,000"


# Beyond what memory has room for.


def spooled(tmp_path: Path, most_bytes: int = 100, in_memory_bytes: int = 10) -> Inbox:
    return Inbox(most_bytes, tmp_path, in_memory_bytes=in_memory_bytes)


def test_what_memory_has_no_room_for_comes_together_on_disk(tmp_path: Path) -> None:
    inbox = spooled(tmp_path)
    names = "abcde"
    for device in names:
        inbox.collect(offer(device), 0.0)
    for index in (2, 0, 1):
        given = [inbox.add(chunk(index, device), 1.0) for device in names]
    assert given == [offer(device) for device in names]
    assert [inbox.collect(offer(device), 2.0) for device in names] == [BODY] * 5
    assert inbox.room.reserved == 0


def test_nothing_of_it_is_left_behind_whoever_is_killed(tmp_path: Path) -> None:
    inbox = spooled(tmp_path, in_memory_bytes=0)
    inbox.collect(offer(), 0.0)
    inbox.add(chunk(0), 1.0)
    assert list(tmp_path.iterdir()) == []


def test_a_place_on_disk_is_used_again_and_what_lay_there_is_not_seen(tmp_path: Path) -> None:
    inbox = spooled(tmp_path, in_memory_bytes=0)
    inbox.collect(offer("stays"), 0.0)
    for turn in range(20):
        body = bytes([turn]) * 10
        inbox.collect(offer(body=body), 0.0)
        for index in range(3 - turn % 2):  # every other one is given up
            inbox.add(chunk(index, body=body), 1.0)
        if turn % 2:
            inbox.forget("j", "a")
        else:
            assert inbox.collect(offer(body=body), 2.0) == body
    assert inbox._spool is not None
    assert inbox._spool.end == 2 * 4096


def test_chunks_on_disk_that_do_not_make_the_body_are_refused_and_their_place_given_back(tmp_path: Path) -> None:
    inbox = spooled(tmp_path, in_memory_bytes=0)
    inbox.collect(offer(), 0.0)
    for index in range(3):
        inbox.add(Chunk("j", "a", chunks.digest(BODY), index, bytes(len(chunk(index).data))), 1.0)
    with pytest.raises(WireError):
        inbox.collect(offer(), 2.0)
    assert inbox._spool is not None
    assert (inbox.room.reserved, inbox._spool.end) == (0, 0)


@pytest.mark.parametrize("call", ["pwrite", "pread"])
def test_a_disk_that_fails_costs_one_update_that_is_offered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> int:
        raise OSError(28, "No space left on device")

    def come() -> bytes | Want | None:
        inbox.collect(offer(), 0.0)
        for index in range(3):
            inbox.add(chunk(index), 1.0)
        return inbox.collect(offer(), 2.0)

    inbox = spooled(tmp_path, in_memory_bytes=0)
    with monkeypatch.context() as patch:
        patch.setattr(f"aggregator.spool.os.{call}", fail)
        with pytest.raises(SpoolError, match="No space left"):
            come()
    assert inbox.room.reserved == 0
    assert come() == BODY


def test_a_claim_takes_no_room_on_disk(tmp_path: Path) -> None:
    huge = Offer("j", "a", Version(1, 0), 1, "f" * 32, 2**30, 2**20)
    inbox = Inbox(2**31, tmp_path)
    assert isinstance(inbox.collect(huge, 0.0), Want)
    inbox.add(Chunk("j", "a", huge.digest, 1000, bytes(2**20)), 1.0)
    assert inbox._spool is not None
    (file,) = inbox._spool._files.values()
    assert file._descriptor is not None
    assert os.fstat(file._descriptor).st_blocks * 512 < 2 * 2**20


def test_places_of_one_length_do_not_stay_for_ever_because_another_is_taken(tmp_path: Path) -> None:
    inbox = spooled(tmp_path, most_bytes=10**7, in_memory_bytes=0)
    small, large = b"s" * 5000, b"l" * 100_000
    inbox.collect(offer("stays", small, chunk_bytes=5000), 0.0)
    for number in range(20):
        inbox.collect(offer(f"d{number}", large, chunk_bytes=100_000), 0.0)
    assert inbox._spool is not None
    assert inbox._spool.end == 8192 + 20 * 131_072
    for number in range(20):
        inbox.forget("j", f"d{number}")
    assert inbox._spool.end == 8192
