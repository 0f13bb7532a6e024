"""What keys and TLS cost: the three fleets of real processes at a real mosquitto with deploy's configurations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from benchmarks import secured
from benchmarks.costs import Cost

INPUTS, OUTPUTS, DEVICES, ROUNDS = 48, 5, 3, 9
MOST_DOWN, MOST_UP = 75, 20
"""Bytes of a device and round that message keys may cost."""
CERTIFICATE = 300
"""Bytes that one has at least; the broker shows its own, and each device."""
JOB = """\
name = "activity"
deploy = "never"
[model]
inputs = 48
hidden = [64]
outputs = 5
[train]
batch_size = 10
[rounds]
deadline_s = 600
[rounds.stop]
target = 0.01
"""


def rows_of(path: Path, n: int, seed: int) -> str:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % OUTPUTS
    X = rng.standard_normal((n, INPUTS)) + 0.5 * y[:, None]
    np.savez(path, X=X.astype(np.float32), y=y, owner=np.arange(n) // OUTPUTS % DEVICES)
    return str(path)


@pytest.mark.long
def test_keys_cost_as_little_as_they_may_and_neither_they_nor_tls_change_the_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.toml").write_text(JOB)
    train, test = rows_of(tmp_path / "train.npz", 120, 0), rows_of(tmp_path / "test.npz", 50, 1)
    options = ["--data", train, "--test", test, "--partition", "column:owner", "--rounds", str(ROUNDS)]
    file = tmp_path / "costs.json"
    assert secured.main([str(tmp_path / "job.toml"), *options, "--json", str(file)]) == 0
    bare, keys, tls = (Cost(**one) for one in json.loads(file.read_text()))
    assert [cost.kind for cost in (bare, keys, tls)] == ["passwords", "keys", "keys, TLS"]
    assert [(cost.devices, cost.rounds) for cost in (bare, keys, tls)] == [(DEVICES, ROUNDS)] * 3, "no target ends it"
    assert bare.sha256 == keys.sha256[: len(bare.sha256)]
    assert keys.sha256 == tls.sha256
    assert len(tls.sha256) == 64
    assert 0 < keys.up - bare.up <= MOST_UP
    assert 0 < keys.down - bare.down <= MOST_DOWN
    # A record of TLS 1.3 adds 22 bytes: 5 of head, 1 of type, 16 of tag (RFC 8446, section 5.2).
    assert tls.up - keys.up >= 22
    assert tls.down - keys.down >= 22
    assert tls.joined_up - keys.joined_up > CERTIFICATE
    assert tls.joined_down - keys.joined_down > CERTIFICATE
    for cost in (bare, keys, tls):
        assert min(cost.round_s, cost.aggregator_ms, cost.broker_ms, cost.agent_ms) > 0
        assert all(5 < mb < 500 for mb in (cost.aggregator_mb, cost.broker_mb, cost.agent_mb))
    printed = capsys.readouterr().out
    assert f"keys beside passwords, bytes of a device up and down: {keys.up - bare.up:+.1f}" in printed
    assert tls.sha256 in printed


def cost(kind: str, sha256: str, **figures: float) -> Cost:
    plain = dict.fromkeys((name for name, kind in Cost.__annotations__.items() if kind == "float"), 1.0)
    return Cost(kind=kind, devices=2, rounds=9, accuracy=0.5, sha256=sha256, **plain | figures)


def test_models_are_compared_by_as_much_of_a_hash_as_all_of_them_say() -> None:
    bare, keys = cost("passwords", "ab" * 16), cost("keys", "ab" * 32)
    assert secured.is_same([bare, keys])
    assert not secured.is_same([bare, structs.replace(keys, sha256="ac" * 32)])
    assert not secured.is_same([keys, structs.replace(keys, sha256="ab" * 31 + "ac")])


def test_a_row_is_the_median_of_its_runs() -> None:
    three = [cost("keys", "ab", up=up, agent_ms=ms) for up, ms in ((1.0, 9.0), (5.0, 7.0), (2.0, 8.0))]
    assert secured.median(three) == cost("keys", "ab", up=2.0, agent_ms=8.0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--rounds", "3"], "3 are too few: 3 are run by themselves"),
        (["--devices", "0"], "0 is no number from 1 on"),
        (["--json", "/nowhere/at/all.json"], "--json /nowhere/at/all.json: there is no such folder"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_starts(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        secured.main(options)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_a_job_that_wants_more_devices_than_there_are_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "job.toml").write_text(JOB.replace("deadline_s = 600", "quorum = 4"))
    data = rows_of(tmp_path / "train.npz", 120, 0)
    assert secured.main([str(tmp_path / "job.toml"), "--data", data, "--partition", "column:owner"]) == 2
    assert "quorum = 4 is more than the 3 devices" in capsys.readouterr().err
