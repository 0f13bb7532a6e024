"""The keys of a data source, in agent.toml ([data.NAME]) and aggregator.toml ([tests.NAME])."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from models.contract import Column

FilePath = Annotated[
    str,
    Meta(
        pattern=r"\A[^\x00-\x1f\x7f]{1,4096}\Z",
        description="a path is 1 to 4,096 characters, none of them a control character",
    ),
]
"""What names a file or a folder."""
OneSign = Annotated[
    str,
    Meta(pattern=r'\A[^\r\n\x00"]\Z', description="it is one character, and neither a quote nor the end of a line"),
]
Missing = Literal["skip", "mean", "last"]
"""What becomes of rows with an empty cell where a source has its own mind (models/contract.py)."""


class SourceSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where examples are, and which of them are features and labels. What each format makes of it is in table.py.

    Of most keys what is not given is found out by looking, and said in a line of the log.
    """

    path: FilePath
    """A file in one of the formats of table.py; or "package.module:factory", code that gives the rows."""
    label: Column = "y"
    """Name of the label column or array."""
    features: Column | Annotated[tuple[Column, ...], Meta(min_length=1)] | None = None
    """Feature columns (all others when not given) or the name of the feature array (NPZ; X). One column may stand
    alone, without brackets."""
    query: Annotated[str, Meta(min_length=1, max_length=100_000)] | None = None
    """What gives the rows (SQLite): a SELECT, whose columns label and features name. The only table when not given."""
    format: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    """"csv", "npz", "sqlite", "jsonl", or "package.module:factory"; by the ending of the path when not given."""
    delimiter: OneSign | None = None
    """What stands between cells (CSV): "," ";" "|" or a tab, "\\t"; spaces, " ", in any number."""
    decimal: Literal[".", ","] | None = None
    """The decimal sign (CSV)."""
    encoding: Annotated[str, Meta(pattern=r"\A[!-~]{1,50}\Z", description='it is a name, as "latin-1"')] | None = None
    """Of the text (CSV, JSON lines), where it has no mark and is not UTF-8: "latin-1", "cp1252", "utf-16-le"."""
    comment: Annotated[str, Meta(max_length=10)] | None = None
    """What begins a line that is skipped (CSV); "" for nothing. A # when not given."""
    thousands: Annotated[str, Meta(pattern=r"\A[,.' ]\Z", description='it is one of , . \' and " "')] | None = None
    """What stands between groups of digits (CSV), as in 1,234.5; none when not given: such cells are no numbers."""
    quote: Annotated[str, Meta(pattern=r"\A[^\r\n\x00 ]?\Z", description="it is one character, or none")] | None = None
    """What stands around cells (CSV); "" for nothing. A double quote when not given."""
    header: Annotated[tuple[Column, ...], Meta(min_length=1, max_length=100_000)] | None = None
    """The names of all columns in their order, where the file has none (CSV)."""
    skip_lines: Annotated[int, Meta(ge=0, le=100_000)] | None = None
    """Lines before that of the header (CSV)."""
    time: Column | None = None
    """The column that says when each row was."""
    time_format: Annotated[str, Meta(min_length=1, max_length=100)] | None = None
    """How it is written: "s", "ms", "us" or "ns" since 1970, "iso", "day-first", "month-first", "excel" (days), or a
    format of strptime, as "%d.%m.%Y %H:%M"."""
    group: Column | None = None
    """The column whose value says which rows belong together: a trial, a machine."""
    rename: dict[Column, Column] = {}
    """Columns that have another name in the contract: { "Temp (C)" = "temp" }. All other keys use the new names."""
    missing: Missing | None = None
    """What becomes of a row with an empty cell; as the job says when not given."""
    missing_values: Annotated[tuple[str, ...], Meta(max_length=100)] | None = None
    """What stands for nothing beside an empty cell. NA, N/A, nan, null, None, - and ? when not given."""
    max_skipped: Annotated[float, Meta(ge=0, le=1)] = 0.5
    """Share of the rows that may be unusable before the source counts as broken."""
    options: dict[str, Any] = {}
    """Keyword arguments of a factory."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The features that are named; none where all are meant."""
        if self.features is None:
            return ()
        return (self.features,) if isinstance(self.features, str) else self.features
