"""How often somebody may try a password: by the address that asks and by the name that is asked for.

FREE wrong ones in a row are free; each further one doubles the wait, up to a bound. Who waits is refused before a
password is looked at. A try counts as wrong from its beginning, so that many at once are not one.

There is a fixed number of places, which addresses and names share by a keyed hash: whoever comes from a million
addresses takes no memory. From where a name has come in before, only tries of that name from there count for it, and
for nothing else: who tries it from elsewhere does not lock its owner out, nor does a scraper with an old password lock
out the people behind its address.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

FREE = 5
LONGEST_S = {"address": 300.0, "name": 60.0, "pair": 300.0}
"""A pair is a name from where it has come in before. A name alone is asked for by its owner too, who is not to be kept
out for long."""
FORGOTTEN_S = 900.0
PLACES = 4096
MOST_KNOWN = 512


class Tries:
    """Belongs to the loop of the server. clock: seconds that never go back."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(16)
        self._wrong: dict[tuple[str, int], tuple[int, float]] = {}
        """Kind and place to how many, and when the last one was."""
        self._known: OrderedDict[bytes, None] = OrderedDict()

    def wait_s(self, address: str, name: str) -> float:
        """Return for how many seconds nobody may try this name from there; 0: now."""
        return max(0.0, *(self._wait(kind, place) for kind, place in self._places(address, name)))

    def begin(self, address: str, name: str) -> None:
        """Count a try, as a wrong one."""
        now = self._clock()
        for key in self._places(address, name):
            self._wrong[key] = (self._count(key, now) + 1, now)

    def succeed(self, address: str, name: str) -> None:
        """Take the last try back: it was the right one."""
        now = self._clock()
        for key in self._places(address, name):
            if key[0] == "address":
                self._wrong[key] = (max(0, self._count(key, now) - 1), now)
            else:
                self._wrong.pop(key, None)
        self._known[self._pair(address, name)] = None
        self._known.move_to_end(self._pair(address, name))
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    def _places(self, address: str, name: str) -> list[tuple[str, int]]:
        if self._pair(address, name) in self._known:
            return [("pair", self._place(f"{_network(address)}\n{name}"))]
        return [("address", self._place(_network(address))), ("name", self._place(name))]

    def _count(self, key: tuple[str, int], now: float) -> int:
        n, at = self._wrong.get(key, (0, 0.0))
        return n if now - at < FORGOTTEN_S else 0

    def _wait(self, kind: str, place: int) -> float:
        now = self._clock()
        n = self._count((kind, place), now)
        if n < FREE:
            return 0.0
        return self._wrong[kind, place][1] + min(2.0 ** min(n - FREE, 30), LONGEST_S[kind]) - now

    def _place(self, text: str) -> int:
        return int.from_bytes(self._hash(text)[:4]) % PLACES

    def _pair(self, address: str, name: str) -> bytes:
        return self._hash(f"{_network(address)}\n{name}")

    def _hash(self, text: str) -> bytes:
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._secret, digest_size=16).digest()


def _network(address: str) -> str:
    """Return what one sender has to himself: an IPv4 address, or the /64 of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)
    return str(parsed)
