"""Versions as files: `fedge job export` writes one, `fedge job submit --from FILE.npz` reads the weights of one.

What the fleet serves is read as devices read it, from the broker. Any other version is asked of the aggregator, which
says it exactly, in pieces. An NPZ has an array for each parameter of the net, and each of its buffers that travels, by
name, in float32.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct, structs

from broker.errors import WireError
from broker.messages import Export, Head, Job, Message, Version
from edge_agent.bases import Fetching
from edge_agent.fetch import Fetch, FetchError
from fleet.console.operator import Console, OperatorConfig, OperatorError
from models import frozen, lattice
from models.agreement import Agreed
from models.buffers import first_of, named
from models.chain import Chain, Held, max_way_bytes
from models.codec import CodecError
from models.frozen import FrozenError, Own
from models.job import JobSpec
from models.lattice import LatticeError
from models.measures.table import THRESHOLD
from models.nets import table as nets
from models.nets.finetune import Plan
from models.nets.finetune import served as served_params
from models.nets.net import Net
from models.params import Params, Spec
from models.serving.export import to_onnx
from models.strategies.state import State
from runtime.settings import SettingsError, convert
from runtime.words import clean

UNTRAINED = "it is untrained: version 0 is drawn from the seed of the job"
AS_DRAWN = "it is untrained: its weights are those of version 0, drawn from the seed of the job"
"""Of a later one: that on which the fleet has agreed, or version 0 again."""
HEAD_BYTES = 4096
"""What an array may have in an NPZ beside its numbers."""


class Exported(Struct, frozen=True):
    """What was written: a version, or the mean of it and those since the one of this number."""

    version: Version
    averaged_since: int | None = None
    job: str = ""
    note: str = ""
    """What one should know of it."""


class _Said(Struct, frozen=True):
    """What the aggregator says of a version with its first piece."""

    job: str
    spec: dict[str, Any]
    version: str
    number: int
    sha256: str
    n_bytes: int
    metrics: dict[str, float] = {}
    best: bool = False
    reason: str = ""


def export(config: OperatorConfig, name: str, out: Path, version: str | None = None) -> Exported:
    """Write a version of a job as ONNX, or as NPZ where the file is called so.

    version: its number, "best" or "last". When not given, it is what devices serve: the current version, or the mean of
    the last ones as the job says; that version itself where the mean cannot be had; the last one of a job that was
    replaced. Raises SettingsError, OperatorError, ModelError or ExportError.
    """
    with Console(config) as fleet:
        if version is not None:
            return _kept(fleet, name, version, out)
        messages = fleet.gather("job", "head")
        jobs = [m for m in messages if isinstance(m, Job) and m.spec is not None]
        job = next((m for m in jobs if name in (m.job, (m.spec or {}).get("name"))), None)
        if job is not None:
            return _served(fleet, name, job, messages, out)
        try:
            return _kept(fleet, name, "last", out)  # of one that was replaced
        except OperatorError as error:
            known = ", ".join(sorted({str((m.spec or {}).get("name")) for m in jobs})) or "none at all"
            why = "" if "no job has the name" in str(error) else f" ({error})"
            raise OperatorError(f"there is no job {name}; there is {known}{why}") from error


def _served(fleet: Console, name: str, job: Job, messages: list[Message], out: Path) -> Exported:
    """Write what devices serve of a job."""
    head = next((m for m in messages if isinstance(m, Head) and m.job == job.job), None)
    if head is None:
        raise OperatorError(f"job {name} has no version yet")
    spec = convert(job.spec, JobSpec, job.job)
    net = _net_of(fleet, spec, job)
    try:
        since = spec.averaged_from(head.version.number)
        most = max_way_bytes(net.spec, net.buffers)
        fetch = Fetch(head.version, head, net.spec, None, since=since, most_bytes=most)
        if not fetch.done:
            fleet.fetch(fetch)
        trail = fetch.install(_chain(net, spec), None)
    except (FetchError, WireError) as error:
        raise OperatorError(str(error)) from error
    served = trail.served(since)
    metadata = {"job": job.job, "version": str(head.version), "sha256": head.sha256}
    if served.since is not None:
        metadata |= {"sha256": served.model.sha256(), "averaged_since": str(served.since)}
    if head.threshold is not None:
        metadata[THRESHOLD] = repr(head.threshold)
    note = _untrained(trail.now, spec, net)
    _write(out, spec, served_params(net, served.params(net.spec)), trail.now.agreed, metadata, note)
    return Exported(head.version, served.since, job.job, note)


def _kept(fleet: Console, name: str, version: str, out: Path) -> Exported:
    """Write a version that the aggregator has."""
    said, body = None, bytearray()
    for page in fleet.raw_pages(Export(fleet.client, "", name, version)):
        said = said or convert({k: v for k, v in page.items() if k != "piece"}, _Said, "the aggregator's answer")
        try:
            body += base64.b64decode(str(page.get("piece", "")), validate=True)
        except (binascii.Error, ValueError) as error:
            raise OperatorError(f"the aggregator's answer is no base64: {error}") from error
        if len(body) > said.n_bytes:
            raise OperatorError("the aggregator says more bytes than the version has")
    assert said is not None  # noqa: S101 -- there is a page, or an error
    shown = {key: clean(getattr(said, key)) for key in ("job", "version", "sha256")}
    said = structs.replace(said, **shown)
    spec = convert(said.spec, JobSpec, said.job)
    net = _net_of(fleet, spec, Job(said.job, 0))
    held = _read(net, spec, said, bytes(body))
    untrained = _untrained(held, spec, net)
    note = untrained or f"{said.version} is the best one" * said.best
    metadata = {"job": said.job, "version": said.version, "sha256": said.sha256}
    if THRESHOLD in said.metrics:
        metadata[THRESHOLD] = repr(said.metrics[THRESHOLD])
    _write(out, spec, served_params(net, held.params(net.spec)), held.agreed, metadata, untrained)
    generation, _, number = said.version.partition(".")
    return Exported(Version(int(generation), int(number)), None, said.job, note)


def _net_of(fleet: Console, spec: JobSpec, job: Job) -> Net:
    """Build the net of a job, with what is frozen of it, which is fetched as devices do. Raises OperatorError."""

    def find(tensors: Spec, own: Own) -> Params:
        at = job.base
        if at is None and (spec.train.base or nets.factories_of(spec.model)):
            said = (m for m in fleet.gather("job") if isinstance(m, Job) and m.job == job.job)
            at = next((m.base for m in said), None)
        wanted = spec.train.base or ("" if at is None else at.sha256)
        if not wanted:
            return own()
        if nets.factories_of(spec.model) and frozen.sha256(values := own(), tensors) == wanted:
            return values
        if at is None or at.n_bytes != frozen.n_bytes(tensors):
            raise OperatorError(f"what is frozen of its net ({wanted}) does not lie at the broker any more")
        return fleet.fetch_base(Fetching(job.job, at, tensors, None, fleet.wire))

    try:
        return nets.of_job(spec, allow=nets.factories_of(spec.model), find=find)
    except FrozenError as error:
        raise OperatorError(f"what is frozen of its net has come damaged: {error}") from error


def _untrained(held: Held, spec: JobSpec, net: Net) -> str:
    """Return that nobody has trained a version, in words; "" where somebody has."""
    if held.model != _chain(net, spec).first().model:
        return ""
    return AS_DRAWN if held.number else UNTRAINED


def _chain(net: Net, spec: JobSpec) -> Chain:
    return Chain(net.spec, spec, first_of(net))


def _read(net: Net, spec: JobSpec, said: _Said, body: bytes) -> Held:
    if len(body) > max_way_bytes(net.spec, net.buffers) or len(body) != said.n_bytes:
        raise OperatorError("the version has not come as it was announced: ask again")
    chain = _chain(net, spec)
    try:
        held = chain.take(chain.first(), said.number, body)
    except CodecError as error:
        raise OperatorError(f"the version that has come is damaged: {error}") from error
    bare = held._replace(state=State())  # in float32 a version goes by what is published, without the server's state
    if said.sha256 not in (held.sha256(), bare.sha256()):
        raise OperatorError("the version that has come is another than was announced: ask again")
    return held


def _write(
    out: Path, spec: JobSpec, params: Params, agreed: Agreed | None, metadata: dict[str, str], note: str
) -> None:
    if note:
        metadata = metadata | {"note": note}
    if out.suffix == ".npz":
        with out.open("wb") as file:
            np.savez(file, **{name: np.asarray(array) for name, array in params.items()})  # type: ignore[arg-type]
        return
    out.write_bytes(to_onnx(spec.model, params, metadata=metadata, contract=spec.contract, agreed=agreed))


class Weights(NamedTuple):
    """What a file says for a job to start from. base: the SHA-256 of its frozen tensors, which `said` begins with."""

    said: bytes
    base: str = ""
    n_frozen_bytes: int = 0
    start: Params | None = None
    """With a base: what the file has of the tensors that are trained, from which the job starts."""

    @property
    def frozen(self) -> bytes:
        """The frozen tensors alone."""
        return self.said[: self.n_frozen_bytes]

    def find(self, tensors: Spec, _own: Own) -> Params:
        """Return these as `models.nets.table.of_job` asks for them. Raises FrozenError."""
        return frozen.from_bytes(self.frozen, tensors, self.base)


def read_weights(path: Path, spec: JobSpec, *, as_base: bool = False) -> Weights:
    """Return what says the weights of a file exactly, for the net of a job. Raises SettingsError.

    Of a net a part of which is frozen, the file must have that part; of what is trained the job starts from what the
    file has in its shape, and from its seed for the rest. Names, shapes and numbers are looked at before any array is
    read that is not the net's. as_base: refuse a net of which nothing is frozen.
    """
    net = nets.build(spec.model, allow=nets.factories_of(spec.model), seed=spec.seed)
    plan = nets.plan_of(spec, net)
    if plan is not None:
        return _tuned(path, spec, plan)
    if as_base:
        raise SettingsError("--base: nothing of the net is frozen: say freeze, only or adapter in [train]")
    try:
        arrays = _arrays(path, net.spec + net.buffers)
        model, buffers = lattice.of_params(arrays, net.spec), named(arrays, net.buffers)
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise SettingsError(f"{path}: it cannot be read as NPZ: {error}") from error
    except (ValueError, LatticeError, NotImplementedError) as error:
        raise SettingsError(f"{path}: {error}") from error
    return Weights(_chain(net, spec).exact(Held(1, model, buffers=buffers)))


def _tuned(path: Path, spec: JobSpec, plan: Plan) -> Weights:
    """Return the frozen tensors of a file, and behind them what it has of those that are trained."""
    try:
        base, values = frozen.read(path, plan.frozen, spec.train.base), _whole(path, plan)
    except (OSError, FrozenError) as error:
        raise SettingsError(str(error)) from error
    said = b"".join(frozen.parts(base, plan.frozen))
    if values:
        chain = Chain(plan.trained, spec)
        try:
            model = lattice.of_params(chain.first().model.params(plan.trained) | values, plan.trained)
        except LatticeError as error:
            raise SettingsError(f"{path}: {error}") from error
        said += chain.exact(Held(1, model))
    return Weights(said, frozen.sha256(base, plan.frozen), frozen.n_bytes(plan.frozen), values)


def _whole(path: Path, plan: Plan) -> Params:
    """Return the tensors of a file that are trained whole, and have its shape there."""
    found: Params = {}
    there = frozen.names_in(path) if path.suffix != frozen.ENDING else set()
    for tensor in plan.trained:
        if tensor.name in there and tensor.name in plan.whole:
            with contextlib.suppress(FrozenError):
                found |= frozen.read_npz(path, (tensor,))
    return found


def _arrays(path: Path, spec: Spec) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    found = {}
    with zipfile.ZipFile(path) as archive:
        there = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        missing, beyond = [t.name for t in spec if t.name not in there], set(there) - {t.name for t in spec}
        if missing or beyond:
            what = f"it has no array {missing[0]!r}" if missing else f"it has an array {min(beyond)[:80]!r}"
            raise ValueError(f"{what}; the net of this job has {', '.join(t.name for t in spec)[:300]}")
        for tensor in spec:
            info = there[tensor.name]
            if info.file_size > 16 * tensor.size + HEAD_BYTES:
                raise ValueError(f"array {tensor.name!r} has more numbers than the net's, of shape {tensor.shape}")
            with archive.open(info) as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
            if array.shape != tensor.shape:
                raise ValueError(f"array {tensor.name!r} has shape {array.shape}, where the net has {tensor.shape}")
            if array.dtype.kind not in "fiu":
                raise ValueError(f"array {tensor.name!r} has no numbers, but {array.dtype}")
            found[tensor.name] = array.astype(np.float64)
            if not np.isfinite(found[tensor.name]).all():
                raise ValueError(f"array {tensor.name!r} has numbers that are not finite")
    return found
