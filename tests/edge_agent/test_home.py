from __future__ import annotations

import errno
import fcntl
import itertools
import logging
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent import files
from edge_agent.home import Home, HomeError


def count_boot(folder: Path) -> int:
    """Count a boot as the version before this one did."""
    folder.mkdir(parents=True, exist_ok=True)
    content = files.unseal(folder / "boot")
    boot = (int(content) if content else 0) + 1
    files.seal(folder / "boot", str(boot).encode())
    return boot


def lives(folder: Path, n: int = 1, device: str = "pi-1") -> list[tuple[str, int]]:
    """Open and close a home n times, and give what it was each time."""
    found = []
    for _ in range(n):
        one = Home(folder, device)
        found.append((one.incarnation, one.boot))
        one.close()
    return found


def is_word(text: str) -> bool:
    return len(text) == 8 and set(text) <= set("0123456789abcdef")


# A life.


def test_a_new_directory_has_an_incarnation_for_good_and_each_start_a_boot_and_a_nonce(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "pi-1"
    nonces = set()
    for boot in range(1, 4):
        one = Home(folder, "pi-1")
        assert (one.folder, one.device, one.boot) == (folder, "pi-1", boot)
        assert is_word(one.incarnation)
        assert is_word(one.nonce)
        nonces.add(one.nonce)
        one.close()
    assert len(nonces) == 3
    assert len({incarnation for incarnation, _ in lives(folder, 3)} | {one.incarnation}) == 1
    assert lives(tmp_path / "other")[0][0] != one.incarnation


def test_a_simulator_chooses_what_is_drawn(tmp_path: Path) -> None:
    numbers = itertools.count(1)
    first = Home(tmp_path / "a", "a", draw=lambda: f"{next(numbers):08x}")
    assert (first.nonce, first.incarnation) == ("00000001", "00000002")
    second = Home(tmp_path / "b", "b", nonce="0000beef", draw=lambda: "00000009")
    assert (second.nonce, second.incarnation) == ("0000beef", "00000009")
    first.close()
    second.close()


def test_a_directory_of_a_version_before_this_one_goes_on_counting(tmp_path: Path) -> None:
    for boot in range(1, 4):
        assert count_boot(tmp_path) == boot
    (tmp_path / "jobs" / "j-1").mkdir(parents=True)
    one, two = lives(tmp_path, 2)
    assert (one[1], two[1]) == (4, 5)
    assert one[0] == two[0]
    assert (tmp_path / "jobs" / "j-1").is_dir()


# One process, one device.


def test_a_second_agent_is_told_who_has_the_directory_and_changes_nothing(tmp_path: Path) -> None:
    one = Home(tmp_path, "pi-1")
    before = contents(tmp_path)
    for device in ("pi-1", "pi-2"):
        with pytest.raises(
            HomeError, match=f"in use by process {os.getpid()}: each agent needs a state_dir of its own"
        ):
            Home(tmp_path, device)
    assert contents(tmp_path) == before
    one.close()
    assert lives(tmp_path) == [(one.incarnation, 2)]


def test_a_process_that_dies_gives_the_directory_up(tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from edge_agent.home import Home
one = Home(Path({str(tmp_path)!r}), "pi-1")
print(os.getpid(), flush=True)
sys.stdin.read()
os._exit(9)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        pid = other.stdout.readline().strip()
        with pytest.raises(HomeError, match=f"in use by process {pid}:"):
            Home(tmp_path, "pi-1")
        other.communicate("")
    assert lives(tmp_path)[0][1] == 2


def test_a_directory_of_another_device_is_refused_by_name_and_left_as_it_was(tmp_path: Path) -> None:
    (incarnation, _), _ = lives(tmp_path, 2)
    before = {name: content for name, content in contents(tmp_path).items() if name != "lock"}
    with pytest.raises(
        HomeError, match=f"{tmp_path} belongs to device pi-1, and this agent is pi-2: give it a state_dir"
    ):
        Home(tmp_path, "pi-2")
    assert {name: content for name, content in contents(tmp_path).items() if name != "lock"} == before
    assert lives(tmp_path) == [(incarnation, 3)]


def test_a_device_that_is_renamed_takes_its_directory_along_as_the_message_says(tmp_path: Path) -> None:
    ((incarnation, _),) = lives(tmp_path)
    (tmp_path / "device").unlink()
    ((other, boot),) = lives(tmp_path, device="pi-2")
    assert boot == 2
    assert other != incarnation


def test_a_refusal_lets_the_next_one_in(tmp_path: Path) -> None:
    lives(tmp_path)
    with pytest.raises(HomeError):
        Home(tmp_path, "pi-2")
    assert len(lives(tmp_path)) == 1


def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    number = errno.ENOLCK
    assert lives(tmp_path)[0][1] == 1
    assert "is not locked" in caplog.text
    number = errno.EIO
    with pytest.raises(OSError, match=str(tmp_path)):
        Home(tmp_path, "pi-1")


# Damage.


def sealed(content: bytes) -> Callable[[Path], object]:
    return lambda path: files.seal(path, content)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 8
    path.write_bytes(data)


HARM: dict[str, Callable[[Path], object]] = {
    "is gone": Path.unlink,
    "is empty": lambda path: path.write_bytes(b""),
    "is zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "is cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "has a bit flipped": flipped,
    "is sealed nothing": sealed(b""),
    "is sealed noise": sealed(b"\xff\xfe\x00"),
    "is sealed nesting": sealed(b'{"x":' * 100_000),
    "is a number without end": sealed(b"9" * 5000),
    "is a negative number": sealed(b"-4"),
    "is more than can be told": sealed(str(2**53).encode()),
    "is of no device": sealed(b'{"device":"","incarnation":"00000000"}'),
    "is of no incarnation": sealed(b'{"device":"pi-1","incarnation":"ffff"}'),
    "has bad UTF-8": sealed(b'{"device":"\xff\xfe","incarnation":"00000000"}'),
    "is of other types": sealed(b'{"device":1,"incarnation":[]}'),
}


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("name", ["device", "boot"])
def test_a_damaged_file_stops_no_agent_and_draws_an_incarnation(
    tmp_path: Path, name: str, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    before = lives(tmp_path, 3)[-1]
    HARM[harm](tmp_path / name)
    caplog.clear()
    one, two = lives(tmp_path, 2)
    assert one[0] == two[0] != before[0]
    assert one[1] == (4 if name == "device" else 1)
    assert two[1] == one[1] + 1
    assert f"incarnation={one[0]}" in caplog.text
    if harm != "is gone":
        assert str(tmp_path / name) in caplog.text


def test_a_sector_that_cannot_be_read_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ((incarnation, _),) = lives(tmp_path)
    read_bytes = Path.read_bytes

    def fail(path: Path) -> bytes:
        if path.name == "device":
            raise OSError(errno.EIO, "Input/output error")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    ((other, boot),) = lives(tmp_path)
    assert boot == 2
    assert other != incarnation


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("where", ["mkdir", "fsync", "replace", "open"])
def test_a_disk_that_takes_nothing_is_an_error_that_names_the_folder_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, number: int
) -> None:
    folder = tmp_path / "state"
    if where != "mkdir":
        ((incarnation, _),) = lives(folder)

    def refuse(*arguments: Any, **more: Any) -> Any:
        if where == "open" and "w" not in str(arguments[1:]) and "a" not in str(arguments[1:]):
            return path_open(*arguments, **more)
        raise OSError(number, os.strerror(number), "some file")

    path_open = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path if where == "open" else os, where, refuse)
        with pytest.raises(OSError, match=f"state directory {folder} cannot be used: {os.strerror(number)}") as caught:
            Home(folder, "pi-1")
    assert caught.value.errno == number
    if where == "mkdir":
        assert not folder.exists()
    else:
        assert lives(folder) == [(incarnation, 2)]


def test_a_file_where_the_directory_belongs_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"")
    with pytest.raises(OSError, match=f"state directory {tmp_path / 'state'} cannot be used"):
        Home(tmp_path / "state", "pi-1")


# Cuts of the power.


class CutError(BaseException):
    """The power is cut."""


class Disk:
    """A real folder whose power is cut at an act on it; what was not synced may then be lost.

    A rename whose folder has not been synced since may not have happened. A file that was renamed before it was
    synced may be empty; so may one that was never renamed. left: acts until the cut, none below 1.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, rng: random.Random) -> None:
        self.left = 0
        self._rng = rng
        self._synced: set[Path] = set()
        self._hollow: set[Path] = set()
        self._renamed: list[tuple[Path, bytes | None]] = []
        self._replace, self._mkdir = os.replace, os.mkdir
        monkeypatch.setattr(os, "replace", self._rename)
        monkeypatch.setattr(os, "fsync", self._sync)
        monkeypatch.setattr(os, "mkdir", self._make)
        monkeypatch.setattr(files, "reach", lambda *_: self._act())

    def _act(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise CutError

    def _make(self, path: Path, *mode: int) -> None:
        self._act()
        self._mkdir(path, *mode)

    def _rename(self, source: Path, target: Path) -> None:
        self._act()
        self._renamed.append((target, target.read_bytes() if target.exists() else None))
        self._replace(source, target)
        if source not in self._synced:
            self._hollow.add(target)

    def _sync(self, descriptor: int) -> None:
        self._act()
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        self._synced.add(path)
        if path.is_dir():
            self._renamed.clear()

    def come_back(self, folder: Path) -> None:
        """Be what is found when the power is back."""
        self.left = 0
        for file in (*self._hollow, *folder.glob(".*.new")):
            file.write_bytes(file.read_bytes()[: self._rng.choice([0, 3, None])])
        for target, old in reversed(self._renamed):
            if self._rng.random() < 0.5:
                target.unlink()
                if old is not None:
                    target.write_bytes(old)
        self._renamed.clear()
        self._hollow.clear()
        self._synced.clear()


class Fleet:
    """What an aggregator has heard of a directory: no boot may fall under one incarnation."""

    def __init__(self) -> None:
        self.boots: dict[str, int] = {}

    def open(self, folder: Path) -> bool:
        """Start and end an agent; False when the power was cut before it could say anything."""
        try:
            one = Home(folder, "pi-1")
        except CutError:
            return False
        one.close()
        assert one.boot > self.boots.get(one.incarnation, 0)
        self.boots[one.incarnation] = one.boot
        return True


def used(fleet: Fleet, folder: Path) -> None:
    for _ in range(3):
        fleet.open(folder)


def used_without(name: str) -> Callable[[Fleet, Path], None]:
    def make(fleet: Fleet, folder: Path) -> None:
        used(fleet, folder)
        (folder / name).write_bytes(b"")

    return make


BEFORE: dict[str, Callable[[Fleet, Path], object]] = {
    "new": lambda _fleet, _folder: None,
    "of a version before": lambda _fleet, folder: [count_boot(folder) for _ in range(3)],
    "used": used,
    "without a mark": used_without("device"),
    "without a boot": used_without("boot"),
}


@pytest.mark.parametrize("before", BEFORE)
def test_a_cut_at_any_act_of_opening_leaves_a_directory_that_opens_and_no_boot_falls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    rng = random.Random(before)  # noqa: S311 -- a made-up life, no secret
    disk = Disk(monkeypatch, rng)
    for seed in range(5):
        for acts in itertools.count(1):
            folder, fleet = tmp_path / f"{seed}-{acts}", Fleet()
            BEFORE[before](fleet, folder)
            disk.left = acts
            opened = fleet.open(folder)
            disk.come_back(folder)
            disk.left = rng.randint(1, 12)  # and once more on the way back up
            fleet.open(folder)
            disk.come_back(folder)
            assert fleet.open(folder)
            assert fleet.open(folder)
            if opened:
                break
        assert acts > 5  # there was something to cut


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def n_open() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> Iterator[None]:
    before = n_open()
    yield
    assert n_open() == before


def test_what_another_agent_has_made_of_a_new_folder_before_it_was_locked_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two are started at once, and the one that holds the folder first has gone when the other one gets it."""
    make_folder, others = files.make_folder, list[tuple[str, int]]()

    def made_and_used(path: Path) -> bool:
        is_new = make_folder(path)
        with monkeypatch.context() as patch:
            patch.setattr(files, "make_folder", make_folder)
            others.extend(lives(path))
        return is_new

    monkeypatch.setattr(files, "make_folder", made_and_used)
    home = Home(tmp_path / "state", "pi-1")
    assert others == [(home.incarnation, home.boot - 1)]
    home.close()
