"""Devices searched, filtered, sorted and in pages."""

from __future__ import annotations

import pytest
from msgspec import structs

from fleet.web.listing import ROWS, Listing, summed_up
from fleet.web.queries import FleetQuery
from tests.fleet.web.made import JOB, device, view

ODD = structs.replace(
    device("odd"), state="offline", heard_at=None, since=5.0, vitals=None, labels={}, parts={}, serves={}
)
FLEET = view(120, ODD, structs.replace(device("twin", 7), alarm="two devices under one id"))


def found(**asked: object) -> list[str]:
    return [one.device for one in Listing().find(FLEET, FleetQuery(**asked)).rows]  # type: ignore[arg-type]


def test_a_page_has_fifty_rows_and_the_last_one_stands_for_all_beyond() -> None:
    page = Listing().find(FLEET, FleetQuery())
    assert (len(page.rows), page.n, page.n_pages, page.first) == (ROWS, 122, 3, 1)
    assert Listing().find(FLEET, FleetQuery(page=99)).number == 3
    assert found(page=2)[0] == "device-00050"


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"q": "ODD"}, ["odd"]),
        ({"q": "hall device-00005"}, ["device-00005"]),
        ({"state": "offline"}, ["odd"]),
        ({"state": "alarm"}, ["twin"]),
        ({"q": "one id"}, ["twin"]),
        ({"label": "site=hall 9"}, []),
        ({"job": "none"}, []),
    ],
)
def test_devices_are_found_by_what_is_said_of_them(asked: dict[str, object], names: list[str]) -> None:
    assert found(**asked) == names


def test_labels_and_jobs_filter() -> None:
    assert found(label="site=hall 1")[:2] == ["device-00001", "device-00004"]
    page = Listing().find(FLEET, FleetQuery(label="site", job=JOB))
    assert page.n == 121, "all but the odd one"


@pytest.mark.parametrize("sort", ["name", "state", "seen", "version", "heat", "disk", "bytes"])
def test_every_column_sorts_both_ways_and_what_is_not_known_comes_last(sort: str) -> None:
    query = FleetQuery(sort=sort)  # type: ignore[arg-type]
    up, down = (Listing().find(FLEET, structs.replace(query, order=o, page=3)).rows for o in ("", "desc"))
    if sort not in ("name", "state", "seen"):
        assert up[-1].device == down[-1].device == "odd"
    elif sort == "seen":
        assert up[-1].device == "odd"
    assert query.sorted_by(query.sort).order == "desc"


def test_a_device_that_has_changed_is_found_by_its_new_words() -> None:
    listing = Listing()
    assert listing.find(FLEET, FleetQuery(q="broken sensor")).n == 0
    changed = structs.replace(FLEET.devices["device-00003"], why="a broken sensor")
    seen = structs.replace(FLEET, devices={**FLEET.devices, "device-00003": changed})
    assert listing.find(seen, FleetQuery(q="broken sensor")).n == 1


def test_a_view_comes_to_a_few_numbers() -> None:
    summary = summed_up(FLEET)
    assert summary.states == {"online": 121, "offline": 1}
    assert summary.alarms == 1
    assert summary.labels == [("site=hall 0", 40), ("site=hall 1", 41), ("site=hall 2", 40)]
    assert summary.serves == {JOB: [(40, 60), (39, 61)]}


def test_labels_that_devices_share_count_for_each_of_them() -> None:
    shared = {"site": "yard"}
    alike = [
        structs.replace(device(f"d{n}"), labels=shared if n else {"site": "yard", "kind": "pump"}) for n in range(3)
    ]
    assert summed_up(view(0, *alike)).labels == [("kind=pump", 1), ("site=yard", 3)]
