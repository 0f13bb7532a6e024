"""The weather of a world: named profiles, each a choice of misfortunes, near to what the fleet is doing.

An unbiased storm finds nothing. So half of all misfortunes happen not at a time but at a *moment*: right after a
verdict or a version became durable, when a round was announced, when an update was put on a disk. And a process that is
to die does so at the n-th point that it passes, which is only where something goes on.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import NamedTuple

MOMENTS = (
    *("aggregator.Open.after", "aggregator.Announce.after", "aggregator.Collect.before", "store.add_verdict.after"),
    *("aggregator.SendVerdict.after", "aggregator.Commit.before", "aggregator.Commit.after", "aggregator.Close.after"),
    *("agent.Train.after", "training.epoch", "outbox.put.between", "agent.Send.after", "agent.Settle.before"),
)
"""Points at which a misfortune likes to happen."""


class Profile(NamedTuple):
    """A kind of weather. kinds: misfortunes, by weight. per_minute: how many of them come."""

    weight: int
    per_minute: tuple[float, float]
    kinds: Mapping[str, int]
    loss: tuple[float, ...] = (0.0, 0.0, 0.1, 0.4)
    double: tuple[float, ...] = (0.0, 0.1, 0.3)
    minutes: tuple[float, float] = (1.0, 3.0)
    """How long the bad weather lasts."""
    poisoned: bool = False
    long: bool = False
    """A world of hours: rounds and heartbeats are slow."""
    learned: float = 0.1
    small: bool = False
    """One short job on three devices at most."""
    keys: bool = False
    """Everybody signs, and believes signed words alone."""


BARRING = {"quarantine": 6, "release": 5}
"""What an operator does beside, in worlds that are asked for it."""
BARRED = ("store.quarantine.within", "store.quarantine.after")
"""Points at which a quarantine, or its end, is written; some aggregators die at one."""
DIE_HERE = "die here"
ROUGH = {"kill": 3, "kill soon": 8, "restart": 1, "partition": 4, "slow": 2, "freeze": 1, "stop broker": 1}
"""What happens everywhere."""

PROFILES: dict[str, Profile] = {
    "calm": Profile(1, (0.0, 0.0), {}, loss=(0.0,), double=(0.0,), minutes=(0.5, 1.0)),
    "storms": Profile(6, (3.0, 20.0), ROUGH),
    "drills": Profile(
        2,
        (20.0, 40.0),
        {"kill": 3, "kill soon": 10, "partition": 3, "slow": 1, "stop broker": 1},
        loss=(0.1, 0.3),
        double=(0.1, 0.3),
        minutes=(0.5, 0.8),
        small=True,
    ),
    "full-disk": Profile(3, (3.0, 10.0), ROUGH | {"fill": 25}),
    "backups": Profile(4, (2.0, 6.0), ROUGH | {"backup": 12, "restore": 12, "restore device": 6, "wrong folder": 3}),
    "two-aggregators": Profile(
        4, (2.0, 8.0), ROUGH | {"second": 12, "end second": 6, "kill server": 8, "take over": 3}
    ),
    "clones": Profile(
        3, (2.0, 6.0), ROUGH | {"clone": 8, "end clone": 5, "same folder": 3, "reimage": 8, "restore device": 3}
    ),
    "offline-day": Profile(
        2, (0.1, 0.4), {"partition": 6, "off": 3, "kill soon": 3, "stop broker": 2}, minutes=(120.0, 600.0), long=True
    ),
    "broker-restarts": Profile(
        4, (3.0, 12.0), {"stop broker": 14, "partition": 5, "kill": 4, "kill soon": 4, "slow": 1}
    ),
    "poisoned-jobs": Profile(3, (1.0, 8.0), ROUGH | {"stop job": 1}, poisoned=True),
    "devices": Profile(
        4, (2.0, 8.0), ROUGH | {"off": 6, "gone": 3, "diverge": 8, "lie": 3, "sluggish": 4, "reimage": 1}, learned=0.3
    ),
    "departures": Profile(2, (2.0, 6.0), ROUGH | {"off": 4, "gone": 8}),
    "keys": Profile(
        0,
        (3.0, 12.0),
        ROUGH
        | {"kill server": 8, "restart": 4, "backup": 6, "restore": 6, "restore device": 4, "reimage": 2, "fill": 3},
        keys=True,
    ),
    "operators": Profile(
        3, (3.0, 10.0), ROUGH | {"submit": 8, "stop job": 5, "replace": 8, "explain": 5, "kill server": 4, "fill": 4}
    ),
}
"""A kind that nobody draws has no weight: it is asked for by its name."""


class Sky(NamedTuple):
    """The weather of one world."""

    profile: str
    loss: float
    double: float
    bad_s: float
    misfortunes: tuple[tuple[float, str, str], ...]
    """When, the moment to wait for ("" for none), and which misfortune."""


def draw_sky(rng: random.Random, name: str | None = None) -> Sky:
    """Draw the weather. name: of a profile; any when not given."""
    if name is None:
        names = list(PROFILES)
        name = rng.choices(names, [PROFILES[each].weight for each in names])[0]
    profile = PROFILES[name]
    bad_s = 60.0 * rng.uniform(*profile.minutes)
    return Sky(name, rng.choice(profile.loss), rng.choice(profile.double), bad_s, _schedule(rng, profile, bad_s))


def draw_barring(rng: random.Random, sky: Sky) -> Sky:
    """Return a sky under which an operator puts devices in quarantine as well, and releases them."""
    profile = PROFILES[sky.profile]
    extra = profile._replace(per_minute=(0.05, 0.3) if profile.long else (1.0, 8.0), kinds=BARRING)
    deaths = tuple((at, rng.choice(BARRED), DIE_HERE) for at, _, _ in sky.misfortunes if rng.random() < 0.1)
    return sky._replace(misfortunes=(*sky.misfortunes, *_schedule(rng, extra, sky.bad_s), *deaths))


def _schedule(rng: random.Random, profile: Profile, bad_s: float) -> tuple[tuple[float, str, str], ...]:
    rate = rng.uniform(*profile.per_minute) / 60.0
    kinds, weights = list(profile.kinds), list(profile.kinds.values())
    at, misfortunes = 1.0, []
    while rate and (at := at + rng.expovariate(rate)) < bad_s:
        moment = rng.choice(MOMENTS) if rng.random() < 0.5 else ""
        misfortunes.append((at, moment, rng.choices(kinds, weights)[0]))
    return tuple(misfortunes)
