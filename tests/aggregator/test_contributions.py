"""What each device brought to each version, in the store: what has rotted is named, and nothing is read for more."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator.contributions import Evaluation
from aggregator.effects import Attempt, Close
from aggregator.store import DamageError, Judgement, Kept, Store
from broker.messages import Offer, Verdict, Version
from models.job import JobSpec, ModelSpec

JOB = "j-00000001"
V0, V1 = Version(1, 0), Version(1, 1)
SHA = "a" * 64


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    found = Store(tmp_path, synced=False)
    found.add_job(JOB, JobSpec("j", ModelSpec(inputs=4, outputs=2)), SHA, b"state", {})
    yield found
    found.close()


def judgement(device: str, base: Version = V0, *, refused: str = "", said: bytes = b"") -> Judgement:
    offer = Offer(JOB, device, base, 20, "0" * 16, 4, loss=0.5, body=b"body")
    return Judgement(Verdict(device, JOB, base, "0" * 8, refused), offer, 20, 1.5, b"body", 2.5, said)


def commit(store: Store, version: Version, left: object = None) -> None:
    base = Version(version.generation, version.number - 1)
    attempt = Attempt(base, 1, "salt", 1, None, ("a", "b"))
    store.open_attempt(JOB, attempt)
    close = Close(attempt, "committed", "all are counted", {"a": "counted"})
    store.commit(JOB, version, SHA, Kept(b"state"), {}, [], close, left=left)  # type: ignore[arg-type]


def test_what_came_is_there_before_and_after_its_base_is_left(store: Store) -> None:
    store.add_verdicts(JOB, [judgement("a", said=b"said"), judgement("b", refused="it is late")])
    before = store.contributions(JOB, 0)
    assert [(one.device, one.counted, one.evaluation, one.seconds) for one in before] == [
        ("a", True, b"said", 2.5),
        ("b", False, b"", 2.5),
    ]
    commit(store, V1)
    after = store.contributions(JOB, 0)
    assert [(one.device, one.counted, one.weight) for one in after] == [("a", True, 20), ("b", False, 0)]
    assert [one.body_bytes for one in after] == [4, 4]
    assert store.contributions(JOB, 1) == []


def test_only_who_counts_is_asked_how_good_the_base_is(store: Store) -> None:
    store.add_verdicts(JOB, [judgement("b", said=b"b"), judgement("a", said=b"a"), judgement("c")])
    store.add_verdicts(JOB, [judgement("d", refused="it is far", said=b"d")])
    assert store.evaluations(JOB, V0) == [Evaluation("a", 20, b"a"), Evaluation("b", 20, b"b")]
    commit(store, V1)
    assert store.evaluations(JOB, V1) == []


def test_the_score_of_a_version_is_durable_with_the_next_one(store: Store) -> None:
    store.add_verdicts(JOB, [judgement("a", said=b"a")])
    commit(store, V1, ({"accuracy": 0.5}, {"devices": 1, "rows": 20}))
    assert store.history(JOB) == [{"accuracy": 0.5}, {}]
    assert store.federated(JOB) == (0, {"devices": 1, "rows": 20})
    assert [(point.version, point.metrics) for point in store.curve(JOB, most=9)] == [(V0, {"accuracy": 0.5}), (V1, {})]


def test_a_job_that_is_stopped_keeps_what_had_come(store: Store) -> None:
    store.add_verdicts(JOB, [judgement("a", said=b"a")])
    store.end_job(JOB, "stopped", "an operator stopped it", V0, ({"accuracy": 0.5}, {"devices": 1}))
    assert [one.device for one in store.contributions(JOB, 0)] == ["a"]
    assert store.history(JOB) == [{"accuracy": 0.5}]
    store.add_last_evaluation(JOB, V0, Evaluation("z", 7, b"z"))
    store.score(JOB, V0, ({"accuracy": 0.6}, {"devices": 2}))
    assert store.n_evaluations(JOB, V0) == 2
    assert store.evaluations(JOB, V0, "z") == [Evaluation("z", 7, b"z")]
    assert store.evaluations(JOB, V0, "y") == []
    assert store.evaluations(JOB, V0) == [Evaluation("a", 20, b"a"), Evaluation("z", 7, b"z")]
    assert store.federated(JOB) == (0, {"devices": 2})


def test_a_job_that_is_deleted_leaves_nothing(store: Store) -> None:
    store.add_verdicts(JOB, [judgement("a")])
    commit(store, V1)
    store.end_job(JOB, "deleted", "")
    assert store.contributions(JOB, 0) == []


@pytest.mark.parametrize("table", ["updates", "contributions"])
@pytest.mark.parametrize("cell", ["x'00'", "x'0000000061'", "'text'", "7"])
def test_an_evaluation_that_has_rotted_is_named(table: str, cell: str, store: Store) -> None:
    store.add_verdicts(JOB, [judgement("a", said=b"a")])
    if table == "contributions":
        commit(store, V1)
    store._db.execute(f"UPDATE {table} SET evaluation = {cell}")
    with pytest.raises(DamageError, match=rf"job {JOB} is damaged .*{table}.*evaluation of a is wrong"):
        store.contributions(JOB, 0)


@pytest.mark.parametrize(
    ("sql", "where"),
    [
        ("UPDATE contributions SET n_examples = -1", "contributions"),
        ("UPDATE contributions SET device = 'a/b'", "contributions"),
        ("UPDATE contributions SET norm = 'much'", "contributions"),
        ("UPDATE versions SET federated = '{'", "versions"),
        ("UPDATE versions SET federated = '7'", "versions"),
    ],
)
def test_any_other_cell_that_has_rotted_is_named_too(sql: str, where: str, store: Store) -> None:
    store.add_verdicts(JOB, [judgement("a")])
    commit(store, V1)
    store._db.execute(sql)
    with pytest.raises(DamageError, match=rf"job {JOB} is damaged .*{where}"):
        (store.contributions(JOB, 0), store.curve(JOB, most=9))
