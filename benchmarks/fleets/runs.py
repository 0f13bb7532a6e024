"""What has run, kept in a folder: one JSON file a run, found again by all that determines it.

    what      the fleet's data, cut, net and job, the seed, a hash of the very rows, and of the factory's source
    coding    its name, and its compression in explicit numbers
    code      a hash of the source that a run goes through, and the versions of NumPy and Torch

A run counts again only if all three are the same. Two ways around `code` are the user's word: `--code-key NAME` puts a
name in the place of the hash, and `--trust CODING` takes runs of a coding whatever code and numbers they were made
with. Which files float32 passes through cannot be told from imports (the codec's modules are loaded in any case), so
nothing is left out of the hash by itself.

A file is written beside its place and renamed: there is no half a run.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

import fleet.simulation.simulate
from benchmarks.fleets import data
from benchmarks.fleets.catalogue import Fleet
from benchmarks.fleets.curves import Float64
from benchmarks.fleets.data import Source
from fleet.simulation.simulate import Result
from models.job import CompressionSpec

ROOT = Path(fleet.simulation.simulate.__file__).resolve().parents[2]
CODE = ("models", "aggregator", "edge_agent", "broker", "fleet/simulation/simulate.py", "fleet/problems/problem.py")
LIBRARIES = ("numpy", "torch")


class Coding(Struct, frozen=True):
    """A compression under a name. numbers: all of it as plain values."""

    name: str
    compression: str | CompressionSpec
    numbers: dict[str, Any]


class Task(Struct, frozen=True):
    """A run that is wanted."""

    fleet: Fleet
    coding: Coding
    seed: int
    what: str
    code: str

    @property
    def key(self) -> str:
        """A hash of everything that determines it."""
        return _hash([self.what, self.coding.name, self.coding.numbers, self.code])

    @property
    def file_name(self) -> str:
        """Where it is kept; the first parts are for people."""
        return f"{self.fleet.name}.{self.coding.name}.{self.seed}.{self.key[:16]}.json"


class Kept(Struct, frozen=True):
    """A run that has come to its end."""

    fleet: str
    coding: str
    numbers: dict[str, Any]
    seed: int
    what: str
    code: str
    seconds: float
    parameters: int
    sha256: str
    rounds: list[dict[str, Any]]
    """Of each round all that `fleet.simulation.simulate.RoundRow` says."""

    def column(self, name: str) -> Float64:
        """Return one of the fields of all rounds, (rounds,) float64."""
        return np.array([row[name] for row in self.rounds], np.float64)


class Cache:
    """A folder of kept runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, task: Task, *, trusted: bool = False) -> Kept | None:
        """Return the run that was kept; trusted: one of its coding's name will do, made with whatever code."""
        exact = self._read(self.folder / task.file_name)
        if exact is not None or not trusted:
            return exact
        others = self.folder.glob(f"{task.fleet.name}.{task.coding.name}.{task.seed}.*.json")
        newest = sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)
        runs = (self._read(path) for path in newest)
        return next((run for run in runs if run is not None and run.what == task.what), None)

    def keep(self, task: Task, result: Result) -> Kept:
        """Write a run down."""
        kept = Kept(
            fleet=task.fleet.name,
            coding=task.coding.name,
            numbers=task.coding.numbers,
            seed=task.seed,
            what=task.what,
            code=task.code,
            seconds=result.seconds,
            parameters=result.parameters,
            sha256=result.sha256,
            rounds=msgspec.to_builtins(result.rounds),
        )
        path = self.folder / task.file_name
        half = path.with_suffix(f".{os.getpid()}.half")
        try:
            half.write_bytes(msgspec.json.encode(kept))
            half.replace(path)
        finally:
            half.unlink(missing_ok=True)
        return kept

    @staticmethod
    def _read(path: Path) -> Kept | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Kept)
        except (OSError, msgspec.MsgspecError):
            return None  # not there, or not ours: it is run again


def what_of(fleet: Fleet, seed: int, source: Source, source_hash: str) -> str:
    """Return a hash of what a run computes, whatever the coding. source_hash: of the data set's arrays."""
    rows = data.digest(data.cut(fleet.cut, source, fleet.devices, seed))
    return _hash([fleet.run_fields(), seed, source_hash, rows, _factory(fleet.net.kind) if fleet.torch else ""])


def source_hash(source: Source) -> str:
    """Return a hash of the rows to train and to test on."""
    return data.digest([source.train.X, source.train.y, source.test.X, source.test.y])


def code_hash(root: Path = ROOT) -> str:
    """Return a hash of the source that runs go through, and of the libraries' versions."""
    state = hashlib.sha256()
    for part in CODE:
        for path in sorted((root / part).rglob("*.py")) if (root / part).is_dir() else [root / part]:
            state.update(f"{path.relative_to(root)} ".encode())
            state.update(hashlib.sha256(path.read_bytes()).digest())
    for library in LIBRARIES:
        state.update(f"{library} {_version(library)} ".encode())
    return state.hexdigest()[:16]


def _factory(kind: str) -> str:
    """Return the source of the module that a factory is in."""
    return inspect.getsource(importlib.import_module(kind.partition(":")[0]))


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
