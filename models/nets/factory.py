"""Nets of somebody else's code: `kind = "package.module:factory"`, the one extension point.

The factory is called with the model's options and gives a torch.nn.Module, so that Torch alone computes it. Code runs
only where agent.toml or aggregator.toml allows it by name (`models.nets.table.build`).
"""

from __future__ import annotations

import importlib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

from models.nets.net import ModelError, NetSpec

Factory = Annotated[
    str,
    Meta(
        pattern=r"\A(?=.{3,200}\Z)[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*\Z",
        description='a factory is written "package.module:factory"',
    ),
]
"""What names code that makes a net."""


class FactorySpec(NetSpec, frozen=True, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What a factory's job says. Its kind is a name of its own instead of a tag."""

    kind: Factory
    options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the factory."""
    hidden: tuple[int, ...] = ()
    """Of no use to a factory, as is the activation; but jobs have always been free to say them."""
    activation: str = "relu"
    start: Literal["factory", "seed"] | None = None
    """Where a job's first weights are from: the module as it was made, or the job's seed (models/lattice.py)."""


def is_factory(kind: str) -> bool:
    """Return whether this is how a factory is written."""
    try:
        msgspec.convert(kind, Factory)
    except msgspec.ValidationError:
        return False
    return True


def module(spec: FactorySpec, nn: Any) -> Any:
    """Return the torch.nn.Module that the factory gives. nn: torch.nn. Raises ModelError."""
    name, _, attribute = spec.kind.partition(":")
    try:
        made = getattr(importlib.import_module(name), attribute)(**spec.options)
    except ImportError as error:
        raise ModelError(
            f'model.kind = "{spec.kind}": {error}: this process has to find it: install the package beside fedge, or '
            "name the folder that it lies in in PYTHONPATH"
        ) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise ModelError(f'model.kind = "{spec.kind}" with options {spec.options}: {error}') from error
    if not isinstance(made, nn.Module):
        raise ModelError(f'model.kind = "{spec.kind}" gave a {type(made).__name__}, not a torch.nn.Module')
    return made
