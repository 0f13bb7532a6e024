from __future__ import annotations

import random

import msgspec
import pytest

from broker import topics
from broker.errors import WireError
from broker.messages import Beacon, Job
from broker.transport import Packet
from edge_agent.config import ModelSettings
from edge_agent.resources import Resources
from models.job import JobSpec, ModelSpec
from models.nets.net import ModelError
from runtime.settings import SettingsError

SPEC = JobSpec("j", ModelSpec(inputs=3, outputs=2), seed=5)


def test_a_device_by_itself_reads_packets_and_jobs_as_they_come() -> None:
    beacon = Beacon(3, "n", online=True)
    assert Resources().message(topics.pack(beacon, "f"), "f") == beacon
    with pytest.raises(WireError, match="is not of this fleet"):
        Resources().message(topics.pack(beacon, "f"), "g")
    with pytest.raises(WireError, match="aggregator: "):
        Resources().message(Packet("fedge/1/f/aggregator", b"{"), "f")
    assert Resources().spec(Job("j-1", 1, msgspec.to_builtins(SPEC))) == SPEC
    with pytest.raises(SettingsError, match="j-1"):
        Resources().spec(Job("j-1", 1, {"name": 3}))


def test_a_device_by_itself_builds_its_own_net_and_chain_each_time() -> None:
    (net, chain), (_, other) = (Resources().chain("j-1", SPEC, ModelSettings()) for _ in range(2))
    assert net.model == SPEC.model
    assert chain is not other
    assert chain.first().sha256() == other.first().sha256()
    with pytest.raises(ModelError, match="may not run here"):
        Resources().chain("j-1", JobSpec("j", ModelSpec(kind="a:b")), ModelSettings())


def test_jitter_follows_from_its_seed() -> None:
    expected = random.Random("device-1/1/n")  # noqa: S311
    jitter = Resources().jitter("device-1/1/n")
    assert [jitter.random() for _ in range(5)] == [expected.random() for _ in range(5)]
