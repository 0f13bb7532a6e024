"""What a process may take for its jobs: from its settings, else from its machine; and what it says of a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import budget
from models.budget import Budget, Capacity, found, refusal
from models.job import JobSpec, ModelSpec
from models.needs import MB, Needs, of_device, together
from models.nets.mlp import Mlp
from models.nets.size import Size, of_spec


class Limits:
    """[limits] of either side."""

    def __init__(
        self, model_parameters: int = 25_000_000, memory_bytes: int | None = None, disk_bytes: int | None = None
    ) -> None:
        self.model_parameters = model_parameters
        self.memory_bytes = memory_bytes
        self.disk_bytes = disk_bytes


def machine(root: Path, kilobytes: int, group: int | None = None) -> Path:
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "meminfo").write_text(f"MemTotal: {kilobytes} kB\n")
    (root / "proc" / "self" / "cgroup").write_text("0::/agent\n")
    (root / "sys" / "fs" / "cgroup" / "agent").mkdir(parents=True)
    (root / "sys" / "fs" / "cgroup" / "agent" / "memory.max").write_text("max" if group is None else str(group))
    return root


def needs(memory: int, *, training: int = 0, passing: int = 0, disk: int = 0) -> Needs:
    return Needs(1000, memory * MB, training * MB, passing * MB, disk * MB)


def why(one: Needs, there: Budget, beside: dict[str, Needs] | None = None, over: tuple[str, ...] = ()) -> str:
    return refusal(one, there, 50 * MB, beside or {}, over).why


def test_what_stands_in_the_settings_holds(tmp_path: Path) -> None:
    there = found(Limits(10, 20, 30), tmp_path, machine(tmp_path, 10**6))
    assert there == Budget(10, 20, "memory_bytes in [limits]", 30, "disk_bytes in [limits]")


def test_without_them_it_is_three_quarters_of_the_machine(tmp_path: Path) -> None:
    there = found(Limits(), None, machine(tmp_path, 1_000_000))
    assert (there.memory_bytes, there.memory_from) == (768 * MB, "3/4 of the machine's 1,024 MB")
    assert (there.disk_bytes, there.disk_from) == (None, "")


def test_or_nine_tenths_of_what_its_group_allows(tmp_path: Path) -> None:
    there = found(Limits(), None, machine(tmp_path, 1_000_000, 200 * MB))
    assert (there.memory_bytes, there.memory_from) == (180 * MB, "9/10 of the 200 MB that its control group allows")


def test_a_wide_group_leaves_the_machines_share(tmp_path: Path) -> None:
    assert found(Limits(), None, machine(tmp_path, 1_000_000, 1000 * MB)).memory_bytes == 768 * MB


def test_of_the_disk_it_is_what_is_free_and_what_has_been_taken(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    before = found(Limits(), state, machine(tmp_path / "root", 10**6)).disk_bytes
    (state / "update.bin").write_bytes(bytes(5_000_000))
    after = found(Limits(), state, tmp_path / "root").disk_bytes
    assert before is not None
    assert after is not None
    assert abs(after - before) < 4_000_000  # a restart finds as much as there was


def test_where_nothing_is_known_nothing_is_limited(tmp_path: Path) -> None:
    there = found(Limits(), None, tmp_path)
    assert there == Budget(25_000_000)
    assert why(needs(10**6), there) == ""
    assert str(there) == "for jobs: nets of up to 25,000,000 parameters, memory without a limit, disk without a limit"


def test_a_net_of_too_many_parameters_is_refused_with_both_numbers() -> None:
    assert why(needs(1), Budget(999)) == (
        "the job does not fit here: its net has 1,000 parameters, where model_parameters = 999 in [limits]"
    )


def test_a_job_that_takes_too_much_memory_alone_is_refused_with_the_numbers() -> None:
    there = Budget(memory_bytes=100 * MB, memory_from="3/4 of the machine's 133 MB")
    assert why(needs(30, training=10, passing=10), there) == ""
    assert why(needs(30, training=10, passing=11), there) == (
        "the job does not fit here: its net of 1,000 parameters takes about 101 MB of memory, where there are "
        "100 MB (3/4 of the machine's 133 MB)"
    )


def test_a_job_that_takes_too_much_disk_alone_is_refused_with_the_numbers() -> None:
    there = Budget(disk_bytes=100 * MB, disk_from="disk_bytes in [limits]")
    assert why(needs(1, disk=100), there) == ""
    assert "takes about 101 MB of disk, where there are 100 MB (disk_bytes in [limits])" in why(
        needs(1, disk=101), there
    )


def test_a_job_that_fits_alone_waits_for_those_before_it() -> None:
    there = Budget(memory_bytes=100 * MB, memory_from="memory_bytes in [limits]", disk_bytes=10 * MB, disk_from="x")
    first = needs(20, training=5, passing=9)
    refused = refusal(needs(20, training=5, passing=9), there, 50 * MB, {"first": first}, ())
    assert refused.waits
    assert refused.why == (
        "the job does not fit beside first: with it about 109 MB of memory would be taken, without it 84 MB, and there "
        "are 100 MB (memory_bytes in [limits]); it has to wait until they have ended"
    )
    assert why(needs(20, training=5, passing=9), there, {"first": first}, over=("first",)) != ""
    assert why(needs(15, training=5, passing=9), there, {"first": first}, over=("first",)) == ""
    on_disk = refusal(needs(1, disk=6), there, 0, {"a": needs(1, disk=5)}, ())
    assert on_disk.waits
    assert "11 MB of disk would be taken, without it 5 MB" in on_disk.why


def test_of_many_jobs_a_refusal_names_three() -> None:
    beside = {name: needs(20) for name in "edcba"}
    assert "beside a, b, c and 2 more:" in why(needs(10), Budget(memory_bytes=155 * MB), beside)


def test_a_refusal_of_many_jobs_with_long_names_is_one_short_line() -> None:
    beside = {f"{'x' * 70}-{n}": needs(20) for n in range(9)}
    assert len(why(needs(10), Budget(memory_bytes=155 * MB, memory_from="m" * 60), beside)) < 500


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 kB"), (999_999, "1,000 kB"), (10**6, "1 MB"), (1_234_567_890, "1,235 MB"), (10**10, "10.0 GB")],
)
def test_bytes_are_said_as_people_read_them(n: int, text: str) -> None:
    assert budget.said(n) == text


def capacity(there: Limits, root: Path) -> Capacity:
    def of(spec: JobSpec, size: Size, rows: int | None) -> Needs:
        return of_device(spec, size, serves=False, rows=rows)

    return Capacity(there, None, of, 50 * MB, root)


def job(name: str, *hidden: int) -> JobSpec:
    return JobSpec(name, ModelSpec("mlp", 1000, hidden, 10), deploy="never")


def test_a_room_takes_jobs_until_it_is_full_and_again_when_one_has_left(tmp_path: Path) -> None:
    one, other = job("one", 1000), job("other", 1100)
    first, second = (of_device(spec, of_spec(Mlp(spec.model).spec), serves=False) for spec in (one, other))
    small = capacity(Limits(memory_bytes=50 * MB + together([second], [first]) + MB), tmp_path)
    assert small.weigh("one-1", one).why == ""
    small.take("one-1", one)
    assert small.weigh("one-1", one).why == ""  # it is not beside itself
    assert small.weigh("other-1", other).waits
    assert small.weigh("other-1", other, gone={"one-1"}).why == ""
    assert small.weigh("other-1", other, over={"one-1"}).why == ""
    small.leave("one-1")
    assert small.weigh("other-1", other).why == ""


def test_a_room_weighs_what_rows_make_once_they_are_known(tmp_path: Path) -> None:
    small = capacity(Limits(memory_bytes=100 * MB), tmp_path)
    whole = JobSpec("whole", ModelSpec("mlp", 10, (5000,), 2), deploy="never")
    whole = JobSpec("whole", whole.model, deploy="never", train=type(whole.train)(batch_size=2**31 - 1))
    assert small.weigh("whole-1", whole, rows=100).why == ""
    assert "does not fit here" in small.weigh("whole-1", whole, rows=10**6).why


def test_a_factory_that_cannot_be_counted_is_left_to_who_builds_it(tmp_path: Path) -> None:
    small = capacity(Limits(memory_bytes=100 * MB), tmp_path)
    spec = JobSpec("odd", ModelSpec("nowhere.at_all:net", 10, (), 2))
    assert small.weigh("odd-1", spec).why == ""
    assert small.size("odd-1") is None
    small.take("odd-1", spec)
    assert small.weigh("one-1", job("one", 10)).why == ""
