"""`fedge job draft`: a job file for a table, printed where the table is."""

from __future__ import annotations

from pathlib import Path

from models.data import table
from models.data.draft import Draft, draft
from models.data.source import DataSource
from runtime.settings import SettingsError, convert, inline


def draft_of(file: Path, label: str | None, source: str | None = None) -> Draft:
    """Return a job for a table's file. source: more keys of it, as TOML has them.

    Raises SettingsError and DatasetError.
    """
    keys = {} if source is None else inline(source, "--source")
    try:
        settings = convert({"label": label or "y", **keys, "path": str(file)}, DataSource, str(file))
    except ValueError as error:
        raise SettingsError(f"{file}: {error}") from error
    opened = table.known(settings).open(settings, ended=False)
    try:
        return draft(opened, settings, label)
    finally:
        opened.close()
