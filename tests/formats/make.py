"""Make a set of fixtures: every format that is written to disk, by the code that writes it.

    python -m tests.formats.make NAME        into tests/formats/NAME, which must not be there

    NAME/aggregator/     a store in the middle of a third round: an open attempt, updates in rows and beside, a job that
                         was deleted; marks
    NAME/backup.sqlite   the same as a backup
    NAME/d0, d1          a device whose updates are offered, and counted in that store
    NAME/d2              a device in the middle of a training of one job, done with the base before, and with an update
                         to a base that was left in the other; a model slot; marks
    NAME/d3              another of this kind, at the very beginning of its training
    NAME/expected.json   what is in all of these, and what they come to

SQLite's files are mostly zeros, and are packed. A set that is committed is never made anew: it is what some fedge
wrote.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

import msgspec

from aggregator.backup import backup
from broker.messages import Version
from edge_agent.card import Release
from edge_agent.outbox import Outbox
from edge_agent.slot import Slot
from models.job import JobSpec
from models.lattice import initial
from models.nets.table import build
from tests.formats.fleet import DEVICES, MODEL, PLAIN, SPECS, Fleet, marks_of, rows

HERE = Path(__file__).resolve().parent
DEAD = 2
"""Deaths under the marks."""
SERVED = Release("sketched-00000003", 1, 2, "5" * 64)


class Held(msgspec.Struct):
    """A job in the store."""

    version: Version
    sha256: str
    updates: dict[str, str]
    """Device to SHA-256 of the body that is counted."""
    following: str
    """SHA-256 of the version that all updates of the round make."""
    offers: dict[str, tuple[Version, str]]
    """Device to base and digest of the update that it has on disk, and is not done with."""
    checkpoint: tuple[int, int, str] | None
    """Where the training of d2 stands: epoch, batch, SHA-256 of the params; None where it has not begun."""


class Expected(msgspec.Struct):
    """What a set holds."""

    jobs: dict[str, Held]
    predicted: list[list[float]]
    """What the model in the slot of d2 says of the first two rows of d2."""
    boots: dict[str, int]


def main(name: str) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "fleet"
        expected = made(folder)
        pack(folder, HERE / name)
        (HERE / name / "expected.json").write_bytes(msgspec.json.format(msgspec.json.encode(expected)) + b"\n")


def made(folder: Path) -> Expected:
    """Run a fleet until the moment of the fixtures; what it comes to is found out on a copy."""
    stopped_in_the_middle(folder)
    predicted = installed(folder / "d2" / "models" / "sketched")
    for marked in (folder / "aggregator", folder / "d2"):
        for _ in range(DEAD):
            marks_of(marked).enter("sketched-00000003", "train", "training on version 1.2 from epoch 0, batch 0")
        marks_of(marked)
    backup(folder / "aggregator", folder / "backup.sqlite", lambda _done, _all: None)
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy, symlinks=True)
    return Expected(
        gone_on(copy), predicted, {name: int((folder / name / "boot").read_bytes()[4:]) for name in DEVICES}
    )


def stopped_in_the_middle(folder: Path) -> None:
    fleet = Fleet(folder)
    fleet.go_on(lambda: fleet.aggregator.leads and len(fleet.aggregator.roster.devices) == len(fleet.agents))
    for _ in range(2):  # the second makes the first be deleted
        gone = fleet.aggregator.submit(msgspec.structs.replace(PLAIN, name="gone"))
        fleet.aggregator.jobs.stop(gone)
    for spec in SPECS:
        fleet.aggregator.submit(spec)

    def at(number: int) -> bool:
        return all(run.version.number >= number for run in fleet.runs().values())

    fleet.go_on(lambda: at(2))
    fleet.awake = {"d0", "d1"}
    fleet.go_on(lambda: all(len(list(fleet.store.updates(run.job))) == 2 for run in fleet.runs().values()))
    fleet.awake = {"d2"}
    d2 = fleet.agents["d2"].jobs

    def trains() -> bool:
        training = [work._training for work in d2.works.values() if work._training is not None]
        return any(one.effect.base.number == 2 and one.state.batch for one in training)

    fleet.go_on(trains)
    fleet.close()


def installed(path: Path) -> list[list[float]]:
    net = build(MODEL)
    slot = Slot(path)
    params = initial(net.spec, 7).params(net.spec)
    assert slot.install(SERVED, MODEL, params) is None
    found: list[list[float]] = slot.predict(rows("d2").X[:2]).tolist()
    return found


def gone_on(folder: Path) -> dict[str, Held]:
    """Go on until every job has the version that comes next."""
    offers = {spec.name: offered(folder, spec) for spec in SPECS}
    fleet = Fleet(folder)
    fleet.go_on(lambda: len(fleet.runs()) == len(SPECS))
    held = {}
    for name, run in fleet.runs().items():
        updates = {one.device: hashlib.sha256(one.body).hexdigest() for one in fleet.store.updates(run.job)}
        found = resumed(folder / "d2" / "jobs" / run.job, fleet.runs()[name].spec)
        held[name] = Held(Version(1, 2), run.sha256, updates, "", offers[name], found)
    fleet.go_on(lambda: all(run.version.number > 2 for run in fleet.runs().values()))
    for name, run in fleet.runs().items():
        held[name].following = fleet.store.versions(run.job)[3][1]
    fleet.close()
    return held


def offered(folder: Path, spec: JobSpec) -> dict[str, tuple[Version, str]]:
    """Return what each device has on disk to offer to a job."""
    found = {}
    for job in folder.glob(f"d?/jobs/{spec.name}-*"):
        offer = Outbox(job, build(spec.model).spec).offer
        if offer is not None:
            found[offer.device] = (offer.base, offer.digest)
    return found


def resumed(folder: Path, spec: JobSpec) -> tuple[int, int, str] | None:
    """Where the training of a device stands, and what it has come to."""
    net, data = build(spec.model), rows("d2")
    outbox = Outbox(folder, net.spec)
    checksum = zlib.crc32(data.y.tobytes(), zlib.crc32(data.X.tobytes()))
    found = outbox.resume(Version(1, 2), checksum, spec.train, len(data.y))
    if found is None:
        return None
    state, _ = found
    params = b"".join(values.tobytes() for values in state.params.values())
    return state.epoch, state.batch, hashlib.sha256(params).hexdigest()


def pack(folder: Path, into: Path) -> None:
    """Copy a fleet's files but for locks, SQLite's packed."""
    shutil.copytree(folder, into, symlinks=True, ignore=shutil.ignore_patterns("lock", "*.sqlite", "*-wal", "*-shm"))
    for file in folder.rglob("*.sqlite"):
        packed = into / file.relative_to(folder).with_suffix(".sqlite.gz")
        packed.write_bytes(gzip.compress(file.read_bytes(), mtime=0))


def unpack(name: str, into: Path) -> Expected:
    """Lay a set out as it was, and return what it holds."""
    shutil.copytree(HERE / name, into, symlinks=True)
    for packed in list(into.rglob("*.sqlite.gz")):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    return msgspec.json.decode((HERE / name / "expected.json").read_bytes(), type=Expected)


if __name__ == "__main__":
    main(sys.argv[1])
