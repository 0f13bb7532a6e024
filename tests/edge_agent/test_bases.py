"""What is frozen of a job's net, on a device: looked for by its SHA-256, and fetched once."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.messages import BaseAt, Body
from broker.wire import Wire
from edge_agent.bases import AT_ONCE, Bases, Fetching
from edge_agent.config import ModelSettings
from edge_agent.disk import NoDisk
from edge_agent.home import Home
from edge_agent.workspace import Out, Subscribe
from models import frozen
from models.frozen import FrozenError, MissingError
from models.job import JobSpec, ModelSpec, TrainSpec
from models.nets import table as nets
from models.nets.finetune import Tuned
from models.nets.net import ModelError
from models.params import Params

JOB = "fault-1f"
SPEC = JobSpec("fault", ModelSpec("mlp", 4, (50,), 3), train=TrainSpec(only=("2",)))
WIRE = Wire("plant")
RNG = np.random.default_rng(0)
PLAIN = nets.of_job(SPEC)
assert isinstance(PLAIN, Tuned)
TENSORS = PLAIN.plan.frozen
GIVEN = {tensor.name: RNG.normal(size=tensor.shape).astype(np.float32) for tensor in TENSORS}
DATA = b"".join(bytes(part) for part in frozen.parts(GIVEN, TENSORS))
SHA256 = hashlib.sha256(DATA).hexdigest()
CHUNK = 100
AT = BaseAt(SHA256, len(DATA), CHUNK)


def bases(folder: Path, *, files: tuple[str, ...] = (), on_disk: bool = True, at: BaseAt | None = AT) -> Bases:
    home = Home(folder, "pi", disk=None if on_disk else NoDisk())
    home.close()
    found = Bases(home, ModelSettings(bases=files), WIRE)
    if at is not None:
        found.note(JOB, at)
    return found


def params(there: Bases, spec: JobSpec = SPEC) -> Params:
    net = nets.of_job(spec, find=there.finder(JOB, spec))
    assert isinstance(net, Tuned)
    return net.frozen


def asked(out: list[Out] | None) -> list[int]:
    """The pieces that are subscribed to."""
    topics = [topic for one in out or [] if isinstance(one, Subscribe) for topic in one.filters]
    return [int(topic.rpartition("/")[2]) for topic in topics]


def piece(index: int, data: bytes = DATA) -> Body:
    return Body(JOB, AT.name, index, data[index * CHUNK : (index + 1) * CHUNK])


def fetched(there: Bases, most: int = 10**6, data: bytes = DATA) -> int:
    """Give pieces as they are asked for, until all is there; return how many were given."""
    waiting, n = asked(there.begin(JOB, TENSORS)), 0
    while waiting and n < most:
        n += 1
        waiting += asked(there.take(piece(waiting.pop(0), data)))
    return n


def test_what_follows_from_the_seed_is_made_here(tmp_path: Path) -> None:
    assert params(bases(tmp_path, at=None)).keys() == GIVEN.keys()


@pytest.mark.parametrize("on_disk", [True, False])
def test_what_is_not_here_is_fetched_a_few_pieces_at_a_time_and_then_never_again(
    tmp_path: Path, *, on_disk: bool
) -> None:
    there = bases(tmp_path, on_disk=on_disk)
    with pytest.raises(MissingError, match=f"being fetched, {len(DATA):,} bytes"):
        params(there)
    first = asked(there.begin(JOB, TENSORS))
    assert first == list(range(min(AT_ONCE, AT.n_chunks)))
    assert fetched(there) == AT.n_chunks
    again = bases(tmp_path) if on_disk else there
    for name, value in params(again).items():
        np.testing.assert_array_equal(value, GIVEN[name])


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_pieces_in_any_order_and_deaths_in_between_come_to_the_same(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("state")
    there = bases(folder)
    waiting, given_ = asked(there.begin(JOB, TENSORS)), 0
    while waiting:
        if data.draw(st.integers(0, 4)) == 0:  # a death; a byte or more of the last piece may be lost with it
            part = folder / "bases" / f".{SHA256}.base"
            if part.exists() and data.draw(st.booleans()):
                part.write_bytes(part.read_bytes()[: -data.draw(st.integers(1, CHUNK))])
            there = bases(folder)
            waiting = asked(there.begin(JOB, TENSORS))
            assert all(index * CHUNK < len(DATA) for index in waiting)
        index = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
        given_ += 1
        assert given_ < 20 * AT.n_chunks
        waiting += asked(there.take(piece(index)))
    assert frozen.sha256(params(there), TENSORS) == SHA256


def test_all_but_the_last_pieces_are_not_asked_for_again_after_a_death(tmp_path: Path) -> None:
    fetched(bases(tmp_path), most=7)
    assert fetched(bases(tmp_path)) == AT.n_chunks - 7


def test_who_died_before_it_had_its_name_needs_no_piece(tmp_path: Path) -> None:
    there = bases(tmp_path)
    (tmp_path / "bases").mkdir()
    (tmp_path / "bases" / f".{SHA256}.base").write_bytes(DATA)
    assert there.begin(JOB, TENSORS) is None
    assert frozen.sha256(params(there), TENSORS) == SHA256


def test_what_has_come_to_something_else_is_thrown_away(tmp_path: Path) -> None:
    there = bases(tmp_path)
    wrong = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(FrozenError, match="SHA-256"):
        fetched(there, data=wrong)
    assert not list((tmp_path / "bases").iterdir())
    assert fetched(there) == AT.n_chunks


def test_pieces_of_another_length_or_that_nobody_asked_for_are_passed_over(tmp_path: Path) -> None:
    there = bases(tmp_path)
    there.begin(JOB, TENSORS)
    for wrong in (Body(JOB, AT.name, 0, DATA[:50]), Body(JOB, AT.name, 0, DATA), piece(AT.n_chunks - 1)):
        if wrong.index == 0 or AT.n_chunks > AT_ONCE:
            assert there.take(wrong) == []
    assert there.take(Body(JOB, "base-" + "0" * 64, 0, DATA[:CHUNK])) == []
    assert there.take(Body("another-1f", AT.name, 0, DATA[:CHUNK])) == []


def test_a_length_that_the_net_does_not_have_is_refused_before_anything_is_kept(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"has {len(DATA):,} bytes, and its aggregator announces 999"):
        params(bases(tmp_path, at=BaseAt(SHA256, 999, CHUNK)))
    assert not (tmp_path / "bases").exists()


def test_a_file_that_the_operator_names_need_not_be_fetched(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "net.npz", head=np.zeros(3), **GIVEN)
    there = bases(tmp_path / "state", files=(str(tmp_path / "other.npz"), str(tmp_path / "net.npz")))
    assert frozen.sha256(params(there), TENSORS) == SHA256


def test_a_file_here_that_has_rotted_is_fetched_anew(tmp_path: Path) -> None:
    fetched(bases(tmp_path))
    file = tmp_path / "bases" / f"{SHA256}.base"
    file.write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    with pytest.raises(MissingError):
        params(bases(tmp_path))
    assert fetched(bases(tmp_path)) == AT.n_chunks
    assert file.read_bytes() == DATA


def test_what_a_job_names_and_its_aggregator_has_not_is_out_with_what_to_do(tmp_path: Path) -> None:
    named = JobSpec("fault", SPEC.model, train=TrainSpec(only=("2",), base=SHA256))
    with pytest.raises(ModelError, match=r"base = .*: name a file .* in bases, in \[models\]"):
        params(bases(tmp_path, at=None), named)
    with pytest.raises(ModelError, match="its aggregator announces 0000"):
        params(bases(tmp_path, at=BaseAt("0" * 64, len(DATA), CHUNK)), named)


def test_what_no_job_needs_any_more_is_removed(tmp_path: Path) -> None:
    there = bases(tmp_path)
    fetched(there)
    there.sweep([SPEC], "another-1f")
    assert (tmp_path / "bases" / f"{SHA256}.base").exists()
    there.sweep([], JOB)
    assert not (tmp_path / "bases" / f"{SHA256}.base").exists()


def test_pieces_that_are_large_come_one_by_one(tmp_path: Path) -> None:
    one = Fetching(JOB, BaseAt(SHA256, len(DATA), 2**22), TENSORS, tmp_path / "bases", WIRE)
    assert asked(one.ask()) == [0]
    assert asked(one.ask()) == []


def test_pieces_that_do_not_come_are_asked_for_again_and_what_lies_there_otherwise_is_begun_anew(
    tmp_path: Path,
) -> None:
    there = bases(tmp_path)
    assert there.again(JOB) is None
    first = asked(there.begin(JOB, TENSORS))
    there.take(piece(first[2]))
    again = asked(there.again(JOB))
    assert again == [index for index in first if index != first[2]] + (
        [first[-1] + 1] if len(first) < AT.n_chunks else []
    )
    there.note(JOB, BaseAt(SHA256, len(DATA), CHUNK // 2))
    assert there.again(JOB) is None


def test_more_pieces_than_a_body_can_have_are_refused(tmp_path: Path) -> None:
    wide = JobSpec("fault", ModelSpec("mlp", 4, (3000,), 3), train=TrainSpec(only=("2",)))
    n_bytes = frozen.n_bytes(nets.plan_of(wide, nets.build(wide.model)).frozen)  # type: ignore[union-attr]
    with pytest.raises(ModelError, match=r"in 60,\d+ pieces"):
        params(bases(tmp_path, at=BaseAt(SHA256, n_bytes, 1)), wide)
