from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from aggregator import signed
from aggregator.database import DamageError
from aggregator.signed import SignedSpec
from aggregator.store import Store
from broker.messages import Job, Submit, Version
from models.job import JobSpec, ModelSpec

SPEC = {"name": "toy", "model": {"inputs": 4, "outputs": 2}, "seed": 1.0}
SIGNATURE = "A" * 86 + "=="
SIGNED = SignedSpec(SPEC, "ada", SIGNATURE, "0000000a")
JOB = "toy-0000000a"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    one = Store(tmp_path, synced=False)
    yield one
    one.close()


def test_a_command_without_a_signature_has_none() -> None:
    assert signed.of(Submit("cli", "r", SPEC)) is None


def test_what_was_signed_is_said_verbatim_with_every_announcement() -> None:
    found = signed.of(Submit("cli", "r", SPEC, incarnation="0000000a", operator="ada", signature=SIGNATURE))
    assert found == SIGNED
    assert SIGNED.said(JOB, 7, Version(1, 2)) == Job(JOB, 7, SPEC, Version(1, 2), "ada", SIGNATURE)


@pytest.mark.parametrize("half", [{"incarnation": "0000000a"}, {"signature": SIGNATURE}])
def test_half_of_a_signature_is_refused(half: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="the eight digits of its id"):
        signed.of(Submit("cli", "r", SPEC, **half))


def test_it_lies_in_the_store_until_its_job_is_deleted(store: Store) -> None:
    spec = JobSpec("toy", ModelSpec(inputs=4, outputs=2))
    assert signed.read(store, JOB) is None
    signed.keep(store, JOB, SIGNED)
    store.add_job(JOB, spec, "00" * 32, b"", {})
    assert signed.read(store, JOB) == SIGNED
    store.add_job("toy-0000000b", spec, "00" * 32, b"", {}, replaces=[JOB])
    assert signed.read(store, JOB) is None


def test_it_is_forgotten_where_the_job_was_not_begun(store: Store) -> None:
    signed.keep(store, JOB, SIGNED)
    signed.drop(store, JOB)
    assert signed.read(store, JOB) is None


def test_damage_is_named(store: Store) -> None:
    store.set_note(f"signed:{JOB}", "{")
    with pytest.raises(DamageError, match=f"the signature of job {JOB} is damaged"):
        signed.read(store, JOB)
