"""`fedge aggregator backup` and `restore` as commands: what their lines name, and what a person or a script sees."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import msgspec

from aggregator import backup as backups
from aggregator.backup import Backup, BackupError, HeldJob
from aggregator.config import AggregatorConfig
from fleet.console.display import Display, duration, n_bytes
from runtime.settings import SettingsError, load

STDIO = Path("-")
SILENT_S = 2.0
"""What takes no longer shows no progress."""


def backup(arguments: argparse.Namespace) -> int:
    """Copy the store of an aggregator, which may be running. Raises SettingsError, StoreError or OSError."""
    config, file = load(arguments.config, AggregatorConfig), arguments.file
    progress = _Progress("copied")
    try:
        if file == STDIO:
            if sys.stdout.isatty():
                raise SettingsError("a backup is no text: send it into a file, as with > aggregator.backup")
            made = backups.backup_to(Path(config.state_dir), sys.stdout.buffer, progress)
        else:
            made = backups.backup(Path(config.state_dir), file, progress)
    except BackupError as error:
        raise SettingsError(str(error)) from error
    line = f"{made.file}: a backup of {n_bytes(made.n_bytes)}, checked: {_phrase(made.jobs)}"
    _say(made, line, as_json=arguments.json, to_stderr=file == STDIO)
    return 0


def restore(arguments: argparse.Namespace) -> int:
    """Put a backup in the place of an aggregator's store. Raises SettingsError or StoreError."""
    config, file = load(arguments.config, AggregatorConfig), arguments.file
    folder, progress = Path(config.state_dir), _Progress("read")
    try:
        if file == STDIO:
            done = backups.restore(sys.stdin.buffer, "standard input", folder, progress)
        else:
            done = _restore_file(file, folder, progress)
    except BackupError as error:
        raise SettingsError(str(error)) from error
    kept = f"; the store before is {done.kept}" if done.kept else ""
    line = f"{folder}: restored from {done.file} ({n_bytes(done.n_bytes)}): {_phrase(done.jobs)}{kept}"
    _say(done, line, as_json=arguments.json)
    return 0


def _restore_file(file: Path, folder: Path, progress: _Progress) -> Backup:
    if file.is_dir():
        raise SettingsError(f"{file} is a folder: name the file that `fedge aggregator backup` has written")
    wal = Path(f"{file}-wal")
    if wal.exists() and wal.stat().st_size:
        raise SettingsError(
            f"{file} has a {wal.name} beside it, so it is no backup but a store: copy both into an empty folder, and "
            "make a backup of that with `fedge aggregator backup`"
        )
    try:
        source = file.open("rb")
    except OSError as error:
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from error
    with source:
        return backups.restore(source, str(file), folder, progress, file.stat().st_size)


class _Progress:
    """Shows how much is done, and how long the rest may take, where it is long."""

    def __init__(self, done: str) -> None:
        self._display = Display(sys.stderr)
        self._done = done
        self._began = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Take note of this many bytes of so many."""
        passed = time.monotonic() - self._began
        if passed > SILENT_S and done:
            left = duration(passed * (total - done) / done)
            self._display.status(f"{n_bytes(done)} of {n_bytes(total)} {self._done}, about {left} left")
        if done >= total:
            self._display.status("")


def _phrase(jobs: list[HeldJob]) -> str:
    """Name every job and its version."""
    return ", ".join(map(_job, jobs)) or "no job"


def _job(held: HeldJob) -> str:
    if held.damage:
        return f"{held.job} (damaged: {held.damage})"
    ended = f" ({held.ended})" if held.ended else ""
    rotten = f" (without the updates of {', '.join(held.without)}, which have rotted on disk)" if held.without else ""
    return f"{held.job} at version {held.version}{ended}{rotten}"


def _say(what: Backup, line: str, *, as_json: bool, to_stderr: bool = False) -> None:
    text = msgspec.json.format(msgspec.json.encode(what)).decode() if as_json else line
    Display(sys.stderr if to_stderr else sys.stdout).line(text)
