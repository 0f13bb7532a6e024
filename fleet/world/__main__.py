"""`python -m fleet.world`: run many schedules, and say what came of them.

--schedules 2000 --seed 1 --jobs 2      2,000 of them, on two processors; exit 1 when a law was broken
--plant NAME                            take a fix out, and look for the first schedule that finds it; exit 1 if none
--schedules 1 --seed 7 --verbose        one of them, with everything that happened
--rich                                  others: jobs that ask for all there is: agreeing, scoring, patience
--quarantine                            others: devices are put in quarantine and released, and some say how they are
--hostile                               others: somebody says anything, with absurd numbers, and is gone; exit 1 where
                                        the fleet did not go on by itself (hostile.py)
"""

from __future__ import annotations

import argparse
import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from typing import NamedTuple

from fleet.world import plants
from fleet.world.hostile import HostileReport, attack
from fleet.world.plants import Plant
from fleet.world.weather import PROFILES
from fleet.world.world import WorldReport, run

log = logging.getLogger("fleet.world")

TELL_EVERY_S = 10.0


class Kind(NamedTuple):
    """What is asked for beside; see `run`."""

    rich: bool
    quarantine: bool


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for. Return 0 or 1; see above."""
    args = _arguments(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if args.hostile:
        return _attack(range(args.seed, args.seed + args.schedules), args.jobs, verbose=args.verbose)
    plant = plants.PLANTS[args.plant] if args.plant else None
    profile = args.profile or (plant.profile if plant is not None else None)
    seeds = range(args.seed, args.seed + args.schedules)
    kind = Kind(args.rich, args.quarantine or (plant is not None and plant.quarantine))
    reports = _aloud(seeds, profile, plant, kind) if args.verbose else _run_all(seeds, profile, plant, args.jobs, kind)
    return _look_for(plant, reports) if plant is not None else _sum_up(reports, len(seeds))


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fleet.world", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--schedules", type=int, default=2000, help="how many (2000)")
    parser.add_argument("--seed", type=int, default=1, help="the first one's seed; the others follow (1)")
    parser.add_argument("--profile", choices=sorted(PROFILES), help="only this kind of weather")
    parser.add_argument("--plant", choices=sorted(plants.PLANTS), help="take this fix out, and look for it")
    parser.add_argument("--hostile", action="store_true", help="somebody says anything, with absurd numbers")
    parser.add_argument("--rich", action="store_true", help="with jobs that ask for all there is")
    parser.add_argument("--quarantine", action="store_true", help="with devices in quarantine, and released")
    parser.add_argument("--jobs", type=int, default=1, help="processes to run them in (1)")
    parser.add_argument("--verbose", action="store_true", help="tell all that happens")
    return parser.parse_args(argv)


def _one(seed: int, profile: str | None, plant: str, kind: Kind) -> WorldReport:
    with plants.planted(plants.PLANTS[plant]) if plant else nullcontext():
        return run(seed, profile, **kind._asdict())


def _run_all(
    seeds: Sequence[int], profile: str | None, plant: Plant | None, jobs: int, kind: Kind
) -> Iterator[WorldReport]:
    name = plant.name if plant is not None else ""
    if jobs < 2:
        yield from (_one(seed, profile, name, kind) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        try:
            yield from pool.map(_one, seeds, *([one] * len(seeds) for one in (profile, name, kind)), chunksize=4)
        finally:
            pool.shutdown(cancel_futures=True)


def _attack(seeds: Sequence[int], jobs: int, *, verbose: bool) -> int:
    began = told = time.monotonic()
    done = bad = 0
    roles: Counter[str] = Counter()
    recovered_s = [0.0]
    for report in _attacks(seeds, jobs, verbose=verbose):
        done, bad = done + 1, bad + bool(report.why)
        roles[report.role] += report.messages
        if report.why:
            log.error("seed=%d role=%s messages=%d %s", report.seed, report.role, report.messages, report.why)
        else:
            recovered_s.append(report.recovered_s)
        if (now := time.monotonic()) >= told + TELL_EVERY_S:
            told, left_s = now, (now - began) / done * (len(seeds) - done)
            log.info("schedules=%d of %d stuck=%d seconds_left=%.0f", done, len(seeds), bad, left_s)
    said = " ".join(f"{role}={n}" for role, n in sorted(roles.items()))
    log.info("schedules=%d stuck=%d longest_s=%.0f messages: %s", done, bad, max(recovered_s), said)
    return 1 if bad else 0


def _attacks(seeds: Sequence[int], jobs: int, *, verbose: bool) -> Iterator[HostileReport]:
    if verbose or jobs < 2:
        yield from (attack(seed, log.info if verbose else None) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        try:
            yield from pool.map(attack, seeds, chunksize=4)
        finally:
            pool.shutdown(cancel_futures=True)


def _aloud(seeds: Sequence[int], profile: str | None, plant: Plant | None, kind: Kind) -> Iterator[WorldReport]:
    for seed in seeds:
        with plants.planted(plant) if plant is not None else nullcontext():
            yield run(seed, profile, log.info, **kind._asdict())


def _look_for(plant: Plant, reports: Iterator[WorldReport]) -> int:
    for n, report in enumerate(reports, 1):
        found = [violation for violation in report.violations if plant.is_found_by(violation)]
        if found:
            log.info("plant=%s found at seed=%d after %d schedules: %s", plant.name, report.seed, n, found[0])
            return 0
    log.error("plant=%s was not found", plant.name)
    return 1


def _sum_up(reports: Iterator[WorldReport], n: int) -> int:
    began = told = time.monotonic()
    done, bad, events, versions, made_up_s = 0, 0, 0, 0, 0.0
    laws: Counter[tuple[int, str]] = Counter()
    for report in reports:
        done, events, versions = done + 1, events + report.events, versions + report.versions
        made_up_s += report.made_up_s
        bad += bool(report.violations)
        for violation in report.violations:
            laws[violation.law, violation.kind] += 1
            log.error("seed=%d profile=%s %s", report.seed, report.profile, violation)
        now = time.monotonic()
        if now >= told + TELL_EVERY_S:
            told, left_s = now, (now - began) / done * (n - done)
            log.info("schedules=%d of %d violated=%d seconds_left=%.0f", done, n, bad, left_s)
    for (law, kind), times in sorted(laws.items()):
        log.error("law=%d times=%d %s", law, times, kind)
    took = time.monotonic() - began
    log.info(
        "schedules=%d violated=%d events=%d versions=%d made_up_hours=%.0f seconds=%.1f seconds_each=%.2f",
        *(done, bad, events, versions, made_up_s / 3600.0, took, took / max(done, 1)),
    )
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
