"""How a device scores a version on the rows that it holds back."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent import evaluating
from edge_agent.evaluating import Scoring
from models import sections
from models.contract import ContractSpec
from models.data.dataset import Dataset
from models.job import JobSpec, ModelSpec, RoundsSpec, StopSpec
from models.lattice import initial
from models.measures import tally
from models.nets.table import build

MODEL = ModelSpec(inputs=4, hidden=(5,), outputs=3)
SPEC = JobSpec("j", MODEL, contract=ContractSpec(validation=0.2))
NET = build(MODEL)
PARAMS = initial(NET.spec, 7).params(NET.spec)


def rows(n: int) -> Dataset:
    rng = np.random.default_rng(n)
    return Dataset(rng.standard_normal((n, 4)).astype(np.float32), rng.integers(0, 3, n))


def scored(held_out: Dataset | None, spec: JobSpec = SPEC) -> Scoring:
    scoring = Scoring(NET, lambda: PARAMS, held_out, spec)
    for _ in scoring.steps():
        pass
    return scoring


def test_it_comes_to_the_tally_of_all_rows() -> None:
    data = rows(300)
    whole = tally.tally(MODEL, NET.predict(PARAMS, data.X), data.y, curves=False)
    found = tally.from_bytes(scored(data).section, MODEL)
    assert (found.n, found.sums) == (whole.n, whole.sums)
    assert np.array_equal(found.counts, whole.counts)


def test_pauses_between_steps_change_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluating, "ROWS", 64)
    data = rows(300)
    at_once, paused = scored(data).section, Scoring(NET, lambda: PARAMS, data, SPEC)
    n_steps = 0
    while next(paused.steps(), paused) is not paused:  # begun anew each time
        n_steps += 1
    assert n_steps == 5
    assert paused.section == at_once


def test_a_wide_net_takes_few_rows_in_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluating, "CELLS", 40)
    assert len(list(Scoring(NET, lambda: PARAMS, rows(100), SPEC).steps())) == 10


def test_nothing_is_said_where_nothing_is_held_back_or_the_job_does_not_ask() -> None:
    assert scored(None).section == b""
    assert scored(rows(20), JobSpec("j", MODEL)).section == b""


def test_the_section_fits_what_the_job_lets_in() -> None:
    limits = sections.allowed(SPEC, NET.spec)
    for n in (1, 20, 5000):
        section = scored(rows(n)).section
        body = sections.join({sections.DELTA: b"1234", sections.EVALUATION: section})
        assert sections.split(body, limits)[sections.EVALUATION] == section


def test_without_histograms_a_device_pays_a_few_bytes() -> None:
    """Only AUC and average precision want them, and only a job that is stopped by one of these has them."""
    section = scored(rows(200)).section
    assert not sections.curves_of(SPEC)
    assert not tally.from_bytes(section, MODEL).layout.curves
    assert len(section) < 40


def test_a_job_that_is_stopped_by_an_auc_has_them() -> None:
    spec = JobSpec("j", MODEL, contract=SPEC.contract, rounds=RoundsSpec(stop=StopSpec(metric="auc", target=0.9)))
    section = scored(rows(200), spec).section
    assert tally.from_bytes(section, MODEL).layout.curves == 3
    assert 40 < len(section) <= sections.allowed(spec, NET.spec)[sections.EVALUATION]


def test_an_answer_that_is_not_finite_is_no_reason_to_stop() -> None:
    broken = {name: np.full_like(values, np.nan) for name, values in PARAMS.items()}
    scoring = Scoring(NET, lambda: broken, rows(20), SPEC)
    list(scoring.steps())
    assert tally.from_bytes(scoring.section, MODEL).broken == 20
