"""Every key of the three files, with the extreme values of its type: refused in one line, or of use to who uses it.

The walk goes by the types, so a key that is added tomorrow is tried tomorrow.
"""

from __future__ import annotations

import json
import math
import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
from msgspec import inspect

from aggregator.config import AggregatorConfig
from aggregator.coordinator import Coordinator
from aggregator.effects import Announce, DeviceStatus, Setup
from aggregator.gates import RefusedError
from aggregator.learner import Learner, LearnerError
from aggregator.record import start
from broker import mailbox
from broker.connection import BrokerSettings
from broker.messages import Beacon, Job, Presence, Round, Submit, Version, Vitals
from broker.transport import check_topic
from broker.wire import Wire
from edge_agent.config import LEAST_EVERY_S, AgentConfig
from edge_agent.effects import Setup as ParticipantSetup
from edge_agent.participant import Participant
from edge_agent.presence import Announcer
from edge_agent.vitals import Pace
from models.chain import Chain
from models.data.dataset import Dataset
from models.job import MOST_JSON_BYTES, JobSpec, RoundsSpec
from models.lattice import initial
from models.nets import losses
from models.nets import table as nets
from models.params import subtract
from models.specs.train import OPTIMIZER_KEYS
from models.steering import Report
from models.training import train
from models.training.train import TrainingError
from runtime.settings import SettingsError, convert, load

WIRE = Wire("f")

FLOATS: list[object] = [
    *(math.inf, -math.inf, math.nan, 0.0, -0.0, -1.0, -1e300, 5e-324, 1e-300, 1e-9, 1e-3, 0.5, 1.0, 2.0, 1e9, 1e30),
    *(1e300, 1.7e308, 10**400, -(10**400), "", "1", True, []),
]
INTEGERS: list[object] = [
    *(
        0,
        -1,
        1,
        2,
        1000,
        2**31 - 1,
        2**31,
        2**53,
        2**53 + 1,
        2**63,
        2**64,
        -(2**63),
        -(2**64),
        10**400,
        0.5,
        1.0,
        1e300,
    ),
    *(math.nan, "1", True),
]
STRINGS: list[object] = [
    *("", " ", ".", "/", "a/b", "+", "#", "$", "a b", "a\n", "a\nb", "\x00", "\x1b[31m", "\x7f", "\x9b", "\u202e", "ü"),
    *(
        "a:b",
        "a.b:c",
        ":",
        "::",
        "a:",
        ":b",
        "1a:b",
        "http://h",
        "h:1883",
        "::1",
        "a..b",
        "a" * 64,
        "a" * 65,
        "a" * 254,
    ),
    *("a" * 100_000, "ü" * 63, "every 1", "every 0", "every 1000000", 1, True, []),
]
ANYTHING: list[object] = [
    *({}, {"a": 1}, {"a": math.inf}, {"a": math.nan}, {"a": 2**64}, {"a": [1, {"b": [True, "c", 0.5]}]}, {"\n": 1}),
    {"a": "x" * 300_000},
    {f"k{n}": n for n in range(20_000)},
]


class Key(NamedTuple):
    path: tuple[str, ...]
    values: list[object]


def keys(info: inspect.Type, path: tuple[str, ...] = ()) -> Iterator[Key]:
    """Name every key of a struct with what is to be tried there."""
    match info:
        case inspect.Metadata():
            yield from keys(info.type, path)
        case inspect.UnionType():
            for one in info.types:
                yield from keys(one, path)
        case inspect.StructType():
            for field in info.fields:
                yield from keys(field.type, (*path, field.encode_name))
        case inspect.DictType() if isinstance(info.value_type, inspect.AnyType):
            yield Key(path, ANYTHING)
        case inspect.DictType():
            yield from keys(info.value_type, (*path, "some"))
            below = VALID.get(path[-1], VALID.get(path[0], "v"))
            yield Key(path, [{}, *({name: below} for name in STRINGS if isinstance(name, str))])
            yield Key(path, [{f"k{n}": below for n in range(count)} for count in (64, 65, 1000)])
        case inspect.VarTupleType():
            items = [value for key in keys(info.item_type, path) for value in key.values]
            yield Key(path, [[], *([item] for item in items), [items[0]] * 65, [1] * 65, ["a"] * 1000, "a"])
        case inspect.TupleType():
            items = [value for key in keys(info.item_types[0], path) for value in key.values]
            yield Key(
                path, [[], [1.0], [1.0, 2.0, 3.0], *([item, 1e3] for item in items), *([0.5, item] for item in items)]
            )
        case inspect.FloatType():
            yield Key(path, [*FLOATS, *bounds(info)])
        case inspect.IntType():
            yield Key(path, [*INTEGERS, *bounds(info)])
        case inspect.BoolType():
            yield Key(path, [True, False, 0, 1, "true"])
        case inspect.StrType():
            yield Key(path, STRINGS)
        case inspect.LiteralType():
            yield Key(path, [*info.values, *STRINGS])
        case inspect.NoneType():
            pass
        case _:
            raise AssertionError(f"the walk does not know {info} at {path}: teach it")


def bounds(info: inspect.IntType | inspect.FloatType) -> list[object]:
    """Return what is just allowed, and what just is not."""
    limits = [limit for limit in (info.ge, info.gt, info.le, info.lt) if limit is not None]
    if isinstance(info, inspect.IntType):
        return [int(limit) + step for limit in limits for step in (-1, 0, 1)]
    return [math.nextafter(limit, to) for limit in limits for to in (-math.inf, limit, math.inf)]


_FILE = {"path": "x.csv"}
VALID: dict[str, object] = {"data": _FILE, "tests": _FILE, "ranges": [0.0, 1.0], "class_weight": 2.0}
JOB = {"name": "j", "model": {"inputs": 12, "hidden": [1], "outputs": 2}}
FILES: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "job.toml": (JobSpec, JOB),
    "agent.toml": (AgentConfig, {"fleet": "f", "device": "d", "data": {"some": {"path": "x.csv"}}}),
    "aggregator.toml": (AggregatorConfig, {"fleet": "f", "tests": {"some": {"path": "x.csv"}}}),
}

LIVE = {"fleet": "f", "device": "d", "data": {"some": {"mqtt": {"topics": {"t": "hall/t"}}}}}
"""What a key of a live source stands in."""
ADAM = JOB | {"train": {"optimizer": "adam"}}
"""What a key of Adam stands in."""


TABLES: dict[str, dict[str, Any]] = {"window": {"length": 2}}
"""Tables that cannot do without a key, as they are where another key of theirs is tried."""


def with_value(tree: dict[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    if len(path) == 1:
        return {**tree, path[0]: value}
    below = tree.get(path[0], TABLES.get(path[0]))
    return {**tree, path[0]: with_value(below if isinstance(below, dict) else {}, path[1:], value)}


def toml(value: object) -> str:
    """Write a value as TOML."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value).replace("\x7f", "\\u007f")
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return f"{{{', '.join(f'{toml(name)} = {toml(below)}' for name, below in value.items())}}}"
        case _:
            return repr(value)


def cases() -> Iterator[Any]:
    for file, (kind, _) in FILES.items():
        for key in keys(inspect.type_info(kind)):
            yield pytest.param(file, key, id=f"{file}-{'.'.join(key.path)}-{len(key.values)}")


@pytest.mark.parametrize(("file", "key"), list(cases()))
def test_an_extreme_value_is_refused_in_one_line_or_is_of_use(file: str, key: Key, tmp_path: Path) -> None:
    kind, base = FILES[file]
    base = LIVE if "mqtt" in key.path else ADAM if key.path[-1] in OPTIMIZER_KEYS["adam"] else base
    for value in key.values:
        path = tmp_path / file
        path.write_text(
            "".join(f"{name} = {toml(below)}\n" for name, below in with_value(base, key.path, value).items())
        )
        try:
            found = load(path, kind)
        except SettingsError as error:
            assert_tells(str(error), path, key, value)
        else:
            USES[file](found)


def assert_tells(line: str, path: Path, key: Key, value: object) -> None:
    """The line names file, table and key, and is one."""
    assert line.startswith(f"{path}: ")
    assert line.isprintable(), line
    assert len(line) < 1000 + len(str(path)), value
    words = line.removeprefix(f"{path}: ")
    *tables, name = key.path
    if name == "some":
        name = tables.pop()
    place = ".".join(tables)
    named = f"{name}:" if not tables else f"[{place}"
    assert words.startswith((named, f"[{'.'.join(key.path)}", f"[{name}")) or f"[{place}" in words, (value, words)
    assert re.search(rf"\b{name}\b", words), (value, words)


# Who uses the values.


def use_job(spec: JobSpec) -> None:
    """Everything that a job goes through, in small: the wire, a device's training, the fold, a version, a round."""
    tree = msgspec.to_builtins(spec)
    sent = WIRE.unpack(WIRE.pack(Job("j-1", 2**40, tree, Version(2**32, 2**32))))
    assert isinstance(sent, Job)
    assert convert(sent.spec, JobSpec, "job") == spec
    asked = WIRE.unpack(WIRE.pack(Submit("c", "r" * 500, tree)))
    assert isinstance(asked, Submit)
    use_rounds(spec)
    if not nets.factories_of(spec.model) and spec.model.framework != "torch":
        use_model(spec)


def use_rounds(spec: JobSpec) -> None:
    coordinator = Coordinator(
        Setup(rules=spec.rounds, seed=spec.seed, base=Version(1, 0), max_examples=spec.aggregate.max_examples), 0.0
    )
    now, effects = 0.0, []
    for number in range(5):
        effects += coordinator.receive(DeviceStatus(f"d{number}", online=True, ready=True, why=""), now)
    for _ in range(5):
        deadline = coordinator.deadline
        if deadline is None:
            break
        assert deadline - now > 0.099 or deadline == now == 0.0
        now = deadline
        effects += coordinator.tick(now)
    for effect in effects:
        if isinstance(effect, Announce):
            told = Round("j-1", 1, Version(1, 0), math.ceil(effect.seconds_left), threshold=effect.attempt.threshold)
            assert WIRE.unpack(WIRE.pack(told)) == told
    Participant(ParticipantSetup(device="d", job="j-1", spec=spec), Random(0))  # noqa: S311 -- jitter


def use_model(spec: JobSpec) -> None:
    net = nets.build(spec.model)
    X = np.random.default_rng(0).standard_normal((5, spec.model.inputs)).astype(np.float32)
    loss = losses.of(spec.model)
    n_classes, n_columns = loss.n_classes, loss.n_columns
    y = np.arange(5) % n_classes if loss.task == "classes" else np.ones((5, n_columns), np.float32)
    learner = Learner(net, spec, start(net, spec).to_bytes())
    params = initial(net.spec, spec.seed).params(net.spec)
    state = train.begin(params, b"s")
    try:
        for n, step in enumerate(train.steps(net, state, Dataset(X, y), spec.train, version_number=3)):
            state = step.state
            if n == 2:
                break
    except TrainingError:
        return  # it diverged and says so
    rng = np.random.default_rng(0)
    chain = Chain(net.spec, spec)
    for number in range(3):
        body = chain.coding(number, learner.terms).encode(subtract(state.params, params), rng)
        before = learner.now.held
        try:
            learner.admit(body, 10, Report(0.5, 0.1))
            following = learner.next()
        except RefusedError:
            return  # its norm is far from the model's, and it is told so
        except LearnerError:
            return  # a step beyond what a model can be ends the job
        Learner(net, spec, following.to_bytes(), number + 1, following.sha256)
        told = Round("j-1", 1, Version(1, number), 60.0, terms=(*learner.terms, learner.now.record.octave))
        assert WIRE.unpack(WIRE.pack(told)) == told
        learner.take(following)
        for begin, body in following.ways:
            found = chain.take(before if begin == number else chain.first(), number + 1, body)
            assert found.sha256() == following.sha256


def use_broker(broker: BrokerSettings) -> None:
    with socket.socket() as sock:
        sock.settimeout(broker.connect_timeout_s)
    with suppress(UnicodeError):  # which `load_agent` and `load_aggregator` say
        broker.host.encode("idna")
    assert len((broker.username or "").encode()) < 2**16
    for name in (broker.password_file, broker.ca_file, broker.certificate_file, broker.key_file):
        use_path(name or "x")


def use_path(name: str) -> None:
    with suppress(OSError):  # too long a name, which they say too
        Path(name).is_file()


def use_agent(config: AgentConfig) -> None:
    use_broker(config.broker)
    use_path(config.state_dir)
    presence = Presence(config.device or "d", 1, online=True, labels=config.labels)
    assert Wire(config.fleet).unpack(Wire(config.fleet).pack(presence)) == presence
    announcer = Announcer(config.limits.presence_s)
    changes = [(n / 100, msgspec.structs.replace(presence, software=str(n))) for n in range(100)]
    assert sum(announcer.allows(change, now) for now, change in changes) <= 15  # of a hundred in a second
    assert announcer.due_at(presence) <= 86_401
    assert 0 <= config.limits.checkpoint_s <= 86_400
    pace = Pace(config.vitals.every_s)
    pace.forget(0.0, 0.0)
    vitals = [(n / 10, Vitals("d", 1, heat=float(n))) for n in range(1000) if config.vitals.every_s]
    said = 0
    for now, one in vitals:
        if pace.is_due(one, now):
            pace.say(one, 100, now)
            said += 1
    assert said <= 1 + 100 / LEAST_EVERY_S
    for source in config.data.values():
        use_path(source.path)


def use_aggregator(config: AggregatorConfig) -> None:
    use_broker(config.broker)
    use_path(config.state_dir)
    beacon = Beacon(1, "n", online=True, spread_s=config.limits.spread_s)
    assert Wire(config.fleet).unpack(Wire(config.fleet).pack(beacon)) == beacon
    check_topic(Wire(config.fleet).pack(beacon).topic)
    assert config.limits.chunk_bytes + 1000 <= mailbox.ClientLimits().packet_bytes  # what our own client takes
    setup = Setup(
        rules=RoundsSpec(),
        seed=1,
        base=Version(1, 0),
        heartbeat_s=config.limits.heartbeat_s,
        max_body_bytes=config.limits.unassembled_bytes,
    )
    coordinator = Coordinator(setup, 0.0)
    coordinator.receive(DeviceStatus("d", online=True, ready=True, why=""), 0.0)
    coordinator.tick(0.0)
    assert coordinator.deadline is not None
    assert coordinator.deadline >= 0.1
    assert math.isfinite(1e9 + config.limits.body_grace_s)


USES = {"job.toml": use_job, "agent.toml": use_agent, "aggregator.toml": use_aggregator}


def test_a_job_that_just_fits_can_be_submitted_and_announced() -> None:
    def job(n_bytes: int) -> JobSpec:
        model = {"inputs": 3, "hidden": [4], "outputs": 2, "options": {"a": "x" * n_bytes}}
        return convert({"name": "j", "model": model}, JobSpec, "job.toml")

    room = MOST_JSON_BYTES - len(msgspec.json.encode(job(0)))
    use_job(job(room))
    with pytest.raises(SettingsError, match="258,049 bytes as JSON where 258,048 can travel"):
        job(room + 1)
