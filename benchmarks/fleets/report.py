"""The table: a row for each coding on each fleet beside float32 on the same seeds, the worst first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct, structs

from benchmarks.fleets.catalogue import Fleet
from benchmarks.fleets.curves import Estimate, Float64, NoRiseError, crossings, end_gap, rounds_ratio
from benchmarks.fleets.runs import Kept

HEADER = (
    "fleet",
    "coding",
    "constants",
    "rounds ratio",
    "bound",
    "passes",
    "to",
    "rounds",
    "end",
    "B up",
    "B down",
    "up",
    "down",
    "seeds",
)
NOTES = """\
Rounds ratio: rounds by those of float32 on the same seeds, the median over all levels from 60 % of the rise to "to", on
curves that are means over seeds and over the last three rounds; ± its standard error (jackknife over seeds); > where
less than half of the levels were reached. To: of an accuracy, or of a loss that falls; * the best of float32, which did
not reach the fleet's target. Passes: the ratio less one standard error is at most the bound and, where a fleet bounds
it, the end (the mean of the last rounds, in points of accuracy beside float32) plus one standard error is not below it.
Rounds: to the last level, beside float32's. Bytes: payload of MQTT a device and update, bodies alone in brackets; up
and down: how many times fewer than float32 in the same number of rounds. Constants: whether a codec's constants may be
chosen on the fleet, or it is only reported."""


class Row(Struct, frozen=True):
    """A coding on a fleet."""

    fleet: str
    coding: str
    chosen: bool
    bound: float
    seeds: int
    rounds: int
    """That each run has."""
    parameters: int = 0
    ratio: float = math.inf
    ratio_error: float = math.nan
    reached: bool = True
    """Whether half of the levels at least were reached."""
    target: float = math.nan
    """The last level, as an accuracy or a loss."""
    lowered: bool = False
    """Whether float32 did not reach the fleet's own target, so that the last level is the best that it reached."""
    falls: bool = False
    rounds_ours: float = math.nan
    """To the last level; one more than there are where it was not reached."""
    rounds_theirs: float = math.nan
    end: float = math.nan
    """Of the last rounds, what ours are better by than float32's: points of accuracy, or loss."""
    end_error: float = math.nan
    most_lost: float | None = None
    bytes_up: float = math.nan
    """Payload a device and update."""
    bytes_down: float = math.nan
    body_bytes_up: float = math.nan
    body_bytes_down: float = math.nan
    fewer_up: float = math.nan
    """Times fewer bytes than float32 in the same number of rounds."""
    fewer_down: float = math.nan
    curve: list[float] = []
    """Mean over seeds, by rounds."""
    baseline: list[float] = []
    failed: str = ""
    """Why there is nothing to compare."""

    @property
    def excess(self) -> float:
        """The ratio less its bound: what rows are ordered by."""
        return self.ratio - self.bound

    @property
    def passes(self) -> bool:
        """Whether the fleet is served within its bounds, but for one standard error."""
        if self.failed or Estimate(self.ratio, self.ratio_error).least > self.bound:
            return False
        return self.most_lost is None or Estimate(-self.end, self.end_error).least <= self.most_lost


def row(fleet: Fleet, coding: str, ours: Mapping[int, Kept], theirs: Mapping[int, Kept], failed: str = "") -> Row:
    """Compare a coding's runs with those of float32, by seed."""
    seeds = sorted(ours.keys() & theirs.keys())
    plain = Row(
        fleet.name,
        coding,
        fleet.chosen,
        fleet.bound,
        len(seeds),
        fleet.rounds,
        falls=fleet.falls,
        most_lost=fleet.most_lost,
        failed=failed,
    )
    if failed or not seeds:
        return structs.replace(plain, failed=failed or "no seed has run in both")
    ours_of, theirs_of = [ours[seed] for seed in seeds], [theirs[seed] for seed in seeds]
    scores, others = _scores(fleet, ours_of), _scores(fleet, theirs_of)
    sign = -1.0 if fleet.falls else 1.0
    measured = {
        "parameters": ours_of[0].parameters,
        "curve": _mean(sign * scores),
        "baseline": _mean(sign * others),
        **_bytes(ours_of, theirs_of),
    }
    gap = end_gap(scores, others)
    unit = 1.0 if fleet.falls else 100.0
    measured |= {"end": unit * gap.value, "end_error": unit * gap.error}
    try:
        reached = crossings(scores, others, sign * fleet.target, fleet.since)
        ratio = rounds_ratio(scores, others, sign * fleet.target, fleet.since)
    except NoRiseError as error:
        return structs.replace(plain, **measured, failed=str(error))
    last = reached[-1]
    return structs.replace(
        plain,
        **measured,
        ratio=ratio.value,
        ratio_error=ratio.error,
        reached=2 * sum(one.reached for one in reached) >= len(reached),
        target=sign * last.level,
        lowered=last.level < sign * fleet.target,
        rounds_ours=last.ours,
        rounds_theirs=last.theirs,
    )


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """Return the rows by how far their ratio lies above its bound; what has failed comes before all."""
    return sorted(rows, key=lambda row: (not row.failed, -row.excess, row.fleet, row.coding))


def markdown(rows: Sequence[Row]) -> str:
    """Return a table, the worst row first."""
    lines = [HEADER, tuple("---" for _ in HEADER), *map(_cells, worst_first(rows))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: Row) -> tuple[str, ...]:
    ratio = "–" if row.failed else f"{'' if row.reached else '>'}{row.ratio:.3f}{_error(row.ratio_error, 3)}"
    late = ">" if row.rounds_ours > row.rounds else ""
    end = f"{row.end:+.3f}{_error(row.end_error, 3)}" if row.falls else f"{row.end:+.2f}{_error(row.end_error, 2)}"
    return (
        row.fleet,
        row.coding,
        "chosen on" if row.chosen else "reported",
        ratio,
        f"{row.bound:.2f}" + ("" if row.most_lost is None else f", end −{row.most_lost:g}"),
        row.failed or ("yes" if row.passes else "**no**"),
        "–" if row.failed else f"{row.target:.4g}{'*' if row.lowered else ''}",
        "–" if row.failed else f"{late}{min(row.rounds_ours, row.rounds):.1f} / {row.rounds_theirs:.1f}",
        end,
        f"{row.bytes_up:,.0f} ({row.body_bytes_up:,.0f})",
        f"{row.bytes_down:,.0f} ({row.body_bytes_down:,.0f})",
        f"{row.fewer_up:.1f}x",
        f"{row.fewer_down:.1f}x",
        str(row.seeds),
    )


def _error(error: float, digits: int) -> str:
    return "" if math.isnan(error) else f" ± {error:.{digits}f}"


def _scores(fleet: Fleet, runs: Sequence[Kept]) -> Float64:
    """Return (seeds, rounds) of what is to rise."""
    return np.stack([-run.column("loss") if fleet.falls else run.column("accuracy") for run in runs])


def _mean(values: Float64) -> list[float]:
    return [round(float(value), 5) for value in values.mean(axis=0)]


def _bytes(ours: Sequence[Kept], theirs: Sequence[Kept]) -> dict[str, float]:
    n_updates = _total(ours, "participants")
    found = {
        name: _total(ours, name) / n_updates for name in ("bytes_up", "bytes_down", "body_bytes_up", "body_bytes_down")
    }
    fewer = {f"fewer_{way}": _total(theirs, f"bytes_{way}") / _total(ours, f"bytes_{way}") for way in ("up", "down")}
    return found | fewer


def _total(runs: Sequence[Kept], name: str) -> float:
    return float(sum(run.column(name).sum() for run in runs))
