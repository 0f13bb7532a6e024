"""`fedge agent predict`: answers from the model that a device serves now.

Rows are read by the model's own contract, which is in its card, and as the device's source says that it trains on:
columns by name, in any order, the label ignored. So the very file that a device trains on can be asked about.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from msgspec import structs, to_builtins

from edge_agent.card import Card, SlotError
from edge_agent.config import AgentConfig
from edge_agent.slot import Slot, open_slot
from edge_agent.slots import slot_path
from fleet.console import anomalies
from models.agreement import of_model
from models.contract import NO_CONTRACT
from models.data import asked, matching, table
from models.data.asked import Asked
from models.data.csv_file import load_rows
from models.data.dataset import DatasetError
from models.data.settings import SourceSettings
from models.data.source import DataSource
from models.nets import losses
from models.params import Float32
from models.serving import session
from models.serving.session import Session
from runtime.settings import SettingsError, convert, inline, load

_ROWS_AT_ONCE = 2**14
_OWN_KEYS = ("label", "features", "time", "group", "rename", "missing", "missing_values")
"""Of a device's source: those that mean the same in a file of another format."""


def predict(config_path: Path, rows: Path, job: str | None, *, as_json: bool, source: str | None = None) -> int:
    """Print one answer a row: the class and its probability, or the values; of a row that cannot be used an empty one.

    source: more keys of the file, as TOML has them in one line. Raises SettingsError, SlotError or DatasetError.
    """
    config = load(config_path, AgentConfig)
    name = job or _only_job(Path(config.state_dir))
    child = Session() if session.probe() is None else None
    slot = open_slot(slot_path(Path(config.state_dir), name), session=child, allow=config.models.allow)
    try:
        card = slot.card
        if card is None:
            raise SlotError(f"job {name} has no model here yet")
        own = _own_source(config, name)
        ways = _settings_of(rows, own, source)
        if card.contract == NO_CONTRACT and _is_plain(ways[0]):
            X = load_rows(rows, card.model.inputs)
            found = Asked(X, np.arange(len(X)), np.arange(len(X)), ())
        else:
            found = _read(ways, card, own)
        answers = _answers(slot, found.X)
    finally:
        slot.close()
    _tell(found)
    if card.model.finds_anomalies:
        sys.stderr.write(f"fedge: {anomalies.note(card)}\n")
    if card.quantised is not None:
        sys.stderr.write(f"fedge: model.onnx: {card.quantised}\n")
    if as_json:
        _write_json(card, found, answers)
    else:
        sys.stdout.write("\n".join(_lines(card, found, answers)) + "\n")
    return 0


_NUMBER = re.compile(r"[-+]?[\d.,']*(?:e[-+]?\d+)?|nan|na|n/a|null|none", re.IGNORECASE)
"""A cell, or what stands for none."""


# What is asked.


def _own_source(config: AgentConfig, job: str) -> DataSource | None:
    """Return the source that a job trains on: the one of its name, or the only one."""
    if job in config.data:
        return config.data[job]
    return next(iter(config.data.values())) if len(config.data) == 1 else None


def _settings_of(path: Path, own: DataSource | None, source: str | None) -> list[SourceSettings]:
    """Return the ways in which a file may be meant to be read, the likeliest first. source: more keys.

    As the device's own, if it is that; else as what is found by looking, with the names that the device's has.
    """
    usual = SourceSettings(str(path))
    keys = {} if source is None else inline(source, "--source")
    found = [usual]
    if own is not None:
        same_format = table.find(own) is table.find(structs.replace(usual, format=keys.get("format")))
        as_named, as_own = (_like(own, usual, names) for names in (_OWN_KEYS, SourceSettings.__struct_fields__))
        found = [as_own, as_named] if Path(own.path).absolute() == path.absolute() else [as_named, as_own]
        if not same_format:
            found.remove(as_own)
        found += [structs.replace(one, rename={}) for one in found if one.rename]  # called as the job calls them
    return [_with(one, keys) for one in found]


def _like(own: DataSource, usual: SourceSettings, names: Sequence[str]) -> SourceSettings:
    kept = {one: getattr(own, one) for one in names if one not in ("path", "query", "format", "max_skipped")}
    return structs.replace(usual, **kept)


def _with(settings: SourceSettings, keys: dict[str, object]) -> SourceSettings:
    """Return the settings with these keys in place of their own. Raises SettingsError."""
    plain = {one: getattr(settings, one) for one in SourceSettings.__struct_fields__}
    found = convert({**plain, **keys}, SourceSettings, settings.path)
    try:
        table.check(found)
    except ValueError as error:
        raise SettingsError(f"{settings.path}: {error}") from error
    return found


def _is_plain(settings: SourceSettings) -> bool:
    """Return whether a file is a CSV of features alone, as those without a contract have ever been: by position."""
    row = table.find(settings)
    if row is not None and row.called != "csv":
        return False
    try:
        opened = table.known(structs.replace(settings, format="csv")).open(settings, ended=False)
    except DatasetError:
        return True
    try:
        return settings.label not in opened.header
    finally:
        opened.close()


def _has_no_names(row: table.Format, settings: SourceSettings) -> bool:
    """Return whether a CSV begins with numbers: a file whose columns have other names is not read by position."""
    try:
        opened = row.open(settings, ended=False)
    except DatasetError:
        return True
    try:
        return all(_NUMBER.fullmatch(name.strip()) for name in opened.header)
    finally:
        opened.close()


def _read(ways: Sequence[SourceSettings], card: Card, own: DataSource | None) -> Asked:
    """Return the rows of a file, read in the first way that has what the model takes. Raises DatasetError."""
    contract, row = card.contract, table.known(ways[0])
    if row.called == "csv" and contract.features and _has_no_names(row, ways[0]):  # rows of features alone
        ways = [*ways, structs.replace(ways[0], rename={}, header=contract.features)]
    if row.called == "npz":  # features alone
        key = ways[0].columns[0] if len(ways[0].columns) == 1 else "X"
        ways = [*ways, structs.replace(ways[0], label=key)]
    first: DatasetError | None = None
    for settings in ways:
        try:
            opened = row.open(settings, ended=False, allow=table.factories_of(settings))
        except DatasetError as error:
            first = first or error
            continue
        try:
            asked.check(opened, settings, contract)
            place = "line" if row.called in ("csv", "jsonl") else "row"
            return asked.ask(opened, settings, contract, _fill(card, settings, own), place=place)
        except DatasetError as error:
            first = first or error
        finally:
            opened.close()
    assert first is not None  # noqa: S101 -- there is a first way
    raise first


def _fill(card: Card, settings: SourceSettings, own: DataSource | None) -> Float32 | None:
    """Return what a device fills missing values with: the means of its own rows, else what its fleet has agreed on."""
    if matching.how(settings, card.contract) != "mean":
        return None
    if own is not None:
        try:
            opened = table.known(own).open(own, ended=False)
            try:
                found = asked.means(opened, own, card.contract)
            finally:
                opened.close()
            if found is not None:
                return found
        except DatasetError:
            pass  # the next best is at hand
    agreed = of_model(card.agreed, card.model, card.contract)
    n = len(card.contract.features)
    return None if agreed is None or card.contract.normalise != "standard" or not n else agreed.offset[:n]


# What is answered.


def _answers(slot: Slot, X: Float32) -> Float32:
    """Return (n, outputs) answers, worked out some rows at a time."""
    parts = [slot.predict(X[begin : begin + _ROWS_AT_ONCE]) for begin in range(0, len(X), _ROWS_AT_ONCE)]
    return np.concatenate(parts)


def _tell(found: Asked) -> None:
    """Say what was made of the file, where that is worth knowing, beside the answers."""
    for note in found.notes:
        if "left out" in note or "position" in note or "missing" in note:
            sys.stderr.write(f"fedge: {note}\n")


def _write_json(card: Card, found: Asked, answers: Float32) -> None:
    release, contract = card.release, card.contract
    told: dict[str, object] = {
        "job": release.job,
        "version": f"{release.generation}.{release.number}",
        "answers": answers.tolist(),
    }
    if contract != NO_CONTRACT:
        told |= {"rows": found.rows.tolist(), "lines": found.lines[found.rows].tolist()}
        told |= {"n_rows": len(found.lines), "notes": list(found.notes)}
        if card.model.classifies and contract.class_names:
            told |= {"classes": list(contract.class_names)}
        elif contract.labels:
            told |= {"labels": list(contract.labels)}
    if card.model.finds_anomalies:
        told |= anomalies.facts(card, answers[:, 0].tolist())
    if card.quantised is not None:
        told["quantised"] = to_builtins(card.quantised)
    json.dump(told, sys.stdout)
    sys.stdout.write("\n")


def _lines(card: Card, found: Asked, answers: Float32) -> Iterator[str]:
    """Yield the answers as CSV: a line for each row, an empty one for a row that cannot be used; of windows a line for
    each, with the line of its last row.
    """
    window, names = card.contract.window, _header(card)
    of_windows = window is not None and len(found.X) and len(found.rows) and found.lines.size
    told = [_answer(card, one) for one in answers.tolist()]
    if window is not None and of_windows:
        yield ",".join(("last_row", *map(_quoted, names or ("value",) * card.model.outputs)))
        for row, one in zip(found.lines[found.rows].tolist(), told, strict=True):
            yield f"{row},{one}"
        return
    if names:
        yield ",".join(map(_quoted, names))
    at = dict(zip(found.rows.tolist(), told, strict=True))
    nothing = "," * (max(2 if card.model.task in ("classes", "scores") else card.model.outputs, 1) - 1)
    yield from (at.get(row, nothing) for row in range(len(found.lines)))


def _header(card: Card) -> Sequence[str]:
    """Return what the columns of the answers are called; nothing where values have no names."""
    model, contract = card.model, card.contract
    if model.finds_anomalies:
        return anomalies.COLUMNS
    if model.task == "classes":
        return "class", "probability"
    if model.task == "labels":
        return contract.class_names or [str(at) for at in range(model.outputs)]
    levels = losses.of(model).levels
    return [f"{name} {level:g}" for name in contract.labels for level in levels] if levels else contract.labels


def _answer(card: Card, answer: Sequence[float]) -> str:
    if card.model.finds_anomalies:
        return anomalies.line(card, answer[0])
    if card.model.task != "classes":
        return ",".join(f"{value:.6f}" if card.model.classifies else f"{value:.6g}" for value in answer)
    if len(answer) == 1 < card.model.n_classes:  # the second of two
        answer = (1.0 - answer[0], answer[0])
    best = max(range(len(answer)), key=answer.__getitem__)
    name = card.contract.classes[best] if card.contract.classes else str(best)
    return f"{_quoted(name)},{answer[best]:.6f}"


def _quoted(name: str) -> str:
    """Return a cell as CSV has it."""
    return '"' + name.replace('"', '""') + '"' if any(sign in name for sign in ',"\r\n') else name


def _only_job(state_dir: Path) -> str:
    """Return the one job that has a model here. Raises SlotError when there are none or several."""
    names = sorted(path.parent.name for path in (state_dir / "models").glob("*/current"))
    if len(names) == 1:
        return names[0]
    if not names:
        raise SlotError(f"no model is installed under {state_dir} yet: the agent installs one as the job's deploy says")
    raise SlotError(f"there are models of {', '.join(names)}: choose one with --job")
