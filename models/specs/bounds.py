"""What numbers and names in a job may be: floors and ceilings, wide of what anybody uses."""

from __future__ import annotations

import math
from typing import Annotated

from msgspec import Meta

Name = Annotated[
    str, Meta(pattern=r"\A[A-Za-z0-9_-]{1,64}\Z", description='a name is 1 to 64 letters, digits, "_" or "-"')
]
"""What names anything on the wire: a fleet, a job, a device, a data source."""

Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
Natural = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Devices = Annotated[int, Meta(ge=1, le=100_000)]
"""A number of devices: an aggregator keeps no more in its roster."""
Rate = Annotated[float, Meta(ge=1e-12, le=1e6)]
"""A learning rate. Below, a step is lost in a float32; above, no loss stays finite."""
Momentum = Annotated[float, Meta(ge=0, le=0.9999)]
"""Nearer to 1, a float32 is 1: nothing is ever forgotten."""
Share = Annotated[float, Meta(gt=0, le=1)]

MOST_LABELS = 64
"""Of a device, and so of what a job asks for: a presence has room for no more."""
MOST_DEPTH = 16
"""Of tables and lists within each other in `options`."""


def check_plain(value: object, where: str, depth: int = 0) -> None:
    """Raise ValueError for what is another value, or none at all, after a journey as JSON."""
    match value:
        case bool() | str():
            return
        case int() if abs(value) <= 2**53:
            return
        case float() if math.isfinite(value):
            return
        case list() | dict() if depth >= MOST_DEPTH:
            raise ValueError(f"{where[:100]} goes more than {MOST_DEPTH} tables and lists deep")
        case list():
            for index, item in enumerate(value):
                check_plain(item, f"{where}[{index}]", depth + 1)
        case dict():
            for name, item in value.items():
                check_plain(item, f"{where}.{name}", depth + 1)
        case _:
            raise ValueError(f"{where[:100]} = {str(value)[:50]} does not survive JSON, as which a job travels")
