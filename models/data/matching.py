"""Which columns of a table a job means: by name, whatever their order; what cannot be meant is said with its reason.

    contract + source's settings + header ──▶ Match: the columns of features, labels, weight, group and time

    features   the contract's; else the source's `features`; else all that have no other part
    label      the contract's; else the source's
    group      the contract's `by`; else the source's `group`
    time       the source's `time`

Other columns are ignored. (A source's `rename` gives columns the names that jobs know: its table's header has them.)
Names of columns may travel in a message; what stands in them may not.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

from models.contract import ContractSpec
from models.data.blocks import Kind
from models.data.cells import MISSING
from models.data.dataset import DatasetError
from models.data.naming import UNNAMED
from models.data.settings import SourceSettings

MOST_NAMED = 20
"""Columns that a message names."""
MOST_NAME = 60
"""Characters of a column's name in a message."""


class Match(NamedTuple):
    """The columns of a table that a job means, by what they are called there."""

    features: tuple[str, ...]
    """In the order of the model's inputs."""
    labels: tuple[str, ...]
    weight: str | None
    group: str | None
    """None where nobody asks for groups."""
    time: str | None
    """None where nobody asks for times."""
    wanted: dict[str, Kind]
    """All of them, and what their cells are read as."""


def how(settings: SourceSettings, contract: ContractSpec) -> Literal["skip", "mean", "last"]:
    """Return what becomes of a row with a missing value: as the source says, else as the job does (masks: the mean)."""
    if settings.missing is not None:
        return settings.missing
    return "mean" if contract.missing == "mask" else contract.missing


def match(
    settings: SourceSettings,
    contract: ContractSpec,
    header: Sequence[str],
    whose: str = "the table",
    *,
    is_named: bool = True,
) -> Match:
    """Return which columns are meant.

    whose: what has the header, for messages. is_named: whether the header can be nothing else, whatever is asked for.

    Raises DatasetError, naming all that are missing or there more than once.
    """
    labels, weight, time = contract.labels or (settings.label,), contract.weight, settings.time
    group = settings.group if contract.by is None else contract.by
    if contract.features:
        features = contract.features
    else:
        others = {*labels, weight, group, time}
        features = settings.columns or tuple(name for name in header if name not in others)
    ordered = contract.window is not None or how(settings, contract) == "last"
    group = group if ordered or contract.validation else None
    time = time if ordered or contract.time_features else None
    if contract.time_features and time is None:
        raise DatasetError(
            f"{settings.path}: the job makes inputs of the time of a row (time_features), and which column that is "
            'nobody says: add time = "COLUMN" to the source\'s table'
        )
    names = [*features, *labels, *(name for name in (weight, group, time) if name is not None)]
    asked = (*contract.features, *settings.columns, *labels, weight, group, time)
    check(settings, contract, header, names, whose, is_named=is_named or not set(header).isdisjoint(asked))
    weights = () if weight is None else (weight,)
    for name in (*labels, *weights):
        if name in features:
            raise DatasetError(
                f"{settings.path}: column {_short(name)!r} is a label or a weight, and a feature as well"
            )
    if weight in labels:
        raise DatasetError(f"{settings.path}: column {_short(weight or '')!r} is the label, and the weight as well")
    if time in (*features, *labels, *weights):
        raise DatasetError(
            f"{settings.path}: column {_short(time or '')!r} is the time of a row, and a feature, a label or a weight "
            "as well: it can be one of them (time_features in the job's [contract] make inputs of a time)"
        )
    if not features:
        raise DatasetError(f"{settings.path}: {whose} has no column beside {', '.join(labels)}: there is no feature")
    wanted = dict.fromkeys(features, Kind.NUMBER)
    wanted |= dict.fromkeys(labels, _kind(settings, contract, len(labels)))
    if weight is not None:
        wanted[weight] = Kind.NUMBER
    if group is not None:
        wanted.setdefault(group, Kind.TEXT)
    if time is not None:
        wanted[time] = Kind.TIME
    return Match(features, labels, weight, group, time, wanted)


def _kind(settings: SourceSettings, contract: ContractSpec, n_labels: int) -> Kind:
    """Return what labels are read as. A class may be called as what stands for nothing elsewhere ("None", "NA"), unless
    the source says what stands for nothing. Of several labels, classes are what they are called, not what is in them.
    """
    if not contract.classes or n_labels > 1:
        return Kind.NUMBER
    marked = any(name.strip().lower() in MISSING for name in contract.classes)
    return Kind.LABEL if marked and settings.missing_values is None else Kind.TEXT


def check(
    settings: SourceSettings,
    contract: ContractSpec,
    header: Sequence[str],
    names: Sequence[str],
    whose: str,
    *,
    is_named: bool = True,
) -> None:
    """Raise DatasetError, naming all of these columns that are missing or there more than once.

    is_named: whether the header is one for certain. Where it may be a row its words are told to nobody.
    """
    known = set(header)
    missing = [name for name in dict.fromkeys(names) if name not in known]
    doubled = [name for name in dict.fromkeys(names) if header.count(name) > 1]
    if not missing and not doubled:
        return
    if not is_named:
        said = f"{settings.path}: no column {_listed(missing, ())}; {UNNAMED}"
        raise DatasetError(said, cell=", ".join(header[:MOST_NAMED]))
    told = [f"no column {_listed(missing, known)}"] if missing else []
    told += [f"more than one column {_listed(doubled, ())}"] if doubled else []
    has = ", ".join(_short(name) for name in header[:MOST_NAMED]) or "nothing"
    more = f" and {len(header) - MOST_NAMED} more" if len(header) > MOST_NAMED else ""
    advice = ""
    if doubled:
        advice = ": have each once"
    elif contract.features or contract.labels:
        advice = (
            ': call them so there, or say in the source\'s table what they are called here, rename = {"HERE" = "NAME"}'
        )
    elif settings.label in missing:
        advice = ': is another one the label? Say in the source\'s table label = "ITS NAME"'
    raise DatasetError(f"{settings.path}: {' and '.join(told)}; {whose} has {has}{more}{advice}")


def _listed(names: Sequence[str], known: Collection[str]) -> str:
    """Return the names, each with the one that may be meant instead."""
    small: dict[str, str] = {}
    for name in sorted(known):
        small.setdefault(name.casefold(), name)
    looks = {_look(name): name for name in small.values()}
    told = []
    for name in names[:MOST_NAMED]:
        near = difflib.get_close_matches(name.casefold(), small, 1, 0.75) if len(small) <= 1000 else []
        like = f" (is it {_short(small[near[0]])!r}?)" if near else ""
        if (same := looks.get(_look(name))) is not None and same.lower() != name.lower():
            like = f" (is it {_short(same)!r}, which looks alike and is written in other characters?)"
        told.append(repr(_short(name)) + like)
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(told) + more


def _look(name: str) -> str:
    """Return what a name looks like: letters that are written in several ways, and kinds of spaces, are one."""
    return " ".join(unicodedata.normalize("NFKC", name).split()).casefold()


def _short(name: str) -> str:
    return name if len(name) <= MOST_NAME else name[: MOST_NAME - 1] + "…"
