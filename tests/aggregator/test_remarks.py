from __future__ import annotations

from aggregator import remarks


def test_what_was_done_to_an_update_stands_behind_its_fate() -> None:
    fates = {"a": "counted", "b": "counted late: its update was to version 1.3", "c": "refused: no", "d": "counted"}
    clamped = {"d": (2**21, 2**20), "c": (2**21, 2**20)}
    assert remarks.on_fates(fates, {"a": 0.125, "c": 0.5}, {"a": (2**20, 100), "b": (20, 10)}, clamped) == {
        "a": "counted; scaled to 0.125 of itself: its norm is far from its peers'; capped: it weighs 100, not 1048576",
        "b": "counted late: its update was to version 1.3; capped: it weighs 10, not 20",
        "c": "refused: no",
        "d": "counted; its 2097152 examples count as 1048576: more than its round's devices said they have",
    }


def test_the_end_of_a_round_names_the_first_who_were_capped() -> None:
    assert remarks.on_reason("nobody is left to wait for", 0.1, {}) == "nobody is left to wait for"
    assert remarks.on_reason("a quorum", 0.1, {"a": (9, 1)}) == "a quorum; capped at max_share = 0.1: a"
    many = {f"d{k}": (9, 1) for k in range(5)}
    assert remarks.on_reason("a quorum", 0.1, many) == "a quorum; capped at max_share = 0.1: d0, d1, d2 and 2 more"
