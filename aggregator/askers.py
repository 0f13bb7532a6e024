"""Who has asked for something, for people: what the client of a command is called says so.

    operator-1f2e3d4c          the command line
    web-anna_-b-1f2e3d4c       anna.b at the page

It is what the client says of itself: who may command at all is the broker's to know, and the signature's.
"""

from __future__ import annotations

import re

MOST = 60
"""Characters of a user in the name of a client."""
_ESCAPES = {"_": "__", ".": "_-"}
_OF_PAGE = re.compile(r"web-(.+)-[0-9a-f]{8}")
_OF_LINE = re.compile(r"operator-[0-9a-f]{8}")


def page_of(user: str) -> str:
    """Return what the page is called as it asks for a user: an id has neither dots nor anything else of note."""
    said = "".join(_ESCAPES.get(c, c) for c in user if c.isascii() and (c.isalnum() or c in "._-"))
    return f"web-{said[:MOST]}"


def asker(client: str) -> str:
    """Return who that is: "anna at the page", "the command line", or the client's own name."""
    if _OF_LINE.fullmatch(client):
        return "the command line"
    if (page := _OF_PAGE.fullmatch(client)) is not None:
        return re.sub("__|_-", lambda found: "_" if found[0] == "__" else ".", page[1]) + " at the page"
    return client
