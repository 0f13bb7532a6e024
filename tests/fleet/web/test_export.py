"""A model of a job as the page gives it: written by the real command, of a real aggregator, and read by onnxruntime."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest

from aggregator.looking_on import WebSettings
from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker
from broker.wire import Wire
from fleet.cli import main
from fleet.local import stage
from fleet.local.processes import Children
from fleet.problems.partition import deal
from fleet.problems.problem import dealt
from fleet.sight.lookout import lookout_on
from fleet.sight.store_readings import StoreSource
from fleet.web import export
from fleet.web.app import app
from fleet.web.export import MOST_WAITING, Exporter, ExportFailedError
from fleet.web.site import MissingError
from models.job import JobSpec, ModelSpec
from runtime.children import NOT_THERE
from tests.fleet.conftest import JOB as SPEC
from tests.fleet.conftest import Until, blobs
from tests.fleet.web.made import HOSTILE, JOB, Asking, MadeLookout, view

NAME = "--out"
"""Of a job: a name may begin as an option does."""


def said_by(answer: httpx.Response) -> dict[str, str]:
    """Return what a model says of itself, which answers one row for each of two."""
    session = onnxruntime.InferenceSession(answer.content, providers=["CPUExecutionProvider"])
    (inputs,) = session.get_inputs()
    assert len(session.run(None, {inputs.name: np.zeros((2, 4), np.float32)})[0]) == 2
    return dict(session.get_modelmeta().custom_metadata_map)


@pytest.mark.long
@pytest.mark.slow
def test_every_version_that_is_kept_is_given_and_of_others_a_sentence(
    mosquitto: EmbeddedBroker, tmp_path: Path, until: Until
) -> None:
    data, where = blobs(120), BrokerSettings(port=mosquitto.port, protocol=mosquitto.protocol)
    (tmp_path / "fleet").mkdir()
    spec = JobSpec("blobs", ModelSpec("mlp", 4, (8,), 3))
    shares = dealt(data, deal("iid", data.y, 2, 0))
    built = stage.build(tmp_path / "fleet", spec, shares, blobs(60, seed=1), where)
    config, job = built.aggregator.config, tmp_path / "job.toml"
    job.write_text(SPEC.format(name=NAME, max_rounds=6) + "keep_every = 4\n", encoding="utf-8")
    with Children() as children:
        stage.start(children, built)
        until(lambda: "leads" in built.aggregator.log.read_text())
        assert main(["job", "submit", str(job), "--config", str(config)]) == 0
        lookout = lookout_on(where, Wire(stage.FLEET), StoreSource(built.aggregator.state))
        with lookout:
            until(lambda: any(one.state == "finished" for one in lookout.view.jobs.values()))
            (id_,) = lookout.view.jobs
            ask = Asking(app(lookout, WebSettings(), Exporter(config))).get

            answer = ask(f"/jobs/{id_}/model.onnx?version=last")
            assert answer.headers["content-disposition"] == f'attachment; filename="{id_}.onnx"'
            assert said_by(answer)["version"] == "1.6"
            assert said_by(ask(f"/jobs/{id_}/model.onnx"))["version"] == "1.6", "what devices serve"
            best = said_by(ask(f"/jobs/{id_}/model.onnx?version=best"))["version"]
            until(lambda: best == f"1.{lookout.view.jobs[id_].best}")  # the page calls the same one the best
            for number in ("4", "1.4"):
                assert said_by(ask(f"/jobs/{id_}/model.onnx?version={number}"))["version"] == "1.4"

            gone = next(number for number in (1, 2, 3, 5) if best != f"1.{number}")
            answer = ask(f"/jobs/{id_}/model.onnx?version={gone}")
            assert answer.status_code == 404
            assert f'<p class="note">version {gone} of {id_} is not kept; these are: ' in answer.text
        children.check()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/jobs/nobody/model.onnx", 404),
        ("/jobs/--help/model.onnx", 404),
        ("/jobs/%3Cscript%3E/model.onnx", 404),
        ("/jobs/..%2f..%2fetc/model.onnx", 404),
        (f"/jobs/{JOB}/model.onnx?version=--help", 400),
        (f"/jobs/{JOB}/model.onnx?version=-1", 400),
        (f"/jobs/{JOB}/model.onnx?version=best%0a", 400),
    ],
)
def test_what_is_no_job_and_no_version_starts_no_process(path: str, status: int) -> None:
    assert Asking(app(MadeLookout(), WebSettings(), Refusing())).get(path).status_code == status


class Refusing(Exporter):
    """Says that it was asked."""

    def __init__(self, why: str = "") -> None:
        super().__init__(Path("nowhere"))
        self._why = why

    async def export(self, _job: str, _version: str = "") -> object:  # type: ignore[override]  # it gives nothing
        assert self._why, "a process was started"
        raise ExportFailedError(self._why)


def test_why_there_is_no_model_is_shown_as_text() -> None:
    answer = Asking(app(MadeLookout(view()), WebSettings(), Refusing(HOSTILE))).get(f"/jobs/{JOB}/model.onnx")
    assert answer.status_code == 503
    assert "<script>alert" not in answer.text
    assert "&lt;script&gt;alert" in answer.text


@pytest.mark.parametrize("job", ["--out", "digits-0123abcd"])
def test_a_name_like_an_option_is_a_name_and_an_error_is_its_last_line(tmp_path: Path, job: str) -> None:
    missing = tmp_path / "operator.toml"
    with pytest.raises(ExportFailedError, match=f"^{missing}: there is no such file"):
        asyncio.run(Exporter(missing).export(job))


def test_a_version_that_is_not_kept_is_missing_and_the_rest_are_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for code, kind in ((NOT_THERE, MissingError), (1, ExportFailedError)):
        told = f"import sys; print('fedge: version 3 is not kept', file=sys.stderr); sys.exit({code})"
        monkeypatch.setattr(export, "COMMAND", (sys.executable, "-c", told))
        with pytest.raises(kind, match=r"^version 3 is not kept$"):
            asyncio.run(Exporter(tmp_path).export("digits", "3"))


def test_few_wait_for_the_one_that_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "COMMAND", (sys.executable, "-c", "raise SystemExit('fedge: no')"))

    async def flood() -> list[BaseException | object]:
        exporter = Exporter(tmp_path / "operator.toml")
        asked = (exporter.export(JOB) for _ in range(MOST_WAITING + 1))
        return await asyncio.gather(*asked, return_exceptions=True)

    *waited, last = (str(error) for error in asyncio.run(flood()))
    assert "Other models are being written" in last
    assert waited == ["no"] * MOST_WAITING
