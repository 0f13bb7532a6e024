"""What it costs to look on a large fleet: `python -m benchmarks.sight`.

Twenty thousand devices say who they are and how they are; one job draws them all. Then, as in a fleet at work, some of
them speak between two views. Printed are the memory that the core takes (RSS before and after), the time for a message,
and that for a view: after a second of ordinary life, where every device has changed at once (in several), and where
nothing has.
CPU time of this process, so that a busy machine matters little.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from collections.abc import Callable

from benchmarks.memory import rss_mb
from broker.messages import Job, Offer, Presence, Round, Verdict, Version, Vitals
from broker.wire import Wire
from fleet.sight.sight import Sight

WIRE = Wire("f")
JOBS = ("vibration-1f0c22ab", "temperature-77aa0102")
V0, V1 = Version(1, 0), Version(1, 1)
REPEATS = 20


def hear(sight: Sight, message: Presence | Vitals, now: float) -> None:
    """Return it as it is heard: packed and unpacked, so that nothing is shared."""
    sight.hear(WIRE.unpack(WIRE.pack(message)), now)


def presence(name: str, rng: random.Random) -> Presence:
    return Presence(
        *(name, 3),
        online=True,
        labels={"site": f"s{rng.randrange(50)}", "kind": "pump"},
        ready={JOBS[0]: rng.randrange(100, 5000)},
        unready={JOBS[1]: "it has no data source [data.temperature]"},
        software="fedge 0.1.0",
        incarnation=f"{rng.getrandbits(64):016x}",
        nonce=f"{rng.getrandbits(32):08x}",
    )


def vitals(name: str, rng: random.Random, now: float) -> Vitals:
    return Vitals(
        *(name, 3, "training", JOBS[0], rng.random(), ""),
        disk_free=rng.randrange(2**33),
        heat=50.0 + rng.randrange(20),
        load=rng.random(),
        bytes_today=rng.randrange(10**6),
        clock=now,
        uptime_s=1e5,
        serves={JOBS[0]: V0},
    )


def spent_ms(act: Callable[[], object]) -> float:
    began = time.process_time()
    act()
    return (time.process_time() - began) * 1e3


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=20_000, metavar="N")
    n = parser.parse_args().devices
    rng, names, now = random.Random(0), [f"device-{i:05d}" for i in range(n)], 1e9  # noqa: S311 -- no secret

    gc.collect()
    before = rss_mb()
    sight = Sight("f")
    sight.connect(connected=True, now=now)
    for job in JOBS:
        sight.hear(Job(job, 1, {"name": job[:-9], "seed": 1}), now)

    def arrive() -> None:
        for name in names:
            hear(sight, presence(name, rng), now)
            hear(sight, vitals(name, rng, now), now)

    told = spent_ms(arrive)
    first = spent_ms(lambda: sight.view(now))
    while sight.is_behind:
        sight.view(now)
    sight.hear(Round(JOBS[0], 1, V0, 600.0, threshold=2**47), now)
    drawn = spent_ms(lambda: sight.view(now))
    gc.collect()
    print(f"{n} devices, {len(sight.view(now).jobs)} jobs")
    print(f"memory          {rss_mb() - before:8.1f} MB")
    print(f"a message       {told / (2 * n) * 1e3:8.1f} us (read from its bytes, and taken)")
    print(f"first view      {first:8.1f} ms (every device is new)")
    print(f"half are drawn  {drawn:8.1f} ms")

    ordinary = []
    for step in range(REPEATS):
        while sight.is_behind:
            sight.view(now)
        for name in rng.sample(names, n // 40):
            hear(sight, vitals(name, rng, now + step), now + step)
        for name in rng.sample(names, n // 100):
            sight.hear(Offer(JOBS[0], name, V0, 10, "ab" * 8, 4, body=b"1234"), now + step)
            sight.hear(Verdict(name, JOBS[0], V0, "ab" * 4), now + step)
        ordinary.append(spent_ms(lambda at=now + step: sight.view(at)))  # type: ignore[misc]
    print(f"ordinary view   {statistics.median(ordinary):8.1f} ms, at most {max(ordinary):.1f} (3.5% have spoken)")

    everybody = []
    for step in range(5):
        for name in names:
            sight.hear(Vitals(name, 3, progress=step / 10), now + 100 + step)
        while sight.is_behind:
            everybody.append(spent_ms(lambda at=now + 100 + step: sight.view(at)))  # type: ignore[misc]
    views = f"in {len(everybody) / 5:.0f} views"
    print(f"all have spoken {statistics.median(everybody):8.1f} ms, at most {max(everybody):.1f}, {views}")
    print(f"nothing changed {spent_ms(lambda: sight.view(now + 200)):8.3f} ms")


if __name__ == "__main__":
    main()
