"""The one list of the kinds of nets: all that anybody asks about a kind is in its row.

A net is pure: its parameters go in and come out of every call. The same ModelSpec may be computed by NumPy or by
Torch; names, order and shapes of the parameters are the same. This module loads neither torch nor onnx: a row makes a
module of the torch.nn that it is given, and says its ONNX as plain data.

A new kind is a file with these things in it, and a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from models import frozen
from models.frozen import Find, MissingError, Own
from models.lattice import initial
from models.nets import autoencoder, cnn1d, cnn2d, factory, finetune, gru, linear, losses, mlp
from models.nets.losses import LabelError, Labels
from models.nets.net import ModelError, Net, NetSpec
from models.nets.op import Op
from models.params import Float32, Params, Spec

if TYPE_CHECKING:
    from models.job import JobSpec, ModelSpec  # which asks this table whether a model is one
    from models.nets.torch_net import TorchNet

S = TypeVar("S", bound=NetSpec)


class Kind(NamedTuple, Generic[S]):
    """One kind of net.

    spec: its own specification; `spec.of(model)` raises ValueError for keys that the kind has not and nets too large.
    numpy: the net that NumPy computes; None where only Torch can.
    torch: (spec, torch.nn) -> the torch.nn.Module, with parameters of the same names, order and shapes.
    onnx: spec -> its operations, the last of which gives the raw outputs, (batch, outputs); None where Torch's own
        exporter writes it.
    fit: (spec, X, y) -> the rows and labels that it trains on, X of (n, ...) with spec.inputs features an example.
        Raises LabelError. Arrays that fit are given back as they are.
    is_code: its kind names code, which runs only where it is allowed.
    loss: the row of `models.nets.losses` that it has, where it has one of its own that no other kind has.
    normal_share: spec -> the share of normal rows below the threshold, of a kind whose answers are one anomaly score a
        row: its rows need no label. None of all others.
    """

    spec: type[S]
    numpy: Callable[[ModelSpec], Net] | None
    torch: Callable[[S, Any], Any]
    onnx: Callable[[S], tuple[Op, ...]] | None
    fit: Callable[[S, Float32, Labels], tuple[Float32, Labels]]
    is_code: bool = False
    loss: str | None = None
    normal_share: Callable[[S], float] | None = None


def flat_rows(spec: NetSpec, X: Float32, y: Labels) -> tuple[Float32, Labels]:
    """Return X as (n, inputs), and the labels of the loss. Raises LabelError, for X of another shape too."""
    if X.ndim > 2 and spec.shapes and X.shape[1:] not in spec.shapes:
        given, taken = (" x ".join(map(str, shape)) for shape in (X.shape[1:], spec.shapes[0]))
        raise LabelError(f"an example is {given}, where the model takes {taken} (channels last), or flat rows of that")
    return X if X.ndim == 2 else X.reshape(len(X), spec.inputs), losses.of(spec).labels(y)


def rows_as_they_are(spec: NetSpec, X: Float32, y: Labels) -> tuple[Float32, Labels]:
    """Return X in its own shape, and the labels of the loss. Raises LabelError."""
    return X, losses.of(spec).labels(y)


NETS: dict[str, Kind[Any]] = {
    "mlp": Kind(mlp.MlpSpec, mlp.net, mlp.module, mlp.operations, flat_rows),
    "linear": Kind(linear.LinearSpec, linear.Linear, linear.module, linear.operations, flat_rows),
    "autoencoder": Kind(
        autoencoder.AutoencoderSpec,
        autoencoder.Autoencoder,
        autoencoder.torch_module,
        autoencoder.onnx_operations,
        flat_rows,
        loss="reconstruction",
        normal_share=lambda spec: spec.normal_share,
    ),
    "cnn1d": Kind(cnn1d.Cnn1dSpec, cnn1d.net, cnn1d.module, cnn1d.operations, flat_rows),
    "cnn2d": Kind(cnn2d.Cnn2dSpec, cnn2d.net, cnn2d.module, cnn2d.operations, flat_rows),
    "gru": Kind(gru.GruSpec, gru.net, gru.module, gru.operations, flat_rows),
}
"""The built-in kinds."""
FACTORY = Kind(factory.FactorySpec, None, factory.module, None, rows_as_they_are, is_code=True)
"""All others: "package.module:factory"."""


def find(kind: str) -> Kind[Any]:
    """Return the row of a kind. Raises ValueError for one that is neither built in nor written as a factory."""
    if kind not in NETS and not factory.is_factory(kind):
        known = ", ".join(f'"{name}"' for name in NETS)
        raise ValueError(f'kind = "{kind[:200]}" is neither {known} nor "package.module:factory"')
    return NETS.get(kind, FACTORY)


def check_options(model: ModelSpec) -> None:
    """Raise ValueError for an option that a built-in kind has not, and another kind or [model] itself has."""
    if model.kind not in NETS:
        return
    own = {*NETS[model.kind].spec.__struct_fields__} - {*model.__struct_fields__}
    for key in sorted(model.options.keys() - own):
        said = f'kind = "{model.kind}" has no key "options.{key}"'
        if key in model.__struct_fields__:
            raise ValueError(f"{said}: {key} stands in [model] itself")
        if having := [f'"{name}"' for name, kind in NETS.items() if key in kind.spec.__struct_fields__]:
            raise ValueError(f"{said}: leave it out, or say kind = {' or '.join(having)}")


def factories_of(model: ModelSpec) -> tuple[str, ...]:
    """Return what has to be allowed before this model may run: the factory that it names, or nothing."""
    return (model.kind,) if find(model.kind).is_code else ()


def normal_share_of(model: ModelSpec) -> float | None:
    """Return the share of normal rows below a model's threshold; None where its answers are no anomaly scores."""
    kind = find(model.kind)
    return None if kind.normal_share is None else kind.normal_share(kind.spec.of(model))


def framework_of(model: ModelSpec, preferred: str = "numpy") -> str:
    """Return who computes it, "numpy" or "torch": the model's word first, then the device's preference."""
    if find(model.kind).numpy is None:
        return "torch"
    return preferred if model.framework == "any" else model.framework


def build(model: ModelSpec, *, framework: str = "numpy", allow: Sequence[str] = (), seed: int | None = None) -> Net:
    """Build the net of a model.

    framework: what this machine prefers where the model leaves it open. allow: the "package.module:factory"
    strings that may run here, since a factory is code. seed: of the job that begins with the weights which a factory
    gives. Raises ModelError if the kind is not allowed, Torch is wanted and missing, or the factory does not give a
    module.
    """
    if not set(factories_of(model)) <= set(allow):
        raise ModelError(
            f'model.kind = "{model.kind}" names code that may not run here: '
            "if you trust it, add it to allow in [models] of agent.toml (or aggregator.toml)"
        )
    numpy = find(model.kind).numpy
    if numpy is None or framework_of(model, framework) == "torch":
        return by_torch(model, seed)
    return numpy(model)


def of_job(job: JobSpec, *, framework: str = "numpy", allow: Sequence[str] = (), find: Find | None = None) -> Net:
    """Build the net that a job trains: its `spec` has what is trained and travels, in the order of both.

    find: gives the values of what is frozen; when not given they are what every device makes itself (`own`). See
    `build` for the rest. Raises ModelError also where the job freezes what the net has not, or all of it; and what
    `find` raises.
    """
    net = build(job.model, framework=framework, allow=allow, seed=job.seed)
    plan = plan_of(job, net)
    if plan is None:
        return net
    values = (find or _only_own(job))(plan.frozen, own(job, net, plan.frozen))
    if hold := getattr(net, "hold", None):
        hold(values)
    return finetune.Tuned(net, plan, values, job.seed)


def plan_of(job: JobSpec, net: Net) -> finetune.Plan | None:
    """Return which part of a net its job freezes; None where it is all trained. Raises ModelError."""
    try:
        return finetune.plan(job.train, net.spec, getattr(net, "frozen", ()))
    except ValueError as error:
        raise ModelError(str(error)) from error


def own(job: JobSpec, net: Net, spec: Spec) -> Own:
    """Return what makes the values of frozen tensors where nobody gives any.

    Of a built-in net they are those that version 0 has where nothing is frozen, on every machine the same; a factory's
    are what its code gives after torch.manual_seed(job.seed).
    """

    def make() -> Params:
        if factories_of(job.model):
            found: Params = net.own(spec)  # type: ignore[attr-defined]  # Torch's, of every factory
            return found
        drawn = initial(net.spec, job.seed).params(net.spec)
        return {tensor.name: drawn[tensor.name].copy() for tensor in spec}

    return make


def _only_own(job: JobSpec) -> Find:
    """Return what gives the values that everybody makes himself. They must be those that the job names, if it does."""

    def find(spec: Spec, make: Own) -> Params:
        values = make()
        if job.train.base and frozen.sha256(values, spec) != job.train.base:
            raise MissingError(f"[train] base = {job.train.base}: these tensors are not here", spec)
        return values

    return find


def by_torch(model: ModelSpec, seed: int | None = None) -> TorchNet:
    """Build the net that Torch computes, of any model: who calls this has decided that its code may run.

    seed: what Torch draws by while a factory is called; its weights are then the job's first ones, unless the model
    says start = "seed". Raises ModelError if Torch is missing or the factory does not give a module.
    """
    if find_spec("torch") is None:
        raise ModelError(f'model.kind = "{model.kind}" needs Torch here: pip install "fedge[torch]"')
    from models.nets.torch_net import TorchNet, nn, seeded  # here alone: it loads torch, which most devices do without

    kind = find(model.kind)
    own = kind.spec.of(model)
    with seeded(0 if seed is None else seed):
        module = kind.torch(own, nn)
    net = TorchNet(model, module, gives_start=kind.is_code and seed is not None and own.start != "seed")
    if kind.numpy is not None:
        net.at_once = getattr(kind.numpy(model), "at_once", net.at_once)
    return net
