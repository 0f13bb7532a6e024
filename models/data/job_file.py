"""The lines of a drafted job file: TOML, with what was found as comments. Pure."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from models.contract import MOST_FEATURES
from models.data.settings import SourceSettings
from models.data.suggested_net import Suggested, of_row

_TEXTS = ("format", "query", "delimiter", "decimal", "encoding", "comment", "thousands", "quote", "time_format")
"""Keys of a source that are in its table on each device as they were said here."""
_MOST_OFFSET = 100.0
"""How much larger than their spread labels of values may be before that is remarked on;"""
_SMALL = 0.05
"""and how small."""
_UNIT = re.compile(r"[(\[]([^()\[\]]{1,20})[)\]]\s*\Z")


_RATE = 0.05
"""The learning rate of a draft;"""
_STEP = 0.1
"""over the size of labels that are values, where that is less: a net whose answers are large is as steep."""


_RARE = 0.3
"""A class is rare that has less than this share of what it would have if all had as many rows."""
_MOST_LEFT_OUT = 0.2
"""Share of the rows that may be left out for their empty cells, at most; else these are filled."""


class Values(Struct, frozen=True):
    """How large labels are that are values."""

    n: int = 0
    total: float = 0.0
    squares: float = 0.0

    def noted(self, values: npt.NDArray[np.float64]) -> Values:
        """Return the same with some more."""
        return Values(
            self.n + len(values), self.total + float(values.sum()), self.squares + float(np.square(values).sum())
        )

    @property
    def size(self) -> float:
        """The root of the mean of their squares."""
        return math.sqrt(self.squares / self.n) if self.n else 1.0

    @property
    def spread(self) -> float:
        """The standard deviation, as exact as these sums are."""
        return math.sqrt(max(0.0, self.squares / self.n - (self.total / self.n) ** 2)) if self.n else 1.0

    @property
    def advice(self) -> list[str]:
        """Comments on labels that a net learns badly as they are: labels are not normalised."""
        if self.spread < self.size / _MOST_OFFSET:
            mean = self.total / max(1, self.n)
            told = f"# Its values vary by about {self.spread:.1g} around {mean:.4g}: a net learns what they differ by"
            return [f"{told} well, these badly."]
        if self.size < _SMALL:
            return [f"# Its values are small, about {self.size:.1g}: a net learns them better in a smaller unit."]
        return []


class Column(Struct, frozen=True):
    """What a column seems to be."""

    name: str
    role: str
    """feature, label, time, group or unused."""
    why: str
    """Why it is that; of a feature, what is worth knowing."""
    missing: float
    """Share of its cells."""


def head(settings: SourceSettings, n_rows: int, notes: Iterable[str], columns: Sequence[Column]) -> list[str]:
    """Return the comments on top: what was found."""
    found = "".join(f"; {note}" for note in notes)
    lines = [
        f"# A draft for {_remark(PurePath(settings.path).name)}: {n_rows:,} rows{_remark(found)}.",
        "# Look at every line, then: fedge job submit FILE --check",
        "#",
    ]
    missing = [one for one in columns if one.missing and one.role in ("feature", "label")]
    lines += [f"# missing: {one.missing:.1%} of {_remark(one.name)}" for one in missing[:20]]
    lines += [f"# left out: {_remark(one.name)}: {one.why}" for one in columns if one.role == "unused"][:20]
    keys = {"path": settings.path}
    keys |= {key: text for key in _TEXTS if isinstance(text := getattr(settings, key), str)}
    keys |= {one.role: one.name for one in reversed(columns) if one.role in ("time", "group", "label")}
    lines += ["# On each device, in agent.toml:", f"#   [data.{_name(settings)}]"]
    told = [f"#   {key} = {_remark(quoted(text))}" for key, text in keys.items()]
    if settings.header is not None:
        told.append(f"#   header = [{', '.join(_remark(quoted(name)) for name in settings.header)}]")
    return [*lines, *told, ""]


def body(
    settings: SourceSettings,
    features: Sequence[str],
    label: str,
    why: str,
    classes: Sequence[str] | None,
    *,
    pixels: str,
    labels: Counter[str],
    shape: Sequence[int] | None = None,
    outputs: int = 1,
    values: Values | None = None,
    missing: float = 0.0,
) -> list[str]:
    """Return the lines of the job.

    shape: of a row, where columns have no names. values: how large labels are that are values: large ones want small
    steps. missing: the shares of the features' cells, added up.
    """
    named = list(features) if len(features) <= MOST_FEATURES else []
    shape = (len(features),) if shape is None else shape
    n_outputs = outputs if classes is None else max(2, len(classes))
    counted = bool(classes) and list(classes or ()) == [str(at) for at in range(len(classes or ()))]
    size = 1.0 if values is None else values.size
    rate = max(1e-12, min(_RATE, float(f"{_STEP / max(size, 1e-30):.1g}")))
    fills = missing > _MOST_LEFT_OUT
    net = of_row(shape, n_outputs, are_bytes=pixels == "pixels", are_classes=classes is not None)
    lines = [f"name = {quoted(_name(settings))}", "", "[model]", *([f"# {net.why}"] if net.why else [])]
    lines += [f'kind = "{net.kind}"', f"inputs = {math.prod(shape)}", f"hidden = {list(net.hidden)}"]
    lines += [f"outputs = {n_outputs}", f'loss = "{"mse" if classes is None else "cross_entropy"}"', ""]
    lines += ["[model.options]", *(f"{key} = {value}" for key, value in net.options.items()), ""] if net.options else []
    lines += ["[contract]"]
    if named:
        lines += ["# In this order, whatever that of a device's columns.", "features = ["]
        lines += [f"    {quoted(name)}," for name in named] + ["]"]
    elif features:
        lines += [f"# {len(features):,} columns are more than a contract names: they go by position."]
    else:
        lines += ["# Columns have no names here: they go by position."]
    lines += [] if values is None else values.advice
    lines += [f"# {why[0].upper()}{why[1:]}.", f"label = {quoted(label)}"]
    if classes is not None and len(classes) == 1:
        lines += ["# There is one class alone: a second one was made room for. Do other devices have it?"]
    if classes is not None:
        most = ", ".join(f"{_remark(name)}: {labels[name]:,}" for name in classes[:20])
        said = counted or len(classes) == 1
        lines += [f"# Rows of each: {most}", f"{'# ' * said}classes = [{', '.join(map(quoted, classes))}]"]
    units = {name: match[1].strip() for name in (*named, label) if (match := _UNIT.search(name))}
    if units and named:
        lines += [f"units = {{ {', '.join(f'{quoted(name)} = {quoted(unit)}' for name, unit in units.items())} }}"]
    how = {"pixels": "Bytes of images are divided by 255.", "standard": "Mean 0 and variance 1 over the fleet."}
    lines += [
        f"# {how[pixels]}",
        f'normalise = "{pixels}"',
        f"# {missing:.0%} of the rows would be left out: empty cells are filled."
        if fills
        else '# Rows with an empty cell are left out; or "mean", "last".',
    ]
    lines += [
        f'missing = "{"mean" if fills else "skip"}"',
        "# Each device holds rows back and scores versions on them; else only [tests] of the aggregator measure more",
        "# than the loss.",
        "#validation = 0.1",
        *_on_rare(classes, labels),
        "",
        "[train]",
        "epochs = 1",
        "batch_size = 20",
        *_steps(net, rate, size),
        "",
        "[rounds]",
    ]
    lines += [
        "# Fewest devices that make a version: at least half of those that you have.",
        "quorum = 2",
        "deadline_s = 60",
    ]
    return [
        *lines,
        "max_rounds = 50",
        "# Ends when nothing is gained any more.",
        'stop = { metric = "loss", patience = 8 }',
    ]


def _steps(net: Suggested, rate: float, size: float) -> list[str]:
    """Return the optimizer. rate: of SGD; size: of the labels."""
    if net.adam_rate is not None:
        told = "# Steps of about this size, whatever the gradients."
        return [told, 'optimizer = "adam"', f"learning_rate = {net.adam_rate:g}"]
    small = [f"# Small, since labels are large: about {_STEP:g} / {size:.2g}."] if rate < _RATE else []
    return [*small, f"learning_rate = {rate:g}"]


def _on_rare(classes: Sequence[str] | None, labels: Counter[str]) -> list[str]:
    """Return what to think of where a class is rare: to say always another one is nearly always right."""
    n_rows = sum(labels[name] for name in classes or ())
    if not classes or len(classes) < 2 or not n_rows:
        return []
    name = min(classes, key=lambda one: labels[one])
    if labels[name] * len(classes) > _RARE * n_rows:
        return []
    share, measure = labels[name] / n_rows, quoted(f"recall:{name}")
    return [
        f"# {_remark(name)} is {share:.1%} of the rows, so accuracy says little: balanced, a row of it weighs more;",
        f"# and [rounds] stop can go by macro_f1, or by {_remark(measure)}.",
        '#class_weight = "balanced"',
    ]


def _name(settings: SourceSettings) -> str:
    """Return what the job is called: as the file."""
    stem = PurePath(settings.path).name.partition(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_")[:64] or "job"


def quoted(text: str) -> str:
    """Return a text as TOML has it, in quotes."""
    plain = json.dumps(text.encode("utf-8", "replace").decode(), ensure_ascii=False)
    return "".join(sign if sign.isprintable() else _escaped(ord(sign)) for sign in plain)


def _escaped(code: int) -> str:
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _remark(text: str) -> str:
    """Return a text for a comment, which is one line."""
    return "".join(sign if sign.isprintable() else " " for sign in text)[:200]
