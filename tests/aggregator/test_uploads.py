"""Weights that operators send piece by piece, and what one of them can keep from the others."""

from __future__ import annotations

import base64
import hashlib

import pytest

from aggregator.uploads import IDLE_S, MOST_UPLOADS, QUIET_S, Uploads
from broker.messages import Upload
from tests.clocks import Clock

WEIGHTS = bytes(range(200)) * 5
DIGEST = hashlib.sha256(WEIGHTS).hexdigest()[:32]


def piece(client: str, at: int, data: bytes, n_bytes: int = len(WEIGHTS), digest: str = DIGEST) -> Upload:
    return Upload(client, f"{at}", digest, n_bytes, at, base64.b64encode(data).decode())


def send(uploads: Uploads, client: str = "anna") -> None:
    for at in range(0, len(WEIGHTS), 300):
        uploads.take(piece(client, at, WEIGHTS[at : at + 300]))


def test_weights_come_in_pieces_are_taken_once_and_a_piece_that_comes_again_changes_nothing() -> None:
    uploads = Uploads(Clock(), 10_000)
    assert uploads.take(piece("anna", 0, WEIGHTS[:300])) == "300"
    assert uploads.take(piece("anna", 0, WEIGHTS[:300])) == "300"
    with pytest.raises(ValueError, match="a piece begins at 600: begin again"):
        uploads.take(piece("anna", 600, WEIGHTS[600:]))
    send(uploads)
    assert uploads.whole(DIGEST) == WEIGHTS
    with pytest.raises(ValueError, match="are not here, or not all of them"):
        uploads.whole(DIGEST)


def test_who_announces_all_the_room_and_sends_nothing_keeps_nobody_out() -> None:
    uploads = Uploads(Clock(), 10_000)
    for n in range(MOST_UPLOADS - 1):
        uploads.take(piece(f"eve{n}", 0, b"x", 10_000, "0" * 32))
    send(uploads)
    assert uploads.whole(DIGEST) == WEIGHTS


def test_who_fills_the_room_and_does_not_go_on_makes_way() -> None:
    clock = Clock()
    uploads = Uploads(clock, 2_000)
    uploads.take(piece("eve", 0, b"x" * 1_900, 2_000, "0" * 32))
    with pytest.raises(ValueError, match="1,000 bytes of weights, where 100 are left of unassembled_bytes"):
        send(uploads)
    clock.now += QUIET_S + 1
    send(uploads)
    assert uploads.whole(DIGEST) == WEIGHTS


def test_many_that_have_begun_and_do_not_go_on_make_way() -> None:
    clock = Clock()
    uploads = Uploads(clock, 10_000)
    for n in range(MOST_UPLOADS):
        uploads.take(piece(f"eve{n}", 0, b"x", 10_000, "0" * 32))
    with pytest.raises(ValueError, match="others are sending weights"):
        send(uploads)
    for _ in range(5):
        clock.now += QUIET_S + 1
        for n in range(1, MOST_UPLOADS):
            uploads.take(piece(f"eve{n}", 0, b"x", 10_000, "0" * 32))
        send(uploads)
        assert uploads.whole(DIGEST) == WEIGHTS
        uploads.take(piece("eve0", 0, b"x", 10_000, "0" * 32))
        clock.now += IDLE_S


def test_others_that_are_sent_under_the_same_name_hide_nothing() -> None:
    uploads = Uploads(Clock(), 10_000)
    uploads.take(piece("eve", 0, b"x" * len(WEIGHTS)))
    with pytest.raises(ValueError, match="are not those that were announced"):
        uploads.whole(DIGEST)
    send(uploads)
    assert uploads.whole(DIGEST) == WEIGHTS


def test_what_cannot_fit_is_refused_at_its_beginning() -> None:
    with pytest.raises(ValueError, match="1,000 bytes of weights, where 999 are left"):
        Uploads(Clock(), 999).take(piece("anna", 0, WEIGHTS[:1]))
