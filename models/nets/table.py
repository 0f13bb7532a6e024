"""What a net is, and the one list of them.

A net is pure: its parameters go in and come out of every call. The same ModelSpec may be computed by NumPy or by
Torch; names, order and shapes of the parameters are the same. This module loads neither torch nor onnx.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from models.job import ModelSpec
from models.nets.mlp import Mlp
from models.nets.net import ModelError, Net

NETS: dict[str, Callable[[ModelSpec], Net]] = {"mlp": Mlp}
"""Kinds that NumPy computes. Torch computes them too, and whatever a factory makes."""


def framework_of(model: ModelSpec, preferred: str = "numpy") -> str:
    """Return who computes it, "numpy" or "torch": the model's word first, then the device's preference."""
    if model.kind not in NETS:
        return "torch"
    return preferred if model.framework == "any" else model.framework


def build(model: ModelSpec, *, framework: str = "numpy", allow: Sequence[str] = ()) -> Net:
    """Build the net of a model.

    framework: what this machine prefers where the model leaves it open. allow: the "package.module:factory"
    strings that may run here, since a factory is code. Raises ModelError if the kind is not allowed, Torch is
    wanted and missing, or the factory does not give a module.
    """
    if model.kind not in NETS and model.kind not in allow:
        raise ModelError(
            f'model.kind = "{model.kind}" names code that may not run here: '
            "if you trust it, add it to allow in [models] of agent.toml (or aggregator.toml)"
        )
    if framework_of(model, framework) == "numpy":
        return NETS[model.kind](model)
    if find_spec("torch") is None:
        raise ModelError(f'model.kind = "{model.kind}" needs Torch here: pip install "fedge[torch]"')
    from models.nets.torch_net import build_torch  # here alone: it loads torch, which most devices do without

    return build_torch(model)
