"""How long the page takes to answer, and what its first load weighs: one request after another."""

from __future__ import annotations

import gzip
import http.client
import re
import statistics
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

from msgspec import Struct

from benchmarks.memory import cpu_s

ASSET = re.compile(rb'(?:href|src)="(/static/[^"]+)"')
SORTS = ("state", "seen", "version", "heat", "disk", "bytes")


class Took(Struct, frozen=True):
    """What an answer took. Milliseconds: medians of some tries, and the worst of them; bytes as they were sent.

    cpu_ms: of the page's process, with what else it did meanwhile: how busy the machine is matters little to that.
    """

    first_ms: float
    whole_ms: float
    worst_ms: float
    n_bytes: int
    cpu_ms: float


class Weight(Struct, frozen=True):
    """What the first load of a page takes, with all that it names: bytes as they are sent, and what gzip would make of
    them.
    """

    requests: int
    sent: int
    zipped: int


def paths_of(job: str, version: int, device: str) -> list[tuple[str, Callable[[int], str]]]:
    """Return what is asked: its name, and the address for each try, so that no search is asked twice."""

    def same(path: str) -> Callable[[int], str]:
        return lambda _n: path

    return [
        ("Fleet, first rows", same("/")),
        ("Fleet, last page", same("/?page=1000000")),
        ("search by name", lambda n: f"/?q=pump-0{n % 10}{n // 10 % 10}"),
        ("search by label", lambda n: f"/?q=site%3Ds{n}"),
        ("filter by state", same("/?state=offline")),
        ("filter by label", lambda n: f"/?label=site%3Ds{n}"),
        *((f"sorted by {sort}", same(f"/?sort={sort}")) for sort in SORTS),
        ("sorted by heat, turned", same("/?sort=heat&order=desc")),
        ("search, sorted by heat", lambda n: f"/?q=s{n}&sort=heat"),
        ("Device", same(f"/devices/{device}")),
        ("Job", same(f"/jobs/{job}")),
        ("Round", same(f"/jobs/{job}/rounds/{version}")),
        ("Round, open", same(f"/jobs/{job}/rounds/{version + 1}")),
        ("Events", same("/events")),
        ("/api/fleet", same("/api/fleet")),
        ("/api/devices", same("/api/devices")),
        ("/api/devices?sort=heat", same("/api/devices?sort=heat")),
        ("/api/devices/ID", same(f"/api/devices/{device}")),
        ("/api/jobs/ID", same(f"/api/jobs/{job}")),
        ("/api/jobs/ID/curve", same(f"/api/jobs/{job}/curve")),
        ("/api/…/rounds/N", same(f"/api/jobs/{job}/rounds/{version}")),
        ("/events.jsonl", same("/events.jsonl")),
        ("/metrics", same("/metrics")),
    ]


def asked(page: str, path: str) -> tuple[float, float, bytes]:
    """Return the seconds until an answer begins and until it is whole, and its body as it was sent.

    Raises OSError, and ValueError where the answer is not the page.
    """
    address, began = urlsplit(page), time.perf_counter()
    connection = http.client.HTTPConnection(address.netloc, timeout=120)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        first = time.perf_counter() - began
        body = response.read()
        whole = time.perf_counter() - began
    finally:
        connection.close()
    if response.status != 200:
        raise ValueError(f"{path}: {response.status} {body[:200]!r}")
    return first, whole, body


def took(page: str, pid: int, path: Callable[[int], str], tries: int) -> Took:
    """Return what an address takes. pid: of the page's process. Raises OSError, ValueError."""
    found, used = [], []
    for n in range(tries):
        before = cpu_s(pid)
        found.append(asked(page, path(n)))
        used.append(1e3 * (cpu_s(pid) - before))
    wholes = [1e3 * whole for _, whole, _ in found]
    first = statistics.median(1e3 * first for first, *_ in found)
    return Took(first, statistics.median(wholes), max(wholes), len(found[-1][2]), statistics.median(used))


def all_of(page: str, pid: int, job: str, version: int, device: str, tries: int) -> Iterator[tuple[str, Took]]:
    """Return what each address takes, as it is known. pid: of its process. Raises OSError, ValueError."""
    for name, path in paths_of(job, version, device):
        yield name, took(page, pid, path, tries)


def weight(page: str, path: str) -> Weight:
    """Return what the first load of a page takes, for a browser that keeps nothing yet. Raises OSError, ValueError."""
    html = asked(page, path)[2]
    bodies = [html, *(asked(page, name.decode())[2] for name in sorted(set(ASSET.findall(html))))]
    return Weight(len(bodies), sum(map(len, bodies)), sum(len(gzip.compress(body)) for body in bodies))
