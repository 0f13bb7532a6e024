"""A demo whose job has ended, while somebody looks at its page: it stays until nobody does, or Ctrl-C.

Who looks is asked of the page itself: how many streams of it are open.
"""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable

GONE_S = 60.0
"""How long nobody has to have looked: a page in a hidden tab, or one that is loaded again, is not looked at for a
while."""
ASKS_EVERY_S = 0.5
ANSWERS_WITHIN_S = 5.0
TRIES = 4


def n_looking(page: str) -> int:
    """Return how many look at the page at HOST:PORT; 0 where it does not answer, though it was asked TRIES times."""
    for _ in range(TRIES):
        try:
            with urllib.request.urlopen(f"http://{page}/api/looking", timeout=ANSWERS_WITHIN_S) as answer:
                return int(json.load(answer)["streams"])
        except ConnectionRefusedError:
            return 0
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(ASKS_EVERY_S)
    return 0


def stay(page: str, say: Callable[[str], None]) -> None:
    """Return at once where nobody looks at the page at HOST:PORT; else once nobody has for GONE_S, or at Ctrl-C."""
    if not n_looking(page):
        return
    say("")
    say(f"the page stays until you close it or press Ctrl-C: http://{page}/")
    looked_at = time.monotonic()
    try:
        while time.monotonic() - looked_at < GONE_S:
            time.sleep(ASKS_EVERY_S)
            if n_looking(page):
                looked_at = time.monotonic()
    except KeyboardInterrupt:
        say("")
