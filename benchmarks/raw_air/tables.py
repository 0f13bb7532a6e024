"""Twelve stations' hourly readings as twelve loggers would have written them, and as somebody prepares them by hand.

A row is an hour: twelve readings, and what is to be told from them, the fine dust six hours later, as a number and as
one of four levels. What is missing in the readings stays missing; the last fifth of the hours is for testing.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

AHEAD = 6
"""Hours from the readings to what is to be told."""
LEVELS = ("good", "fair", "poor", "bad")
EDGES = (35.0, 75.0, 150.0)
"""Micrograms of fine dust a cubic metre, between the levels."""
LEVEL, DUST = "level in 6 h", "PM2.5 in 6 h (µg/m³)"
TIME = "time"
TESTED = 0.2


class Station(NamedTuple):
    """readings: (hours, 12) float64, nan where missing. dust: (hours,), nan where not known."""

    name: str
    time: npt.NDArray[np.int64]
    readings: npt.NDArray[np.float64]
    dust: npt.NDArray[np.float64]

    def taken(self, rows: npt.NDArray[Any]) -> Station:
        """Return some of its hours."""
        return self._replace(time=self.time[rows], readings=self.readings[rows], dust=self.dust[rows])

    @property
    def whole(self) -> npt.NDArray[np.bool_]:
        """Which hours have all that is needed."""
        return np.isfinite(self.readings).all(axis=1) & np.isfinite(self.dust)

    @property
    def levels(self) -> list[str]:
        """The level of each hour; "" where it is not known."""
        return [LEVELS[int(np.searchsorted(EDGES, dust))] if math.isfinite(dust) else "" for dust in self.dust]


class Air(NamedTuple):
    """All stations. names: of the readings."""

    names: tuple[str, ...]
    train: list[Station]
    test: list[Station]


def read(path: Path) -> Air:
    """Read the arrays `raw`, `raw_time`, `raw_names` and `device_names` of an NPZ. Raises OSError, KeyError."""
    with np.load(path, allow_pickle=False) as file:
        raw, time = file["raw"].astype(np.float64), file["raw_time"]
        names = tuple(str(name) for name in file["raw_names"])
        stations = [str(name) for name in file["device_names"]]
    dust = np.full(raw.shape[:2], np.nan)
    dust[:, :-AHEAD] = raw[:, AHEAD:, names.index("PM2.5")]
    all_of = [Station(*one) for one in zip(stations, [time] * len(stations), raw, dust, strict=True)]
    last = int(len(time) * (1 - TESTED))
    hours = np.arange(len(time))
    return Air(names, [one.taken(hours[:last]) for one in all_of], [one.taken(hours[last:]) for one in all_of])


# By hand: no holes, every column standardised over the fleet.


def prepared(air: Air) -> tuple[list[Station], list[Station]]:
    """Return the stations without the hours that miss anything, standardised over all that is trained on."""
    train, test = ([one.taken(one.whole) for one in part] for part in (air.train, air.test))
    together = np.concatenate([one.readings for one in train])
    mean, spread = together.mean(axis=0), together.std(axis=0)
    scaled = [[one._replace(readings=(one.readings - mean) / spread) for one in part] for part in (train, test)]
    return scaled[0], scaled[1]


def as_arrays(station: Station) -> dict[str, npt.NDArray[Any]]:
    """Return what an NPZ has: X, y (the level) and dust."""
    levels = [LEVELS.index(level) for level in station.levels]
    return {
        "X": station.readings.astype(np.float32),
        "y": np.array(levels, np.int64),
        "dust": station.dust.astype(np.float32),
    }


# As loggers write: each station in its own way.


class Logger(NamedTuple):
    """How one writes: everything that may differ between two that measure the same."""

    file: str
    delimiter: str = ","
    decimal: str = "."
    missing: str = ""
    encoding: str = "utf-8"
    time: str = "%Y-%m-%d %H:%M:%S"
    """A format, or "s" or "ms"."""
    comment: str = ""
    """Lines that stand before the header."""


LOGGERS = (
    Logger("log.csv"),
    Logger("log.csv", ";", ",", encoding="utf-8-sig"),
    Logger("LOG.CSV", ";", ",", "NA", time="%d.%m.%Y %H:%M"),
    Logger("log.txt", "\t", missing="nan", time="s"),
    Logger("log.csv.gz", ",", missing="NULL", time="%Y-%m-%dT%H:%M:%SZ"),
    Logger("log.csv", "|", missing="-", comment="# station logger, firmware 3.1\n# serial 0042\n"),
    Logger("log.csv", ";", ",", encoding="utf-16", time="%d/%m/%Y %H:%M"),
    Logger("log.jsonl", time="ms"),
    Logger("readings.sqlite"),
    Logger("readings.db", time="s"),
)
"""Of the first stations; all others publish each hour to their site's broker."""


def columns_of(air: Air, rng: np.random.Generator) -> list[str]:
    """Return the columns of a station in an order of its own, with one that no job asks for."""
    names = [TIME, *air.names, LEVEL, DUST, "battery"]
    rng.shuffle(names)
    return names


def rows_of(air: Air, station: Station, names: Sequence[str], time: str) -> Iterator[dict[str, Any]]:
    """Return its hours; None where something is missing."""
    at = {name: column for column, name in enumerate(air.names)}
    for hour, level in enumerate(station.levels):
        cells: dict[str, Any] = {}
        for name in names:
            if name == TIME:
                cells[name] = _time(int(station.time[hour]), time)
            elif name == LEVEL:
                cells[name] = level or None
            elif name == "battery":
                cells[name] = 12.5 + hour % 7 / 10
            else:
                value = float(station.dust[hour] if name == DUST else station.readings[hour, at[name]])
                cells[name] = round(value, 6) if math.isfinite(value) else None
        yield cells


def _time(seconds: int, how: str) -> str | int:
    match how:
        case "s":
            return seconds
        case "ms":
            return 1000 * seconds
    return datetime.fromtimestamp(seconds, UTC).strftime(how)


def write(air: Air, station: Station, logger: Logger, folder: Path, rng: np.random.Generator) -> Path:
    """Write a station's hours as this logger does, and return the file."""
    path = folder / logger.file
    names = columns_of(air, rng)
    rows = rows_of(air, station, names, logger.time)
    if path.suffix in (".sqlite", ".db"):
        _write_sqlite(path, names, rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json_lines(rows)), encoding="utf-8")
    else:
        _write_csv(path, names, rows, logger)
    return path


def json_lines(rows: Iterator[dict[str, Any]]) -> Iterator[str]:
    """Return a line for each hour, without what is missing in it."""
    return (json.dumps({name: cell for name, cell in row.items() if cell is not None}) + "\n" for row in rows)


def _write_csv(path: Path, names: Sequence[str], rows: Iterator[dict[str, Any]], logger: Logger) -> None:
    def said(cell: object) -> str:
        if cell is None:
            return logger.missing
        return str(cell).replace(".", logger.decimal) if isinstance(cell, float) else str(cell)

    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding=logger.encoding, newline="") as file:
        file.write(logger.comment)
        writer = csv.writer(file, delimiter=logger.delimiter, lineterminator="\r\n")
        writer.writerow(names)
        writer.writerows([said(row[name]) for name in names] for row in rows)


def _write_sqlite(path: Path, names: Sequence[str], rows: Iterator[dict[str, Any]]) -> None:
    with sqlite3.connect(path) as database:
        database.execute(f"CREATE TABLE readings ({', '.join(_quoted(name) for name in names)})")
        marks = ", ".join("?" * len(names))
        database.executemany(
            f"INSERT INTO readings VALUES ({marks})",  # noqa: S608 -- question marks
            ([row[name] for name in names] for row in rows),
        )
    database.close()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
