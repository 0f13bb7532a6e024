from __future__ import annotations

from edge_agent.seldom import NOTHING, put, without


def test_what_is_put_stands_in_another_mapping() -> None:
    one = put(NOTHING, "j-1", "no data")
    two = put(one, "j-2", "no disk")
    assert (dict(one), dict(two), dict(NOTHING)) == ({"j-1": "no data"}, {"j-1": "no data", "j-2": "no disk"}, {})
    assert put(two, "j-1", "at rest")["j-1"] == "at rest"
    assert two["j-1"] == "no data"


def test_what_is_taken_out_leaves_the_others_and_in_the_end_the_one_empty_mapping() -> None:
    two = put(put(NOTHING, "j-1", 1.0), "j-2", 2.0)
    assert without(two, "j-3") is two
    assert without(two, "j-1") == {"j-2": 2.0}
    assert without(without(two, "j-1"), "j-2") is NOTHING
    assert len(two) == 2
