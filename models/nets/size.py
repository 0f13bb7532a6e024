"""How large a net is, before anything of it is made.

Of a built-in kind the shapes follow from its keys: they are counted in integers of any length. Of a factory only its
code knows. That runs in a child process (`python -m models.nets.size`), which may take so much memory and no more, and
makes the module on Torch's "meta" device, where a tensor has a shape and no numbers; a factory that cannot be called
there is called again as usual, under the same limit. One that takes more, or does not come to an end, costs the child.
There the module is tried on a few rows too (torch_trial.py): what cannot be trained is refused before it is made where
it could do harm. Who asks has decided that the code may run here.
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

from models.nets import finetune
from models.nets.batches import ROWS_AT_ONCE
from models.nets.net import NO_WEIGHTS, ModelError
from runtime.children import end_with, environment

if TYPE_CHECKING:
    from models.job import JobSpec, ModelSpec
    from models.nets.net import Net
    from models.params import Spec

CHILD = (sys.executable, "-P", "-m", "models.nets.size")
PATIENCE_S = 120.0
"""What importing Torch and calling a factory may take, on a slow card too."""
EXPORTS = "--exports"
LEAST_BYTES = 64 * 2**20
"""A child may always take so much beyond what Torch itself has."""
BEGUN = b"begun\n"
"""What a child says before it runs the code that it is to try."""
TOO_MUCH = b"too much\n"
"""What it says then, in place of an answer, where its limit was not enough: any exit code may be the module's own."""


class UntrainableError(ModelError):
    """A net that can be trained nowhere, as far as a trial shows."""


class Size(NamedTuple):
    """What of a net's shapes memory hangs on."""

    parameters: int
    largest: int
    """Parameters of its largest tensor."""
    units: int
    """Numbers that all layers together give for one row; about, where only the code of a factory knows."""
    frozen: int = 0
    """Parameters beside those that are trained: they are here once, and do not travel."""
    adapted: int = 0
    """Of these, those that are put together with their adapters in every step."""
    at_once: int = ROWS_AT_ONCE
    """Rows that go through it together where nobody trains, at most."""


class Trial(NamedTuple):
    """What came of trying a net. notes: what its author should know of it, a sentence each."""

    size: Size
    notes: tuple[str, ...] = ()
    least_rows: int = 1
    """See `models.nets.net.Net`."""
    weighs: bool = True
    """Whether rows may count differently: a loss of the module's own may give one number for all of them."""


class Told(Struct):
    """What a child says. refusal: why the net cannot be trained. missing: whether its code is not installed here."""

    parameters: int = 0
    largest: int = 0
    units: int = 0
    frozen: int = 0
    adapted: int = 0
    refusal: str = ""
    missing: bool = False
    notes: tuple[str, ...] = ()
    least_rows: int = 1
    weighs: bool = True


def of_spec(spec: Spec, units: int | None = None) -> Size:
    """Return the size of a net with these tensors. units: as in `Size`; guessed by their shapes when not given.

    A dense layer's weight gives an output a row of it.
    """
    sizes = [tensor.size for tensor in spec]
    guessed = sum(tensor.shape[0] for tensor in spec if len(tensor.shape) > 1)
    return Size(sum(sizes), max(sizes, default=0), guessed if units is None else units)


def of_model(model: ModelSpec, most_bytes: int | None = None) -> Size | None:
    """Return the size of a model's net, all of which is trained, without making it here: see `of_job`."""
    from models.job import JobSpec

    return of_job(JobSpec("model", model), most_bytes)


def of_job(job: JobSpec, most_bytes: int | None = None) -> Size | None:
    """Return the size of the net that a job trains, without making it here; None where that takes trying."""
    trial = tried(job, most_bytes)
    return None if trial is None else trial.size


def of_net(net: Net) -> Size:
    """Return the size of a net that a job trains. What it knows of its units and rows at once, it says itself."""
    return _of(net.whole, net.plan) if isinstance(net, finetune.Tuned) else _of(net, None)


def _of(whole: Net, plan: finetune.Plan | None) -> Size:
    found = _sized(whole.spec, plan, getattr(whole, "n_units", None))
    return found._replace(at_once=getattr(whole, "at_once", ROWS_AT_ONCE))


def _sized(spec: Spec, plan: finetune.Plan | None, units: int | None = None) -> Size:
    """Return the size of a whole net of which this is trained."""
    if plan is None:
        return of_spec(spec, units)
    trained, whole = of_spec(plan.trained), of_spec(spec, units)
    return Size(trained.parameters, trained.largest, whole.units, of_spec(plan.frozen).parameters, plan.n_adapted)


def tried(job: JobSpec, most_bytes: int | None = None, *, exports: bool = False) -> Trial | None:
    """Return what came of trying a job's net in a process of its own; a built-in one need not be tried.

    most_bytes: what a factory's child may take. None: it is not asked, and None is returned; so it is where Torch or
    the factory's code is missing: who builds the net hears the reason. exports: whether it is seen that it can be
    written as ONNX, for who reads the notes. Raises ModelError where it takes more, does not
    come to an end, throws, or gives what cannot be trained.
    """
    from models.nets import table  # its rows stand on this folder

    kind = table.find(job.model.kind)
    if kind.numpy is not None:
        net = kind.numpy(job.model)
        return Trial(_of(net, table.plan_of(job, net)))
    if most_bytes is None or find_spec("torch") is None:
        return None
    return _asked(job, max(most_bytes, LEAST_BYTES), exports=exports)


def check_job(trial: Trial, spec: JobSpec) -> None:
    """Raise UntrainableError where a net cannot be trained as its job says."""
    kind = f'model.kind = "{spec.model.kind}"'
    if spec.train.batch_size < trial.least_rows:
        raise UntrainableError(
            f"{kind} has a BatchNorm, which takes {trial.least_rows} rows at once at least, where [train] says "
            f"batch_size = {spec.train.batch_size}"
        )
    if spec.contract.class_weight != "none" and not trial.weighs:
        raise UntrainableError(f"{kind}: {NO_WEIGHTS}")


def _asked(job: JobSpec, most_bytes: int, *, exports: bool) -> Trial | None:
    """Return what a child says of a factory's net. Raises ModelError."""
    model = job.model
    try:
        done = subprocess.run(
            [*CHILD, str(most_bytes), *([EXPORTS] if exports else [])],
            input=msgspec.json.encode(job),
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
    if done.returncode < 0 or done.stdout == BEGUN + TOO_MUCH:
        how = f"it died of signal {-done.returncode}" if done.returncode < 0 else "there was not enough"
        raise ModelError(
            f'model.kind = "{model.kind}" does not fit here: its factory was called in a process of its own that may '
            f"take {most_bytes / 1e6:,.0f} MB of memory beside Torch, and {how}"
        )
    try:
        told = msgspec.json.decode(done.stdout.removeprefix(BEGUN), type=Told)
    except msgspec.MsgspecError:
        if not done.stdout.startswith(BEGUN):
            return None
        raise UntrainableError(
            f'model.kind = "{model.kind}" ended the process that tried it, with exit code {done.returncode}'
        ) from None
    if told.missing:
        return None
    if told.refusal:
        raise UntrainableError(told.refusal)
    size = Size(told.parameters, told.largest, told.units, told.frozen, told.adapted)
    return Trial(size, told.notes, told.least_rows, told.weighs)


def main() -> None:
    """Read a model from stdin and say what its net is, in no more memory than the line says."""
    most_bytes = int(sys.argv[1])
    signal.alarm(int(PATIENCE_S) + 10)
    end_with(os.getppid())
    job_bytes = sys.stdin.buffer.read()
    answers = os.dup(1)
    os.dup2(2, 1)  # a factory may print
    from models.job import JobSpec
    from models.nets import table
    from models.nets.torch_net import nn
    from models.nets.torch_trial import find

    job = msgspec.json.decode(job_bytes, type=JobSpec)
    model = job.model
    kind = table.find(model.kind)
    own = kind.spec.of(model)
    _limit(most_bytes)
    os.write(answers, BEGUN)
    try:
        found = find(model, lambda: kind.torch(own, nn), most_bytes, exports=EXPORTS in sys.argv)
    except MemoryError:
        os.write(answers, TOO_MUCH)
        os._exit(1)
    size, refusal = of_spec(found.spec, found.units), found.refusal
    try:
        if not refusal and not found.missing:
            size = _sized(found.spec, finetune.plan(job.train, found.spec, found.frozen), found.units)
    except ValueError as error:
        refusal = str(error)
    told = Told(
        *size[:5],
        refusal=refusal,
        missing=found.missing,
        notes=found.notes,
        least_rows=found.least_rows,
        weighs=found.weighs,
    )
    os.write(answers, msgspec.json.encode(told))
    os._exit(0)  # whatever else the code has begun


def _limit(most_bytes: int) -> None:
    """Let this process take so much beyond what it has: writable memory of its own (RLIMIT_DATA), used or not."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        here = 1024 * int(status.split("VmData:")[1].split()[0])
        resource.setrlimit(resource.RLIMIT_DATA, (here + most_bytes, here + most_bytes))


if __name__ == "__main__":
    main()
