"""The frozen tensors of jobs that a net has from somewhere: beside the store, each in a file called by its SHA-256.

    STATE/bases/<sha256>.base      mapped by who builds the net, here or in a child process (models/frozen.py)

What devices cannot make themselves lies in the store as well, among the bodies at the broker, so that a backup has it:
a file that is not here is made from there again. What follows from a job's seed lies nowhere.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from pathlib import Path

from aggregator.config import AggregatorConfig
from aggregator.store import Store
from models import frozen
from models.frozen import Find, FrozenError, MissingError, Own
from models.job import JobSpec
from models.nets import table as nets
from models.nets.finetune import Tuned
from models.nets.net import ModelError, Net
from models.params import Params, Spec
from runtime.disk import sync

log = logging.getLogger(__name__)

FOLDER = "bases"
NOTE = "base:"


def path_of(config: AggregatorConfig, sha256: str) -> Path:
    """Return where tensors of this SHA-256 lie."""
    return Path(config.state_dir) / FOLDER / f"{sha256}{frozen.ENDING}"


def finder(job: JobSpec, config: AggregatorConfig, sha256: str = "") -> Find:
    """Return what gives a job's frozen tensors here: by their SHA-256, where that is known or the job names it.

    It raises ModelError where they are nowhere.
    """
    wanted = sha256 or job.train.base

    def find(spec: Spec, own: Own) -> Params:
        if not wanted:
            return own()
        for path in (path_of(config, wanted), *map(Path, config.models.bases)):
            try:
                return frozen.read(path, spec, wanted)
            except FileNotFoundError:
                continue
            except (FrozenError, OSError) as error:
                log.info("base=%s is not in %s: %s", wanted[:16], path, error)
        if nets.factories_of(job.model) and frozen.sha256(values := own(), spec) == wanted:
            return values
        raise ModelError(
            f"[train] base = {wanted}: the frozen tensors are not here: submit the job with --base FILE, or name a "
            "file that has them in bases, in [models] of aggregator.toml"
        )

    return find


def net_of(job: JobSpec, config: AggregatorConfig, find: Find) -> Net:
    """Build the net that a job trains. Raises ModelError."""
    try:
        return nets.of_job(job, allow=config.models.allow, find=find)
    except (MissingError, FrozenError) as error:
        raise ModelError(str(error)) from error


def keep(config: AggregatorConfig, net: Tuned) -> str:
    """Write a net's frozen tensors down, unless they lie there; return their SHA-256. Raises ModelError."""
    spec = net.plan.frozen
    sha256 = frozen.sha256(net.frozen, spec)
    try:
        _write(path_of(config, sha256), frozen.parts(net.frozen, spec))
    except OSError as error:
        raise ModelError(
            f"the frozen tensors cannot be written to {path_of(config, sha256).parent}: {error}"
        ) from error
    return sha256


def restore(config: AggregatorConfig, sha256: str, read: Callable[[], bytes]) -> None:
    """Make the file of tensors again where it is not here. read: gives the bytes. Raises ModelError."""
    try:
        if not path_of(config, sha256).exists():
            _write(path_of(config, sha256), [read()])
    except OSError as error:
        raise ModelError(
            f"the frozen tensors cannot be written to {path_of(config, sha256).parent}: {error}"
        ) from error


def of_job(store: Store, job: str) -> str:
    """Return the SHA-256 of what is frozen of a job's net, also of one that was replaced; "" where there is none."""
    return store.note(f"{NOTE}{job}")


def note(store: Store, job: str) -> None:
    """Remember it beyond the job, whose versions may be kept. Raises StoreError."""
    sha256 = store.bases().get(job, "")
    if sha256 and of_job(store, job) != sha256:
        store.set_note(f"{NOTE}{job}", sha256)


def sweep(store: Store, config: AggregatorConfig) -> None:
    """Remove the files that no job needs any more, at work or replaced. Raises StoreError."""
    files = list((Path(config.state_dir) / FOLDER).glob(f"*{frozen.ENDING}*"))
    if not files:
        return
    known = [*(row.job for row in store.jobs()), *(past.job for past in store.states.past())]
    needed = {of_job(store, job) for job in known}.union(store.bases().values())
    for path in files:
        if path.suffix != frozen.ENDING or path.stem not in needed:
            path.unlink(missing_ok=True)


def _write(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Write a file so that it is there whole, or not at all. Raises OSError."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("wb") as file:
            for part in parts:
                file.write(part)
        sync(new)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync(path.parent)
