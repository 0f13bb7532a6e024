"""How large a net is, before anything of it is made.

Of a built-in kind the shapes follow from its keys: they are counted in integers of any length. Of a factory only its
code knows. That runs in a child process (`python -m models.nets.size`), which may take so much memory and no more, and
makes the module on Torch's "meta" device, where a tensor has a shape and no numbers; a factory that cannot be called
there is called again as usual, under the same limit. One that takes more, or does not come to an end, costs the child.
Who asks has decided that the code may run here.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import Struct

from models.nets.batches import ROWS_AT_ONCE
from models.nets.net import ModelError
from runtime.children import end_with, environment

if TYPE_CHECKING:
    from models.job import ModelSpec
    from models.nets.net import Net
    from models.params import Spec

CHILD = (sys.executable, "-P", "-m", "models.nets.size")
PATIENCE_S = 120.0
"""What importing Torch and calling a factory may take, on a slow card too."""
LEAST_BYTES = 64 * 2**20
"""A child may always take so much beyond what Torch itself has."""
TOO_MUCH = 3
"""Exit code of a child whose limit was not enough."""
MOST_ANSWER = 4096


class Size(NamedTuple):
    """What of a net's shapes memory hangs on."""

    parameters: int
    largest: int
    """Parameters of its largest tensor."""
    units: int
    """Numbers that all layers together give for one row; about, where only the code of a factory knows."""
    at_once: int = ROWS_AT_ONCE
    """Rows that go through it together where nobody trains, at most."""


class _Told(Struct):
    """What a child says."""

    parameters: int
    largest: int
    units: int


def of_spec(spec: Spec, units: int | None = None) -> Size:
    """Return the size of a net with these tensors. units: as in `Size`; guessed by their shapes when not given.

    A dense layer's weight gives an output a row of it.
    """
    sizes = [tensor.size for tensor in spec]
    guessed = sum(tensor.shape[0] for tensor in spec if len(tensor.shape) > 1)
    return Size(sum(sizes), max(sizes, default=0), guessed if units is None else units)


def of_net(net: Net) -> Size:
    """Return the size of a net that is built. What it knows of its units and rows at once, it says itself."""
    found = of_spec(net.spec, getattr(net, "n_units", None))
    return found._replace(at_once=getattr(net, "at_once", ROWS_AT_ONCE))


def of_model(model: ModelSpec, most_bytes: int | None = None) -> Size | None:
    """Return the size of a model's net, without making it here; None where that takes trying.

    most_bytes: what a factory's child may take. None: it is not asked. So it is where Torch is missing or the factory
    throws: who builds the net hears the reason. Raises ModelError where it takes more, or does not come to an end.
    """
    from models.nets import table  # its rows stand on this folder

    kind = table.find(model.kind)
    if kind.numpy is not None:
        return of_net(kind.numpy(model))
    if most_bytes is None or find_spec("torch") is None:
        return None
    return _asked(model, max(most_bytes, LEAST_BYTES))


def _asked(model: ModelSpec, most_bytes: int) -> Size | None:
    """Return what a child says of a factory's net. Raises ModelError where it takes too much."""
    try:
        done = subprocess.run(
            [*CHILD, str(most_bytes)],
            input=msgspec.json.encode(model),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=PATIENCE_S,
            check=False,
            env=environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1"),
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f'model.kind = "{model.kind}" does not come to an end: its size is not known after {PATIENCE_S:g} s'
        ) from None
    if done.returncode < 0 or done.returncode == TOO_MUCH:
        how = f"it died of signal {-done.returncode}" if done.returncode < 0 else "there was not enough"
        raise ModelError(
            f'model.kind = "{model.kind}" does not fit here: its factory was called in a process of its own that may '
            f"take {most_bytes / 1e6:,.0f} MB of memory beside Torch, and {how}"
        )
    try:
        told = msgspec.json.decode(done.stdout[-MOST_ANSWER:].rpartition(b"\n")[2], type=_Told)
    except msgspec.MsgspecError:
        return None
    return Size(told.parameters, told.largest, told.units)


def main() -> None:
    """Read a model from stdin and say how large its net is, in no more memory than the line says."""
    most_bytes = int(sys.argv[1])
    signal.alarm(int(PATIENCE_S) + 10)
    end_with(os.getppid())
    model_bytes = sys.stdin.buffer.read()
    answers = os.dup(1)
    os.dup2(2, 1)  # a factory may print
    from models.job import ModelSpec
    from models.nets import table
    from models.nets.torch_net import measured, nn

    model = msgspec.json.decode(model_bytes, type=ModelSpec)
    kind = table.find(model.kind)
    own = kind.spec.of(model)
    _limit(most_bytes)
    try:
        spec, units = measured(model, lambda: kind.torch(own, nn))
    except MemoryError:
        os._exit(TOO_MUCH)
    except RuntimeError as error:  # of Torch's allocator, which has no type of its own
        os._exit(TOO_MUCH if "alloc" in str(error) else 1)
    found = of_spec(spec, units)
    os.write(answers, msgspec.json.encode(_Told(found.parameters, found.largest, found.units)))


def _limit(most_bytes: int) -> None:
    """Let this process take so much beyond what it has: writable memory of its own (RLIMIT_DATA), used or not."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        here = 1024 * int(status.split("VmData:")[1].split()[0])
        resource.setrlimit(resource.RLIMIT_DATA, (here + most_bytes, here + most_bytes))


if __name__ == "__main__":
    main()
