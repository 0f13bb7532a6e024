"""The contract between a job and the data of its devices: what a row is, by name, and what is made of it.

    a device's table ──by name──▶ columns ──missing──▶ rows ──windows──▶ examples ──normalise──▶ what a net takes

A device matches columns by name, whatever their order; without `features` they go by position, as the arrays of an NPZ
file do. What the fleet has to agree on before anybody trains (`ContractSpec.agrees`) is settled in the job's first
round. This file is words alone: no numbers are touched.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

from msgspec import Meta, Struct

Column = Annotated[str, Meta(min_length=1, max_length=1000)]
"""What names a column or an array: anything a header may hold, even a line break."""
ClassName = Annotated[str, Meta(min_length=1, max_length=200)]
"""What a label is called in a table and in an answer: "fault", "3", "True"."""
Limit = Annotated[float, Meta(ge=-1e30, le=1e30)]
"""Of a range."""
MOST_FEATURES = 10_000
"""That a contract names: a job has to travel (models/job.py)."""
MOST_CLASSES = 1_000
"""That a contract names."""

TimeFeature = Literal["hour", "weekday", "month"]
"""What is made of a row's time, as sine and cosine of the hour of the day, the day of the week, the day of the year
(all in UTC, or as its table writes it)."""


class WindowSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Examples that are stretches of a series: `length` rows each, beginning every `hop` rows, never across a gap."""

    length: Annotated[int, Meta(ge=2, le=100_000)]
    hop: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    """Rows from the beginning of one window to that of the next; half of its length when not given."""
    label: Literal["majority", "last"] = "majority"
    """Which label of its rows a window has. Of values, as in regression, "majority" is their mean."""
    gap_s: Annotated[float, Meta(gt=0, le=1e9)] | None = None
    """Seconds between two rows beyond which a series is broken; four times the usual distance of a source when not
    given. Without a time column there are no gaps, but between groups and where rows were left out."""

    @property
    def step(self) -> int:
        """Return the rows from the beginning of one window to that of the next."""
        return self.hop or max(1, self.length // 2)


class ContractSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a job says of its data: [contract] of a job file. All of it may be left out."""

    features: Annotated[tuple[Column, ...], Meta(max_length=MOST_FEATURES)] = ()
    """The columns that the model takes, in its order; by position when not given."""
    label: Column | Annotated[tuple[Column, ...], Meta(min_length=1, max_length=MOST_CLASSES)] | None = None
    """The column of the labels; several for a model of several values, or of several labels a row, each of which is 1
    (there) or 0 in a column of its own. As each source says when not given."""
    classes: Annotated[tuple[ClassName, ...], Meta(max_length=MOST_CLASSES)] = ()
    """What labels are called, in the order of the model's outputs; where it has one output for two classes, first that
    of 0. Of several labels a row, what each is called; as the columns of `label` when not given. Labels are 0, 1, …
    when not given."""
    units: Annotated[dict[Column, Annotated[str, Meta(max_length=100)]], Meta(max_length=MOST_FEATURES)] = {}
    """For people, and in the model's card."""
    ranges: Annotated[dict[Column, tuple[Limit, Limit]], Meta(max_length=MOST_FEATURES)] = {}
    """[lowest, highest] of a feature or a label of values. A value outside counts as missing; of a label, its row
    cannot be used."""
    normalise: Literal["none", "standard", "minmax", "pixels"] = "none"
    """What is done to every feature before the net sees it, on all devices and in the exported model alike. "standard":
    mean 0 and variance 1 over the fleet; "minmax": 0 to 1 over the fleet, or over `ranges`, where those name all
    features; "pixels": divided by 255. Over the fleet is over the devices that its first round draws, those with 20
    examples or more; that round trains nothing, and counts among `max_rounds`."""
    missing: Literal["skip", "mean", "last", "mask"] = "skip"
    """What becomes of a row with an empty cell: left out; filled with the mean of the column on this device, or with
    the last value before; or filled with the mean and told to the net, by one more input a feature, 1 where it was
    missing."""
    time_features: tuple[TimeFeature, ...] = ()
    """Inputs that are made of the time of a row, after all features."""
    window: WindowSpec | None = None
    validation: Annotated[float, Meta(ge=0, le=0.5)] = 0.0
    """Share of its examples that each device holds back and scores versions on."""
    by: Column | None = None
    """A column whose rows with the same value are held back together, and of which no window spans two: a trial, a
    patient. As each source's `group` says when not given."""
    weight: Column | None = None
    """A column that says how much each row counts in the loss."""
    class_weight: Literal["none", "balanced"] | dict[ClassName, Annotated[float, Meta(gt=0, le=1e6)]] = "none"
    """How much the rows of each class count in the loss. "balanced": all classes alike, by the fleet's counts."""

    def __post_init__(self) -> None:
        """Raise ValueError, with the key's name, for what does not go together."""
        for key, names in (("features", self.features), ("classes", self.classes), ("label", self.labels)):
            doubled = next((name for at, name in enumerate(names) if name in names[:at]), None)
            if doubled is not None:
                raise ValueError(f"{key} names {doubled!r} twice")
        for name in (*self.labels, *self._named("weight"), *self._named("by")):
            if name in self.features:
                what = "label" if name in self.labels else "weight" if name == self.weight else "by"
                if what != "by":
                    raise ValueError(f"features has the {what} {name!r} among them")
        for key, found in (("units", self.units), ("ranges", self.ranges)):
            for name in found:
                if name not in (*self.features, *self.labels):
                    raise ValueError(f"{key} names {name!r}, which is neither a feature nor the label")
        for name, (low, high) in self.ranges.items():
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"ranges.{name}: [{low:g}, {high:g}] is no range: the first is below the second")
        if len(set(self.time_features)) < len(self.time_features):
            raise ValueError("time_features names one twice")
        if not self.features and (self.time_features or self.missing == "mask"):
            raise ValueError(
                'time_features and missing = "mask" make inputs of named columns: name them, features = [...]'
            )
        if isinstance(self.class_weight, dict):
            for name in self.class_weight:
                if self.classes and name not in self.classes:
                    raise ValueError(f"class_weight names {name!r}, which is none of classes")

    def _named(self, key: str) -> Iterator[str]:
        if (name := getattr(self, key)) is not None:
            yield name

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the label columns; none where the sources say them."""
        if self.label is None:
            return ()
        return (self.label,) if isinstance(self.label, str) else self.label

    @property
    def class_names(self) -> tuple[str, ...]:
        """Return what classes are called where a model learns any; none where they go by number."""
        return self.classes or (self.labels if len(self.labels) > 1 else ())

    @property
    def columns(self) -> tuple[str, ...]:
        """Return what the inputs of one row are called, in their order; none where they go by position.

        The features; for missing = "mask" each once more, as "NAME missing"; of each time feature a sine and a cosine.
        """
        masks = tuple(f"{name} missing" for name in self.features) if self.missing == "mask" else ()
        times = tuple(f"{name} {wave}" for name in self.time_features for wave in ("sine", "cosine"))
        return (*self.features, *masks, *times)

    @property
    def n_rows(self) -> int:
        """Return how many rows an example has: the length of a window, else 1."""
        return 1 if self.window is None else self.window.length

    @property
    def n_inputs(self) -> int | None:
        """Return how many inputs a model has to have; None where columns go by position."""
        return len(self.columns) * self.n_rows if self.features else None

    @property
    def advice(self) -> str:
        """Return what to do where training takes steps that are far too long, for a message's end."""
        if self.normalise != "none":
            return "lower learning_rate in [train]"
        return 'scale the data, or normalise (normalise = "standard" in [contract]), or lower learning_rate in [train]'

    @property
    def agrees(self) -> bool:
        """Return whether the fleet has to agree on something before anybody trains: the job then has a first round for
        it (models/agreement.py).
        """
        stated = self.normalise == "minmax" and bool(self.features) and set(self.features) <= self.ranges.keys()
        return (self.normalise in ("standard", "minmax") and not stated) or self.class_weight == "balanced"


NO_CONTRACT = ContractSpec()
"""Of a job that says nothing of its data: columns go by position, and as each source says."""
