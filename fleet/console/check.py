"""`--check`: look at a file and at everything it names, as a start would, and say of each thing what it is.

    agent.toml         every data source is read, factories are imported; password, certificates, state_dir are tried
    aggregator.toml    the same, with the test splits
    job.toml           the net is built and takes a step; so it does on the test split that aggregator.toml has for it

What is wrong is said with the file and the place, everything at once. What is merely worth knowing does not make a file
bad: a factory that is not installed here; a state directory that is in use, since files are looked at before a restart.
Nothing is connected to, and nothing stays on the disk. A data file or a factory is a stranger's: whatever it throws
becomes a line.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import importlib
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from msgspec import Struct, field, structs

from aggregator.capacity import capacity
from aggregator.capacity import capacity_of as of_aggregator
from aggregator.config import ModelSettings, ServerLimits
from aggregator.starting import of_net
from broker.connection import BrokerSettings
from broker.credentials import certificate_concerns, exposed, read_password, tls_context, validity
from edge_agent.capacity import capacity_of as of_agent
from edge_agent.live.settings import DeviceSource, live_sources
from edge_agent.resources import Resources
from fleet.concerns import list_concerns
from fleet.console.live import look
from fleet.factories import find_beside
from fleet.identity import wire_of_aggregator
from fleet.roles import load_agent, load_aggregator
from identity.keys import fingerprint
from identity.registry import RegistryError, read_registry
from identity.settings import IdentitySettings, ServerIdentity
from models import needs
from models.budget import Capacity, Refusal, said
from models.chain import Chain
from models.data.dataset import Dataset, DatasetError, KindError, fit
from models.data.source import DataSource, FilePath
from models.data.source import load as load_source
from models.job import JobSpec, Name
from models.lattice import initial
from models.nets import losses
from models.nets import table as nets
from models.nets.finetune import n_frozen
from models.nets.losses import Labels
from models.nets.net import ModelError, Net
from models.params import n_parameters
from runtime.faults import Fault, contain
from runtime.settings import SettingsError, load
from runtime.words import clean

EXPECTED = (SettingsError, DatasetError, ModelError)
"""Errors whose words are enough; of all others the type is said too."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
MOST_CLASSES = 100_000
"""Whole numbers up to here may be classes; a job has no more outputs."""


Facts = dict[str, int | float | str]


class Line(Struct, frozen=True):
    """One thing that was looked at. where: its table or key. facts: the numbers in the text, for scripts."""

    where: str
    text: str
    facts: Facts = {}


class CheckReport(Struct):
    """What was found in a file, and in what it names."""

    file: str
    good: bool = True
    lines: list[Line] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def look(self, where: str, at: Callable[[], Line], file: Path | None = None) -> None:
        """Look at one thing; whatever it throws is an error of this place (of another file than the report's)."""
        try:
            with contextlib.redirect_stdout(sys.stderr):  # a factory may print, and a script reads our JSON
                line = contain(at, *EXPECTED, OSError)
        except EXPECTED as error:
            self._blame(file, where, str(error))
        except OSError as error:
            self._blame(file, where, f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "))
        else:
            if isinstance(line, Fault):
                self._blame(file, where, line.why)
            else:
                self.lines.append(Line(line.where, clean(line.text, 5000), line.facts))

    def _blame(self, file: Path | None, where: str, why: str) -> None:
        self.good = False
        self.errors.append(f"{file or self.file}: {where}: {clean(why, 1000)}")


def check_agent(path: Path) -> CheckReport:
    """Look at agent.toml. Raises SettingsError when it cannot be loaded at all."""
    config, report = load_agent(path), CheckReport(str(path))
    _look_at_keys(report, config.identity, config.fleet)
    _look_at_sources(report, "data", config.data)
    report.look("[vitals]", partial(_vitals, config.vitals.every_s, Path(config.state_dir)))
    if config.vitals.textfile:
        report.look("[vitals] textfile", partial(_textfile, Path(config.vitals.textfile)))
    _look_around(report, config.models.allow, config.broker, Path(config.state_dir), of_agent(config))
    return report


def check_aggregator(path: Path, bind: str = "", *, in_container: bool = False) -> CheckReport:
    """Look at aggregator.toml. Raises SettingsError when it cannot be loaded at all.

    bind, in_container: of [web], where the command line says it.
    """
    config, report = load_aggregator(path, bind, in_container=in_container), CheckReport(str(path))
    _look_at_keys(report, config.identity, config.fleet)
    _look_at_sources(report, "tests", config.tests)
    _look_around(report, config.models.allow, config.broker, Path(config.state_dir), of_aggregator(config))
    if (registry := config.identity.registry) is not None:
        report.look("[identity] registry", partial(_registry, registry, config.fleet))
    from fleet.console.check_beside import things_beside  # what it needs, no device has

    for thing in things_beside(config, lambda speaker: _broker(speaker.broker).text):
        report.look(thing.where, partial(_of_beside, thing.where, thing.text))
    return report


class _Fleet(Struct, frozen=True):
    """What of aggregator.toml a job can be held against; an operator's own file may have none of it."""

    tests: dict[Name, DataSource] = {}
    models: ModelSettings = ModelSettings()
    limits: ServerLimits = ServerLimits()
    state_dir: FilePath | None = None


def check_job(path: Path, config: Path) -> CheckReport:
    """Look at job.toml, and at what the aggregator.toml has for it, if there is one here. Raises SettingsError."""
    spec, report = load(path, JobSpec), CheckReport(str(path))
    fleet = load(config, _Fleet) if config.exists() else None
    built: list[Net] = []
    limits = ServerLimits() if fleet is None else fleet.limits
    folder = None if fleet is None or fleet.state_dir is None else Path(fleet.state_dir)
    weighed = CheckReport(str(path))
    is_here = folder is not None or limits.memory_bytes is not None  # else its machine may be another one
    find_beside(path, spec)
    room, refused = capacity(limits, folder), list[Refusal]()
    weighed.look("[model]", partial(_tried, spec, room, refused))
    if refused and weighed.good:
        weighed.look("[limits]", partial(_fits, spec, room, refused[0], is_here=is_here))
    weighed.lines = [line for line in weighed.lines if line.text]
    if not weighed.good:  # nothing of its size is made
        return weighed
    report.look("[model]", partial(_model, spec, built, fleet))
    if built and built[0].start is not None:
        report.look("[model] start", partial(_start, spec, built[0]))
    report.lines += [Line("[model]", note) for note in room.notes(spec.name)]
    if fleet is None:
        report.lines += weighed.lines
        return report
    where, source = f"[tests.{spec.data_name}]", fleet.tests.get(spec.data_name)
    if source is not None:
        report.look(where, partial(_split, where, source, spec, built), config)
    elif spec.rounds.stop.is_set and spec.rounds.stop.metric != "loss" and not spec.contract.validation:
        why = f"{config} has no {where}, so nobody measures it, and this aggregator would refuse the job: add it"
        report.lines.append(
            Line("[rounds.stop]", f"metric = {spec.rounds.stop.metric}: {why}, or validation = 0.1 to [contract]")
        )
    report.lines += weighed.lines
    return report


def _of_beside(where: str, text: Callable[[], str]) -> Line:
    return Line(where, text())


def _look_at_sources(report: CheckReport, table: str, sources: Mapping[str, DataSource]) -> None:
    for name, source in sources.items():
        where = f"[{table}.{name}]"
        if isinstance(source, DeviceSource) and source.mqtt is not None:
            report.look(where, partial(_live, where, source))
        else:
            report.look(where, partial(_source, where, source))


def _look_at_keys(report: CheckReport, identity: IdentitySettings, fleet: str) -> None:
    """Look at the keys for messages, where there are any; what is not said of them is as before there were some."""
    if identity.trust is None and identity.message_key is None and getattr(identity, "registry", None) is None:
        return

    def look() -> Line:
        if isinstance(identity, ServerIdentity):
            wire_of_aggregator(fleet, identity)
        trust, key = identity.read_trust(fleet), identity.read_key()
        pinned = "no keys are pinned" if trust is None else f"trust.json with serial {trust.serial}"
        own = "no message_key" if key is None else f"message_key {fingerprint(key.public)}"
        return Line("[identity]", f"{pinned}, {own}")

    report.look("[identity]", look)


def _look_around(
    report: CheckReport, allow: Sequence[str], broker: BrokerSettings, state_dir: Path, capacity_: Capacity
) -> None:
    for factory in allow:
        report.look(f"[models] allow {factory}", partial(_factory, factory))
    report.look("[broker]", partial(_broker, broker))
    report.look("[limits]", partial(_budget, capacity_))
    now = dt.datetime.now(dt.UTC)
    if (holds := validity(broker)) is not None and holds.since <= now < holds.until:  # else it is an error
        report.lines += [Line("[broker]", text) for text in certificate_concerns(broker, now)]
    report.lines += [Line("[broker]", text) for text in exposed(broker.key_file, broker.password_file)]
    if broker.ca_file is None and broker.host not in LOOPBACK:
        text = (
            "without TLS: who listens on the way reads everything, passwords too; deploy/README.md, With certificates"
        )
        report.lines.append(Line("[broker]", text))
    report.look("state_dir", partial(_state_dir, state_dir))


def _vitals(every_s: float, state_dir: Path) -> Line:
    """Say what would be said of this device now."""
    if not every_s:
        return Line("[vitals]", "every_s = 0: how this device is is not said")
    read = Resources().condition(state_dir)
    found = {"disk_free": read.disk_free, "heat": read.heat, "load": read.load}
    facts: Facts = {name: value for name, value in found.items() if value is not None}
    disk = "" if read.disk_free is None else f"{read.disk_free:,} bytes free"
    heat = "no thermometer" if read.heat is None else f"{read.heat:.1f} degrees"
    load = "" if read.load is None else f"load {read.load:.2f}"
    said = ", ".join(word for word in (disk, heat, load) if word)
    return Line("[vitals]", f"said when it changes, every {every_s:g} s at most; now: {said}", facts)


def _textfile(file: Path) -> Line:
    """Return where vitals are written. Raises OSError where that is no folder, or this user must not write there."""
    if not file.parent.is_dir():
        raise NotADirectoryError(
            errno.ENOTDIR, "is no folder: is node_exporter's textfile collector there?", str(file.parent)
        )
    if not os.access(file.parent, os.W_OK):
        raise PermissionError(errno.EACCES, "this user must not write there", str(file.parent))
    return Line("[vitals] textfile", f"{file}, once a minute")


# Data.


def _live(where: str, source: DeviceSource) -> Line:
    """Say what a live source listens to, and what it has kept. One that has kept nothing yet is no mistake."""
    (live,) = live_sources({where: source})
    site = _broker(live.mqtt).text
    topics = ", ".join(live.mqtt.filters)
    kept = look(live)
    facts: Facts = {"path": live.folder, "rows": kept.rows, "disk_bytes": kept.disk_bytes}
    return Line(where, f"listens to {topics} at {site}; {live.folder}: {kept.rows:,} rows", facts)


def _source(where: str, source: DataSource) -> Line:
    try:
        data = load_source(source)
    except KindError as error:
        told = str(error).removeprefix(f"{source.path}: ")
        text = f"only jobs that name their columns and classes can use it ([contract]): {told}"
        return Line(where, f"{source.path}: {text}", {"path": source.path, "needs_contract": told})
    text, facts = _described(data)
    return Line(where, f"{source.path}: {text}", {"path": source.path, **facts})


def _split(where: str, source: DataSource, spec: JobSpec, built: Sequence[Net]) -> Line:
    contract = structs.replace(spec.contract, validation=0.0)
    labelled = not spec.model.finds_anomalies
    data = load_source(source, contract, classifies=spec.model.labels_are_classes, labelled=labelled)
    rows = fit(data, spec.model)
    for net in built:
        _take_a_step(net, spec, Dataset(rows.X[:2], rows.y[:2]))
    text, facts = _described(data)
    return Line(where, f"{source.path}: {text}, as the model takes them", {"path": source.path, **facts})


def _described(data: Dataset) -> tuple[str, Facts]:
    """Say how many rows there are, and of what."""
    shape = data.X.shape[1:]
    n_features = int(np.prod(shape, dtype=np.int64))
    sides = " x ".join(map(str, shape)) + " = " if len(shape) > 1 else ""
    labels, facts = _labels(data.y)
    rows = f"{len(data.X):,} row{'s' if len(data.X) > 1 else ''}"
    text = f"{rows} of {sides}{n_features:,} feature{'s' if n_features > 1 else ''}, {labels}"
    if data.told:
        told = data.told.removeprefix(f"{data.source}: ")
        text, facts = f"{text}; {told}", {**facts, "left_out": told}
    return text, {"rows": len(data.X), "features": n_features, **facts}


def _labels(labels: Labels) -> tuple[str, Facts]:
    y = labels.reshape(len(labels), -1)
    lowest, highest = float(y.min()), float(y.max())
    if y.shape[1] > 1 or lowest < 0 or highest >= MOST_CLASSES or (y != np.trunc(y)).any():
        each = f"{y.shape[1]} values a row, " if y.shape[1] > 1 else "values "
        return f"{each}{lowest:g}..{highest:g}", {"values": y.shape[1], "lowest": lowest, "highest": highest}
    known, most = len(np.unique(y)), int(highest - lowest) + 1
    classes = f"{known} class{'es' if known > 1 else ''}" + ("" if known == most else f" of {most}")
    return f"labels {lowest:.0f}..{highest:.0f} ({classes})", {
        "labels": f"{lowest:.0f}..{highest:.0f}",
        "classes": known,
    }


# Capacity.


def _budget(capacity_: Capacity) -> Line:
    """Say what there is for jobs."""
    budget = capacity_.budget
    facts: Facts = {"model_parameters": budget.parameters}
    facts |= {} if budget.memory_bytes is None else {"memory_bytes": budget.memory_bytes}
    facts |= {} if budget.disk_bytes is None else {"disk_bytes": budget.disk_bytes}
    return Line("[limits]", str(budget), facts)


def _tried(spec: JobSpec, capacity_: Capacity, refused: list[Refusal]) -> Line:
    """Try a factory's net in a process of its own, and weigh it. Raises ModelError for one that trains nowhere."""
    refused.append(capacity_.weigh(spec.name, spec))
    if refused[0].of_net:
        raise ModelError(refused[0].why)
    return Line("[model]", "")


def _fits(spec: JobSpec, capacity_: Capacity, refusal: Refusal, *, is_here: bool) -> Line:
    """Say what a job takes of the aggregator and of a device. Raises ModelError where the aggregator has no room.

    is_here: whether the aggregator is on this machine; of another one's memory and disk nothing is known.
    """
    size = capacity_.size(spec.name)
    if refusal.why and (is_here or size is None or size.parameters > capacity_.budget.parameters):
        raise ModelError(refusal.why)
    if size is None:
        return Line("[limits]", "")  # who builds it says why
    torch = nets.framework_of(spec.model) == "torch"
    server, device = needs.of_aggregator(spec, size, torch=torch), needs.of_device(spec, size, torch=torch)
    server_bytes, device_bytes = server.alone_bytes, needs.AGENT_BYTES + device.alone_bytes
    text = (
        f"the aggregator takes about {said(server_bytes)} of memory and {said(server.disk_bytes)} of disk for it; a "
        f"device's agent {said(device_bytes)} of memory in all, and {said(device.disk_bytes)} of disk for it"
        + (f"; an aggregator on this machine would refuse it: {refusal.why}" if refusal.why else "")
    )
    facts: Facts = {"aggregator_memory_bytes": server_bytes, "aggregator_disk_bytes": server.disk_bytes}
    facts |= {"device_memory_bytes": device_bytes, "device_disk_bytes": device.disk_bytes}
    return Line("[limits]", text, facts)


# Nets.


def _factory(name: str) -> Line:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        return Line("[models] allow", f"{name}: no job can use it here, it cannot be imported: {clean(str(error))}")
    except AttributeError as error:
        raise ModelError(str(error)) from error
    if not callable(found):
        raise ModelError(f"it is a {type(found).__name__}, which cannot be called")
    return Line("[models] allow", f"{name}: is there")


def _model(spec: JobSpec, built: list[Net], fleet: _Fleet | None) -> Line:
    """Build the net, have it take a step, and say how large it is."""
    kind, factories = spec.model.kind, nets.factories_of(spec.model)
    try:
        if factories and find_spec("torch") is None:
            raise ImportError("no Torch is installed")
        net = nets.of_job(spec, allow=factories, find=lambda _, own: own())
    except (ImportError, ModelError) as error:
        if not isinstance(error.__cause__ or error, ImportError):
            raise
        return Line("[model]", f"{kind}: cannot be built here, so its size is not known: {clean(str(error))}")
    built.append(net)
    y = np.zeros((2, losses.of(spec.model).n_columns), np.float32)
    _take_a_step(net, spec, fit(Dataset(np.zeros((2, spec.model.inputs), np.float32), y), spec.model))
    n, allowed = n_parameters(net.spec), fleet is None or set(factories) <= set(fleet.models.allow)
    beside = f" ({frozen:,} others stay as they are, and do not travel)" if (frozen := n_frozen(net)) else ""
    size = f"{n:,} parameters in {len(net.spec)} tensors{beside}, {4 * n:,} bytes a version or an update in float32"
    if fleet is not None and spec.coding.codec == "float32" and 4 * n > fleet.limits.unassembled_bytes:
        raise ModelError(f"{size}: more than unassembled_bytes = {fleet.limits.unassembled_bytes:,} in [limits]")
    warning = "" if allowed else "; the aggregator refuses it until its [models] allow names it"
    return Line("[model]", f"{kind}: {size}{warning}", {"kind": kind, "parameters": n, "float32_bytes": 4 * n})


def _start(spec: JobSpec, net: Net) -> Line:
    """Return what the weights cost that a factory gives. Raises ModelError where they cannot be a version."""
    held = of_net(net)
    n_bytes = 0 if held is None else len(Chain(net.spec, spec).exact(held))
    text = f"the weights that its factory gives are version 1, of {n_bytes:,} bytes for each device"
    return Line("[model] start", f'{text}; start = "seed" draws others, which costs none', {"start_bytes": n_bytes})


def _take_a_step(net: Net, spec: JobSpec, data: Dataset) -> None:
    """Train on two rows and predict them: a module of the wrong shape says so here. Raises what the module throws."""
    if not net.spec:
        raise ModelError(f'kind = "{spec.model.kind}" has no parameters to train')
    params = initial(net.spec, spec.seed).params(net.spec)
    net.loss_and_gradients(params, data.X, data.y)
    net.evaluate(params, data.X, data.y)


# The rest.


def _broker(broker: BrokerSettings) -> Line:
    text = f"{broker.host}:{broker.port}"
    if broker.username is not None:
        text += f" as {broker.username}"
    if (password := read_password(broker)) is not None:
        if not password:
            raise SettingsError(f"{broker.password_file}: its first line, the password, is empty")
        text += f", with the password in {broker.password_file}"
    if tls_context(broker) is not None:
        text += f", by TLS, trusting {broker.ca_file}"
        text += f", with the certificate {broker.certificate_file}" if broker.certificate_file else ""
    if (holds := validity(broker)) is None:
        return Line("[broker]", text)
    now = dt.datetime.now(dt.UTC)
    if not holds.since <= now < holds.until:
        raise SettingsError("; ".join(certificate_concerns(broker, now)))
    days = holds.left(now).days
    text += f", until {holds.until:%Y-%m-%d} ({days} days)"
    return Line("[broker]", text, {"certificate_until": holds.until.isoformat(), "certificate_days": days})


def _registry(path: str, fleet: str) -> Line:
    try:
        registry = read_registry(path, fleet)
    except RegistryError as error:
        raise SettingsError(str(error)) from error
    now, until = dt.datetime.now(dt.UTC), registry.list_until
    wrong = list_concerns(registry, now)
    if until is not None and until <= now:
        raise SettingsError(wrong[0])
    n, gone = len(registry.devices), sum(known.revoked for known in registry.devices.values())
    text = f"{path}: {n} devices, {gone} of them revoked"
    facts: Facts = {"devices": n, "revoked": gone}
    if until is not None:
        text += f"; the broker's list of the revoked holds until {until:%Y-%m-%d} ({(until - now).days} days)"
        facts |= {"list_until": until.isoformat(), "list_days": (until - now).days}
    return Line("[identity] registry", "; ".join((text, *wrong)), facts)


def _state_dir(folder: Path) -> Line:
    """See whether this user can write there, without leaving anything."""
    there = next((path for path in (folder, *folder.parents) if path.exists()), Path())
    if not there.is_dir():
        raise SettingsError(f"{there} is no folder")
    why = _reason_not_to_write(there)
    if there != folder:
        maker = f"must be made for this user, who cannot write {there}" if why else "is made by a start"
        return Line("state_dir", f"{folder}: is not there, and {maker}")
    if why:
        raise SettingsError(f"{folder} cannot be written by this user: {why}")
    if foreign := [path for path in sorted(folder.iterdir()) if not os.access(path, os.W_OK)]:
        raise SettingsError(f"{foreign[0]} cannot be written by this user: who started it last?")
    owner = _owner(folder / "lock")
    return Line("state_dir", f"{folder}: can be written" + (f", and is in use by process {owner} now" if owner else ""))


def _reason_not_to_write(folder: Path) -> str:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _owner(lock: Path) -> str | None:
    """Return the number of the process that holds a state directory, if one does."""
    if not lock.is_file():
        return None
    with lock.open(encoding="ascii", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return clean(file.read(20).strip()) or "unknown"
    return None
