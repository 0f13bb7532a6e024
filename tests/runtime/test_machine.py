"""What a machine has: as its files say, and nothing where there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime import machine

MEMINFO = "MemTotal:         437656 kB\nMemFree:           20000 kB\n"
PHYSICAL = 437_656 * 1024
NO_LIMIT_OF_V1 = 9223372036854771712


def made(root: Path, **files: str) -> Path:
    """Make a root with these files; two underscores in a name are a slash, one more is a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("DOT", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_machine_without_limits_has_what_it_has(tmp_path: Path) -> None:
    root = made(
        tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/user\n", sys__fs__cgroup__user__memoryDOTmax="max"
    )
    assert (machine.physical_bytes(root), machine.group_bytes(root)) == (PHYSICAL, None)


def test_a_group_of_v2_counts_and_so_do_those_that_it_is_in(tmp_path: Path) -> None:
    root = made(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="0::/system/agent\n",
        sys__fs__cgroup__system__agent__memoryDOTmax="300000000\n",
    )
    assert machine.group_bytes(root) == 300_000_000
    made(root, sys__fs__cgroup__system__memoryDOTmax="200000000\n")
    assert machine.group_bytes(root) == 200_000_000


def test_in_a_container_the_group_is_the_root_of_what_is_seen(tmp_path: Path) -> None:
    root = made(
        tmp_path, proc__meminfo=MEMINFO, proc__self__cgroup="0::/\n", sys__fs__cgroup__memoryDOTmax="100000000\n"
    )
    assert machine.group_bytes(root) == 100_000_000


@pytest.mark.parametrize(("limit", "found"), [("200000000", 200_000_000), (str(NO_LIMIT_OF_V1), None)])
def test_a_group_of_v1_counts_unless_its_limit_is_none(tmp_path: Path, limit: str, found: int | None) -> None:
    root = made(
        tmp_path,
        proc__meminfo=MEMINFO,
        proc__self__cgroup="9:name=systemd:/\n4:cpu,memory:/a/b\n0::/\n",
        sys__fs__cgroup__memory__a__b__memoryDOTlimit_in_bytes=limit,
    )
    assert machine.group_bytes(root) == found


def test_nothing_is_known_where_there_are_no_such_files(tmp_path: Path) -> None:
    assert (machine.physical_bytes(tmp_path), machine.group_bytes(tmp_path)) == (None, None)


@pytest.mark.parametrize("text", ["", "MemTotal:", "MemTotal: many kB", "\xff\n"])
def test_what_makes_no_sense_is_not_known(tmp_path: Path, text: str) -> None:
    root = made(tmp_path, proc__meminfo=text, proc__self__cgroup="0::/../../etc\nnonsense\n")
    assert (machine.physical_bytes(root), machine.group_bytes(root)) == (None, None)


def test_this_machine_says_what_it_has() -> None:
    physical = machine.physical_bytes()
    assert physical is not None
    assert physical > 2**26


def test_room_on_a_disk_is_that_of_the_folder_that_will_be_there(tmp_path: Path) -> None:
    assert machine.free_bytes(tmp_path / "not" / "yet") == pytest.approx(machine.free_bytes(tmp_path), rel=0.1)
    assert machine.free_bytes(tmp_path / ("x" * 300)) is None


def test_what_a_folder_takes_is_what_lies_in_it(tmp_path: Path) -> None:
    assert machine.used_bytes(tmp_path / "none") == 0
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_bytes(bytes(100_000))
    assert 100_000 <= machine.used_bytes(tmp_path) <= 110_000


# How it is.


def zones(root: Path, *found: tuple[str, str]) -> Path:
    """Make a root with these thermal zones: type and temp."""
    for number, (kind, temp) in enumerate(found):
        folder = root / f"sys/class/thermal/thermal_zone{number}"
        folder.mkdir(parents=True)
        (folder / "type").write_text(f"{kind}\n")
        (folder / "temp").write_text(temp)
    return root


@pytest.mark.parametrize(
    ("found", "degrees"),
    [
        ([("cpu-thermal", "51540\n")], 51.54),
        ([("acpitz", "90000"), ("x86_pkg_temp", "61000"), ("iwlwifi_1", "70000")], 61.0),
        ([("acpitz", "27800"), ("nvme", "40000")], 40.0),
        ([("cpu-thermal", "-3000")], -3.0),
        ([("cpu-thermal", "200000000"), ("cpu1-thermal", "garbage"), ("soc", "")], None),
        ([], None),
    ],
)
def test_the_heat_is_that_of_the_hottest_zone_of_a_processor(
    tmp_path: Path, found: list[tuple[str, str]], degrees: float | None
) -> None:
    assert machine.heat(zones(tmp_path, *found)) == degrees


def test_a_zone_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    root = zones(tmp_path, ("cpu-thermal", "50000"))
    (root / "sys/class/thermal/thermal_zone1/temp").mkdir(parents=True)
    (root / "sys/class/thermal/thermal_zone2").symlink_to(root / "nowhere")
    assert machine.heat(root) == 50.0


def test_this_machine_has_a_load() -> None:
    load = machine.load()
    assert load is not None
    assert load >= 0.0
