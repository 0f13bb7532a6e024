"""Versions as files: `fedge job export` writes one, `fedge job submit --from FILE.npz` reads the weights of one.

What the fleet serves is read as devices read it, from the broker. Any other version is asked of the aggregator, which
says it exactly, in pieces. An NPZ has an array for each parameter of the net, by name, in float32.
"""

from __future__ import annotations

import base64
import binascii
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import Struct, structs

from broker.errors import WireError
from broker.messages import Export, Head, Job, Message, Version
from edge_agent.fetch import Fetch, FetchError
from fleet.console.operator import Console, OperatorConfig, OperatorError
from models.agreement import Agreed
from models.chain import Chain, Held, max_way_bytes
from models.codec import CodecError
from models.codec.decoded import exact
from models.job import JobSpec
from models.lattice import EXPONENT, LatticeError, Model, add
from models.measures.table import THRESHOLD
from models.nets import table as nets
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
    net = nets.of_job(spec, allow=nets.factories_of(spec.model))
    try:
        since = spec.averaged_from(head.version.number)
        fetch = Fetch(head.version, head, net.spec, None, since=since)
        if not fetch.done:
            fleet.fetch(fetch)
        trail = fetch.install(Chain(net.spec, spec), None)
    except (FetchError, WireError) as error:
        raise OperatorError(str(error)) from error
    served = trail.served(since)
    metadata = {"job": job.job, "version": str(head.version), "sha256": head.sha256}
    if served.since is not None:
        metadata |= {"sha256": served.model.sha256(), "averaged_since": str(served.since)}
    if head.threshold is not None:
        metadata[THRESHOLD] = repr(head.threshold)
    note = _untrained(trail.now, spec, net)
    _write(out, spec, served.model.params(net.spec), trail.now.agreed, metadata, note)
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
    net = nets.of_job(spec, allow=nets.factories_of(spec.model))
    held = _read(net, spec, said, bytes(body))
    untrained = _untrained(held, spec, net)
    note = untrained or f"{said.version} is the best one" * said.best
    metadata = {"job": said.job, "version": said.version, "sha256": said.sha256}
    if THRESHOLD in said.metrics:
        metadata[THRESHOLD] = repr(said.metrics[THRESHOLD])
    _write(out, spec, held.model.params(net.spec), held.agreed, metadata, untrained)
    generation, _, number = said.version.partition(".")
    return Exported(Version(int(generation), int(number)), None, said.job, note)


def _untrained(held: Held, spec: JobSpec, net: Net) -> str:
    """Return that nobody has trained a version, in words; "" where somebody has."""
    if held.model != Chain(net.spec, spec).first().model:
        return ""
    return AS_DRAWN if held.number else UNTRAINED


def _read(net: Net, spec: JobSpec, said: _Said, body: bytes) -> Held:
    if len(body) > max_way_bytes(net.spec) or len(body) != said.n_bytes:
        raise OperatorError("the version has not come as it was announced: ask again")
    chain = Chain(net.spec, spec)
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


def read_weights(path: Path, spec: JobSpec) -> bytes:
    """Return the body that says the weights of a file exactly, for the net of a job. Raises SettingsError.

    Names, shapes and numbers are looked at before any array is read that is not the net's.
    """
    net = nets.of_job(spec, allow=nets.factories_of(spec.model))
    try:
        model = _model_of(_arrays(path, net.spec), net.spec)
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise SettingsError(f"{path}: it cannot be read as NPZ: {error}") from error
    except (ValueError, LatticeError, NotImplementedError) as error:
        raise SettingsError(f"{path}: {error}") from error
    return Chain(net.spec, spec).exact(Held(1, model))


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


def _model_of(arrays: dict[str, Any], spec: Spec) -> Model:
    """Return the model whose weights lie next to these. Raises LatticeError where some are too large."""
    zero = Model(tuple(np.zeros(t.shape, np.int32) for t in spec), (EXPONENT,) * len(spec))
    return add(zero, [exact(arrays[t.name]) for t in spec])
