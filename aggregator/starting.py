"""What a job starts from, where it is not its seed: a version of another job, what is sent, or a factory gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from aggregator import bases
from aggregator.config import AggregatorConfig
from models import agreement, frozen
from models.buffers import first_of
from models.chain import Chain, Held
from models.codec import CodecError
from models.frozen import Find, FrozenError, Own
from models.job import JobSpec
from models.lattice import LatticeError, Model, initial, of_params
from models.nets import table as nets
from models.nets.finetune import Tuned, served, served_spec
from models.nets.net import ModelError, Net
from models.params import Params, Spec
from models.strategies.state import State


class Given(NamedTuple):
    """Weights: the body that says them exactly. of: the job that they are of; None: the job that starts from them.

    base: SHA-256 of what is frozen of that job's net, where that does not follow from it. begins_with_base: the bytes
    are what is frozen of the net (models/frozen.py), and behind them a body that says the rest, or nothing.
    """

    body: bytes
    what: str
    of: JobSpec | None = None
    base: str = ""
    begins_with_base: bool = False

    def finder(self, spec: JobSpec, config: AggregatorConfig) -> Find | None:
        """Return what gives a job's frozen tensors of these weights; None where they have none to give."""
        if self.of is None and not self.begins_with_base:
            return None

        def find(wanted: Spec, own: Own) -> Params:  # noqa: ARG001  (they are given)
            found = self._sent(wanted) if self.begins_with_base else self._theirs(wanted, spec, config)
            if spec.train.base and frozen.sha256(found, wanted) != spec.train.base:
                raise ModelError(f"[train] base = {spec.train.base}: the frozen tensors of {self.what} are others")
            return found

        return find

    def held(self, net: Net, spec: JobSpec, config: AggregatorConfig) -> Held | None:
        """Return them for the net of a job, as its version 1; None where nothing is given of what it trains.

        What their fleet has agreed on goes along: the job has the same columns, and normalises as that did. Raises
        ModelError where they are for another net.
        """
        if self.of is None:
            body = self.body
            if self.begins_with_base and isinstance(net, Tuned):
                body = body[frozen.n_bytes(net.plan.frozen) :]
            if not body:
                return None
            found = self._read(Chain(net.spec, spec, first_of(net)), body)
            return found._replace(agreed=found.agreed if agreement.fits(found.agreed, spec) else None)
        _check_same("features", self.of.contract.columns, spec.contract.columns, self.what)
        source, theirs = self._origin(config)
        same_outputs = not isinstance(net, Tuned) or all(tensor in served_spec(source) for tensor in served_spec(net))
        if self.of.model.classifies and same_outputs:
            _check_same("classes", self.of.contract.class_names, spec.contract.class_names, self.what)
        self._check_arrays(source.buffers, net.buffers)
        model = theirs.model if _is_alike(source, net) else self._put_in(source, theirs.model, net, spec)
        if (there := self.of.contract.normalise) != (here := spec.contract.normalise):
            raise ModelError(
                f'it cannot start from {self.what}: that was trained with normalise = "{there}", where [contract] of '
                f'this job says "{here}"'
            )
        agreed = theirs.agreed if agreement.fits(theirs.agreed, spec) else None
        return Held(1, model, agreed=agreed, buffers=theirs.buffers)

    def _read(self, chain: Chain, body: bytes) -> Held:
        try:
            return chain.take(chain.first(), 1, body)._replace(state=State())
        except CodecError as error:
            raise ModelError(f"it cannot start from {self.what}: {error}") from error

    def _origin(self, config: AggregatorConfig) -> tuple[Net, Held]:
        """Return the net of the job that they are of, and the version."""
        assert self.of is not None, "weights of no job"  # noqa: S101 -- callers have looked
        source = bases.net_of(self.of, config, bases.finder(self.of, config, self.base))
        return source, self._read(Chain(source.spec, self.of, first_of(source)), self.body)

    def _put_in(self, source: Net, theirs: Model, net: Net, spec: JobSpec) -> Model:
        """Return what is trained of a net, from the whole of another: what that has not is drawn, as in version 0."""
        self._check_shapes(served_spec(source), net)
        whole, first = served(source, theirs.params(source.spec)), initial(net.spec, spec.seed)
        drawn = first.params(net.spec)
        if not isinstance(net, Tuned) and not isinstance(source, Tuned):
            return theirs  # the same arrays
        values = {
            tensor.name: whole[tensor.name]
            if tensor.name in whole and whole[tensor.name].shape == tensor.shape
            else drawn[tensor.name]
            for tensor in net.spec
        }
        try:
            return of_params(values, net.spec)
        except LatticeError as error:
            raise ModelError(f"it cannot start from {self.what}: {error}") from error

    def _check_shapes(self, theirs: Spec, net: Net) -> None:
        """Raise ModelError unless a net has the arrays of theirs: of one that is tuned, what it freezes and adapts."""
        if isinstance(net, Tuned):
            self._check_frozen(theirs, net.plan.frozen)
            return
        self._check_arrays(theirs, net.spec)

    def _check_arrays(self, theirs: Spec, ours: Spec) -> None:
        for there, here in zip(theirs, ours, strict=False):
            if there != here:
                raise ModelError(
                    f"it cannot start from {self.what}: that has {there.name} of shape {there.shape}, where the net of "
                    f"this job has {here.name} of shape {here.shape}"
                )
        if len(theirs) != len(ours):
            raise ModelError(
                f"it cannot start from {self.what}: that has {len(theirs)} arrays, where the net of this job has "
                f"{len(ours)}"
            )

    def _check_frozen(self, theirs: Spec, wanted: Spec) -> None:
        for tensor in wanted:
            if tensor not in theirs:
                raise ModelError(
                    f"it cannot start from {self.what}: this job freezes {tensor.name} of shape {tensor.shape}, where "
                    f"that has {', '.join(f'{t.name} {t.shape}' for t in theirs)[:300]}"
                )

    def _sent(self, wanted: Spec) -> Params:
        n_bytes = frozen.n_bytes(wanted)
        try:
            return frozen.from_bytes(bytearray(self.body[:n_bytes]), wanted, "")
        except FrozenError as error:
            raise ModelError(f"it cannot start from {self.what}: {error}") from error

    def _theirs(self, wanted: Spec, spec: JobSpec, config: AggregatorConfig) -> Params:
        """Return the frozen tensors of a job's version: the same, where that job freezes as this one does."""
        source, held = self._origin(config)
        plain = nets.build(spec.model, allow=config.models.allow)
        plan = nets.plan_of(spec, plain)
        if isinstance(source, Tuned) and source.plan == plan:
            return source.frozen
        self._check_frozen(served_spec(source), wanted)
        whole = served(source, held.model.params(source.spec))
        return {tensor.name: whole[tensor.name] for tensor in wanted}


def _is_alike(source: Net, net: Net) -> bool:
    """Return whether both train the same: then a version of one is a version of the other, integer by integer."""
    there, here = (one.plan if isinstance(one, Tuned) else None for one in (source, net))
    return there == here and source.spec == net.spec and source.buffers == net.buffers


def of_net(net: Net) -> Held | None:
    """Return the weights that a net's own code gives, as version 1 of its job; None where it has none, and version 0 is
    what the job begins with. Raises ModelError.
    """
    if (start := net.start) is None:
        return None
    try:
        return Held(1, of_params(start, net.spec), buffers=first_of(net))
    except LatticeError as error:
        raise ModelError(f'it cannot start from the weights of model.kind = "{net.model.kind}": {error}') from error


def _check_same(key: str, there: Sequence[str], here: Sequence[str], what: str) -> None:
    """Raise ModelError where weights are of columns, or classes, that have other names, or another order."""
    if not there or not here or there == here:
        return
    order = "the same in another order" if sorted(there) == sorted(here) else "others"
    at = next((at for at, (one, other) in enumerate(zip(there, here, strict=False)) if one != other), None)
    first = f", as the {at + 1}. of them {there[at]!r} and {here[at]!r}" if at is not None else ""
    raise ModelError(
        f"it cannot start from {what}: the {key} that [contract] of this job names are {order}{first}: say them as "
        "that job did"
    )
