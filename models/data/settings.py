"""The keys of a data source, in agent.toml ([data.NAME]) and aggregator.toml ([tests.NAME])."""

from __future__ import annotations

from typing import Annotated

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


class SourceSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where examples are, and which of them are features and labels. What each format makes of it is in table.py."""

    path: FilePath
    """A file in one of the formats of table.py."""
    label: Column = "y"
    """Name of the label column or array."""
    features: Column | Annotated[tuple[Column, ...], Meta(min_length=1)] | None = None
    """Feature columns (all others when not given) or the name of the feature array (NPZ; X). One column may stand
    alone, without brackets."""
    query: Annotated[str, Meta(min_length=1, max_length=100_000)] | None = None
    """What gives the rows (SQLite): a SELECT, whose columns label and features name."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The features that are named; none where all are meant."""
        if self.features is None:
            return ()
        return (self.features,) if isinstance(self.features, str) else self.features
