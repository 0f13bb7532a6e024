from __future__ import annotations

from pathlib import Path

from broker.messages import Version
from fleet.world.disk import Disk, shelf
from fleet.world.record import DeviceRecord


def disk(folder: Path) -> Disk:
    one = Disk(folder / "d0", DeviceRecord())
    one.folder.mkdir()
    write(one, "before")
    return one


def write(one: Disk, what: str) -> None:
    (one.folder / "state").write_text(what)
    assert isinstance(one.record, DeviceRecord)
    one.record.finished["job", Version(1, 0)] += 1


def read(one: Disk) -> tuple[str, int]:
    assert isinstance(one.record, DeviceRecord)
    return (one.folder / "state").read_text(), one.record.finished["job", Version(1, 0)]


def test_a_copy_goes_its_own_way_with_what_is_known_of_it(tmp_path: Path) -> None:
    one = disk(tmp_path)
    copy = one.copy()
    write(one, "after")
    assert (read(one), read(copy)) == (("after", 2), ("before", 1))


def test_a_restored_disk_is_the_copy_and_leaves_the_copy_as_it_is(tmp_path: Path) -> None:
    one = disk(tmp_path)
    copy = one.copy()
    write(one, "after")
    (one.folder / "more").write_text("x")
    one.restore(copy)
    assert (read(one), one.n_files()) == (("before", 1), 1)
    write(one, "again")
    assert read(copy) == ("before", 1)


def test_a_new_card_is_empty_and_nothing_is_known_of_it(tmp_path: Path) -> None:
    one = disk(tmp_path)
    one.empty()
    assert one.n_files() == 0
    assert isinstance(one.record, DeviceRecord)
    assert not one.record.finished


def test_what_a_dying_process_still_writes_does_not_count(tmp_path: Path) -> None:
    one = disk(tmp_path)
    one.freeze()
    (one.folder / "state").write_text("too late")
    one.thaw()
    one.thaw()
    assert read(one) == ("before", 1)


def test_a_process_that_dies_before_it_wrote_leaves_no_folder(tmp_path: Path) -> None:
    one = Disk(tmp_path / "d0", DeviceRecord())
    one.freeze()
    one.folder.mkdir()
    one.thaw()
    assert not one.folder.exists()


def test_a_copy_leaves_out_what_belongs_to_the_running_process(tmp_path: Path) -> None:
    one = disk(tmp_path)
    (one.folder / "aggregator.sqlite-shm").write_text("index")
    assert one.copy().n_files() == 1


def test_a_shelf_is_cleared_away() -> None:
    with shelf() as folder:
        assert folder.is_dir()
    assert not folder.exists()
