"""`fedge job draft`: a job file for a table, printed where the table is."""

from __future__ import annotations

from pathlib import Path

from models.data import table
from models.data.draft import Draft, draft
from models.data.source import DataSource
from runtime.settings import SettingsError


def draft_of(file: Path, label: str | None) -> Draft:
    """Return a job for a table's file. Raises SettingsError and DatasetError."""
    try:
        settings = DataSource(str(file), label=label or "y")
    except ValueError as error:
        raise SettingsError(f"{file}: {error}") from error
    opened = table.known(settings).open(settings, ended=False)
    try:
        return draft(opened, settings, label)
    finally:
        opened.close()
