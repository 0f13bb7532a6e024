from __future__ import annotations

from fleet.console.int8 import InInt8, OfFleet, lines, of_fleet

FEW = "this device has fewer than 20 rows"


def test_devices_are_counted_with_the_worst_loss_and_the_reasons() -> None:
    said = [InInt8("1.9", 0.001, 2.0), InInt8("1.9", 0.004, 1.5), None]
    said += [InInt8("1.9", 0.2, 2.0, "it loses 0.2"), InInt8("1.9", 0.0, 0.0, FEW), InInt8("1.8", 0.0, 0.0, FEW)]
    told = of_fleet(said)
    assert told == OfFleet(2, 0.004, 1.5, {FEW: 2, "it loses 0.2": 1})
    assert list(told.float32) == [FEW, "it loses 0.2"]
    assert lines(told) == [
        "int8 on 2 devices, loss at most 0.0040, at least 1.50x as fast",
        f"2 devices kept float32: {FEW}",
        "1 device kept float32: it loses 0.2",
    ]


def test_where_none_is_in_int8_there_is_no_loss_and_rare_reasons_are_counted() -> None:
    told = of_fleet(InInt8("1.9", 0.0, 0.0, f"reason {n}") for n in range(5))
    assert told is not None
    assert (told.devices, told.most_lost, told.least_speedup) == (0, None, None)
    assert lines(told)[-1] == "2 devices kept float32 for other reasons (--json has them)"
    assert len(lines(told)) == 4


def test_where_no_device_says_anything_nothing_is_told() -> None:
    assert of_fleet([None, None]) is None
    assert lines(None) == []
