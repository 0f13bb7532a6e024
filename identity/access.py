"""The access list that mosquitto reads, made from a template that people write: a block for each who has a role.

In the template, lines that begin with "#@ROLE " are the block of a role (observer, steward, operator, admin,
authority); what stands behind that is repeated for everybody who has it, with {name} in it replaced. To mosquitto they
are comments, so the template itself is an access list too, of a fleet with passwords.

    #@observer user {name}
    #@observer topic read fedge/1/+/#

Two lists are made of it, for a broker with `per_listener_settings true`:

    acl.devices    the lines `pattern …`: the listener of devices knows nobody by name. So a certificate that a captured
                   authority makes for devices is no more than a device, even where it says that it is "aggregator"
    acl.staff      all others: the listeners of the aggregator and of people know nobody but by name. A `user` line of
                   somebody who has a password in the other kind of fleet is left out with what follows it, so that no
                   certificate of that name has more than its role
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from identity.record import Role, Staff

_SERVER = ("user aggregator", "user authority")
_BLOCK = re.compile(r"#@(?P<role>[a-z]+) (?P<line>.*)")
_HEAD = "# Made by `fedge ca` from a template: what is changed here is lost at the next change.\n"


class TemplateError(ValueError):
    """A template that cannot be used; the message says what it lacks."""


def lists(template: str, staff: Mapping[str, Staff]) -> tuple[str, str]:
    """Return acl.devices and acl.staff. Raises TemplateError where one of them would let nobody do anything."""
    lines = [line for line in _filled(template.splitlines(), staff) if line and not line.startswith("#")]
    patterns = [line for line in lines if line.startswith("pattern ")]
    named = [line for line in lines if not line.startswith("pattern ")]
    if not patterns:
        raise TemplateError("has no line `pattern …`, so devices could do nothing")
    if not any(line.startswith("user ") for line in named):
        raise TemplateError("has no line `user …`, so the aggregator could do nothing")
    if (at := named.index(next(line for line in named if line.startswith("user ")))) > 0:
        raise TemplateError(f"has a line for everybody before the first user: {named[at - 1][:80]!r}")
    return _HEAD + "\n".join(patterns) + "\n", _HEAD + "\n".join(named) + "\n"


def _filled(lines: Iterable[str], staff: Mapping[str, Staff]) -> Iterable[str]:
    """Return the lines with a block for each who has its role, and without those of whom no certificate makes."""
    block: list[str] = []
    role, is_known = "", True
    for line in (*map(str.rstrip, lines), ""):
        found = _BLOCK.fullmatch(line)
        if block and (found is None or found["role"] != role):
            yield from (line.replace("{name}", name) for name in names_of(staff, role) for line in block)
            block, is_known = [], False
        if found is not None:
            role = found["role"]
            block.append(found["line"])
            continue
        if line.startswith("user "):
            is_known = line in _SERVER
        if is_known or not line.startswith(("user ", "topic ")):
            yield line


def names_of(staff: Mapping[str, Staff], role: Role | str) -> list[str]:
    """Return by name who has a role, and was not revoked."""
    return sorted(name for name, one in staff.items() if one.role == role and not one.revoked)
