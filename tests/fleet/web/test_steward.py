"""The page in a fleet with keys: it acts by a steward's, and holds no key that is good for jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from broker.connection import BrokerSettings
from broker.embedded import EmbeddedBroker
from fleet.cli import main
from fleet.local import stage
from fleet.local.keys import LocalKeys, make
from fleet.local.processes import FEDGE, Children
from fleet.local.toml import written
from fleet.sight.process import Looking, Speaker, only_looks, read, refuse_keys_of_jobs, speaker_of
from fleet.web.orders import Order, sender
from identity.keys import SigningKey, text_of, write_key
from identity.settings import IdentitySettings
from identity.trust import read_trust, write_trust
from models.job import JobSpec, ModelSpec
from runtime.settings import SettingsError
from tests.fleet.conftest import JOB, blobs

Until = Callable[[Callable[[], bool]], None]


@pytest.fixture
def keys(tmp_path: Path) -> LocalKeys:
    """The keys of a fleet with a steward."""
    made = make(tmp_path / "keys", stage.FLEET, ["device-00"])
    steward, file = SigningKey.generate(), tmp_path / "keys" / "trust.json"
    write_key(tmp_path / "keys" / "page.key", steward)
    write_trust(file, structs.replace(read_trust(file), format=2, stewards={"page": text_of(steward.public)}))
    return made


class Files:
    """The files of a fleet with a page, which is somebody's."""

    def __init__(self, keys: LocalKeys, folder: Path, port: int = 1) -> None:
        self.keys, self.folder, self.port = keys, folder, port

    def of(self, name: str | None) -> Path:
        """Return an operator.toml with this key."""
        identity = {"trust": self.keys.of_operator.trust}
        if name is not None:
            identity["message_key"] = str(self.folder / "keys" / f"{name}.key")
        path = self.folder / f"{name}.toml"
        path.write_text(written({"fleet": stage.FLEET, "broker": {"port": self.port}, "identity": identity}))
        return path

    def page_of(self, name: str | None) -> Path:
        """Return an aggregator.toml whose page speaks as this one."""
        users = self.folder / "users.toml"
        tables: dict[str, Any] = {"fleet": stage.FLEET, "observer": {"config": str(self.of(name))}}
        tables["web"] = {"bind": "127.0.0.1:0", "users_file": str(users)}
        path = self.folder / "web.toml"
        path.write_text(written(tables))
        return path

    def looking(self, name: str | None) -> tuple[Looking, Speaker]:
        looking = read(self.page_of(name))
        return looking, speaker_of(looking)


@pytest.mark.parametrize("name", ["operator", "aggregator"])
def test_a_page_with_a_key_that_is_good_for_more_does_not_start(
    keys: LocalKeys, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["web", "run", "--config", str(Files(keys, tmp_path).page_of(name))]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "message_key" in said
    with pytest.raises(SettingsError, match="may sign jobs"):
        refuse_keys_of_jobs(*Files(keys, tmp_path).looking(name))


def test_a_steward_acts_and_who_has_no_key_is_told_that_it_only_looks(keys: LocalKeys, tmp_path: Path) -> None:
    files = Files(keys, tmp_path)
    looking, speaker = files.looking("page")
    refuse_keys_of_jobs(looking, speaker)
    assert only_looks(looking, speaker) == ""
    looking, speaker = files.looking(None)
    refuse_keys_of_jobs(looking, speaker)
    assert "signed commands alone" in only_looks(looking, speaker)
    assert "no users_file" in only_looks(structs.replace(looking, web=type(looking.web)()), speaker)
    assert "as nobody" in only_looks(structs.replace(looking, observer=type(looking.observer)()), speaker)


@pytest.mark.slow
def test_a_real_aggregator_takes_a_stewards_pause_and_not_its_job(
    keys: LocalKeys, tmp_path: Path, mosquitto: EmbeddedBroker, until: Until, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = BrokerSettings(port=mosquitto.port, protocol=mosquitto.protocol)
    spec = JobSpec("blobs", ModelSpec("mlp", 4, (8,), 3))
    plan = stage.build(tmp_path / "fleet", spec, [blobs(30)], blobs(30, 1), broker, inference=False, keys=keys)
    job, files = tmp_path / "job.toml", Files(keys, tmp_path, mosquitto.port)
    job.write_text(JOB.format(name="blobs", max_rounds=5))
    with Children() as children:
        run = [*FEDGE, "aggregator", "run", "--config", str(plan.aggregator.config)]
        children.start("aggregator", run, plan.aggregator.log)
        until(lambda: "leads" in plan.aggregator.log.read_text())
        assert main(["job", "submit", str(job), "--config", str(files.of("page"))]) == 2
        assert "it is a steward's" in capsys.readouterr().err
        assert main(["job", "submit", str(job), "--config", str(files.of("operator"))]) == 0
        identity = IdentitySettings(keys.of_operator.trust, str(tmp_path / "keys" / "page.key"))
        send = sender(stage.FLEET, broker, identity)
        paused = send(Order("pause", "blobs"), "0" * 32, "anna.b")
        assert paused.is_done, paused.text
        away = send(Order("quarantine", "device-00", "burnt"), "1" * 32, "anna.b")
        assert away.is_done, away.text
        assert "burnt (anna.b)" in plan.aggregator.log.read_text() + away.text
        again = send(Order("roll-back", "blobs", "7"), "2" * 32, "anna.b")
        assert not again.is_done
        observer = sender(stage.FLEET, broker, structs.replace(identity, message_key=None))
        refused = observer(Order("resume", "blobs"), "3" * 32, "anna")
        assert not refused.is_done
        assert "signed commands alone" in refused.text
