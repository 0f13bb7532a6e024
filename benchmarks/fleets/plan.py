"""What is to be run: fleets whose data are there, codings in explicit numbers, and a task for each of their seeds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from benchmarks.fleets import data
from benchmarks.fleets.catalogue import Fleet
from benchmarks.fleets.data import NEEDS, Files
from benchmarks.fleets.runs import Coding, Task, source_hash, what_of
from models.data.dataset import fit
from models.job import PRESETS, CompressionSpec, JobSpec, ModelSpec
from runtime.settings import SettingsError, convert, load

FLOAT32 = "off"
QUICK_SEEDS = 3
NAME = re.compile(r"\A[A-Za-z0-9_-]{1,40}\Z")


def preset(name: str) -> Coding:
    """Return one of a job's presets. Raises SettingsError."""
    if name not in PRESETS:
        raise SettingsError(f"there is no coding {name}: there are {', '.join(PRESETS)}, or --coding NAME=FILE.toml")
    numbers = JobSpec("fleet", ModelSpec(), compression=name).coding  # type: ignore[arg-type]
    return Coding(name, name, _plain(numbers))


def variant(text: str) -> Coding:
    """Return the coding of NAME=FILE.toml, a table of [compression]. Raises SettingsError."""
    name, equals, path = text.partition("=")
    if not equals or not NAME.match(name) or name in PRESETS:
        raise SettingsError(
            f"--coding {text}: write NAME=FILE.toml, with a name of letters, digits, _ and - that is no preset's"
        )
    tree: dict[str, Any] = load(Path(path), dict)
    table = tree["compression"] if list(tree) == ["compression"] else tree
    compression = convert(table, CompressionSpec, path)
    return Coding(name, compression, _plain(compression))


def codings(names: Iterable[str], variants: Iterable[str]) -> list[Coding]:
    """Return float32 and each coding that is asked for, once. Raises SettingsError."""
    asked = [preset(name) for name in dict.fromkeys([FLOAT32, *names])] + [variant(text) for text in variants]
    twice = {one.name for one in asked if sum(other.name == one.name for other in asked) > 1}
    if twice:
        raise SettingsError(f"--coding: the name {min(twice)} is given twice")
    return asked


def files_of(folder: Path | None, given: Mapping[str, Path | None]) -> Files:
    """Return the files that are there, those that are named before those of the folder. Raises SettingsError."""
    if folder is not None and not folder.is_dir():
        raise SettingsError(f"--data {folder}: there is no such folder")
    found: dict[str, Path] = {}
    for name in (part for parts in NEEDS.values() for part in parts):
        named = given.get(name)
        if named is not None and not named.is_file():
            raise SettingsError(f"--{name.replace('_', '-')} {named}: there is no such file")
        path = named or (folder / f"{name}.npz" if folder is not None else None)
        if path is not None and path.is_file():
            found[name] = path.resolve()
    return found


def missing(fleet: Fleet, files: Files) -> str:
    """Return what a fleet wants that is not there; "" if it can be run."""
    wanted = NEEDS.get(fleet.data)
    if absent := [f"{name}.npz" for name in wanted or () if name not in files]:
        return f"no {' and no '.join(absent)}"
    if wanted is None and find_spec("sklearn") is None:
        return "no scikit-learn"
    return "no Torch" if fleet.torch and find_spec("torch") is None else ""


def planned(
    fleets: Sequence[Fleet], wanted: Sequence[Coding], n_seeds: int | None, files: Files, code: str
) -> list[Task]:
    """Return every run of these fleets. n_seeds: None for as many as each fleet says.

    Raises DatasetError for a file that does not fit, and SettingsError.
    """
    tasks = []
    for name, group in groupby(sorted(fleets, key=lambda fleet: fleet.data), key=lambda fleet: fleet.data):
        source = data.read(name, files)
        whole = source_hash(source)
        for fleet in group:
            fit(source.train, fleet.net)
            fit(source.test, fleet.net)
            for seed in range(n_seeds or fleet.seeds):
                what = what_of(fleet, seed, source, whole)
                tasks += [Task(fleet, coding, seed, what, code) for coding in wanted]
    return tasks


def quick(fleets: Iterable[Fleet]) -> list[Fleet]:
    """Return those that --quick runs, as it runs them."""
    return [
        structs.replace(fleet, rounds=fleet.quick_rounds, seeds=min(QUICK_SEEDS, fleet.seeds))
        for fleet in fleets
        if fleet.quick_rounds is not None
    ]


def _plain(compression: CompressionSpec) -> dict[str, Any]:
    """Return every number, those with their defaults too, as JSON gives them back."""
    numbers: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(structs.asdict(compression)))
    return numbers
