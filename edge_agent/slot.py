"""The model slot: the directory in which a device keeps the model that its applications use.

    SLOT/model.onnx -> current/model.onnx     what applications open
    SLOT/model.npz  -> current/model.npz      the same parameters and buffers, float32, for whoever has no ONNX runtime
    SLOT/model.json -> current/model.json     the card: job, version, inputs, outputs, SHA-256 of both files
    SLOT/current    -> versions/7-12-x3k9     the one link that moves, by an atomic rename
    SLOT/versions/                            the current version and the one before it

Its law:
1. A version's directory is written, synced with its entry in versions/, and tried before the link moves; after that it
   is never written again.
2. So whoever opens SLOT/model.onnx, at any moment, gets the whole of the old model or the whole of the new one.
   Whoever wants several files of one version resolves SLOT/current once and opens them there.
3. A model that onnxruntime answers otherwise than NumPy (or Torch, for a factory's) does is not installed. One in int8
   (quantising.py) does a little: it takes the place of one that does not, and is held to what its job lets it lose.
4. Where ONNX cannot be written or run, predictions come from the parameters, and the log says why.
5. One process installs. Any number read.
6. The card has the number of the slot's format; none is 1, of cards without a checksum. What a newer fedge has
   installed is neither served nor replaced: it stays until this one is upgraded, or an operator removes the slot.
7. Rows are given raw, to model.onnx as to `predict`. How each column is normalised stands in the card, beside what the
   job says of its columns, for whoever goes by the parameters.
8. Where a model finds anomalies, the threshold of its fleet stands in the card and in model.onnx. It may come, or
   become another, after the version was installed: then the same version is installed anew with it (law 1).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from edge_agent import card as cards
from edge_agent import files
from edge_agent.card import FILES, Card, Release, SlotError
from edge_agent.quantising import Quantised, Wish, quantise
from models.agreement import Agreed, AgreementError, of_model
from models.contract import NO_CONTRACT, ContractSpec
from models.data.dataset import DatasetError
from models.data.npz_file import read_arrays
from models.job import MAX_LOSS, ModelSpec
from models.nets import table as nets
from models.nets.net import ModelError, Net
from models.nets.normalised import normalised, numbers
from models.params import Float32, Params, ParamsError, check
from models.serving.session import ENDED, ChildDiedError, InferenceError, Session, export
from runtime.failpoints import reach
from runtime.faults import describe

log = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""Largest difference between onnxruntime and our own net, relative to the larger of 1 and the largest answer."""
N_TRIAL_ROWS = 4


class _Serving(NamedTuple):
    directory: Path
    card: Card
    params: Params
    agreed: Agreed | None = None


class Slot:
    """A slot directory and whoever answers from it.

    session: the child that runs ONNX, None where onnxruntime cannot be used (`models.serving.session.probe` says). The
    slot closes it. allow: the factories that may run here, for models that only Torch computes.
    """

    def __init__(self, path: Path, *, session: Session | None = None, allow: Sequence[str] = ()) -> None:
        self._path = path
        self._session = session
        self._allow = allow
        self._serving: _Serving | None = None
        self._previous: _Serving | None = None
        if (path / "current").is_symlink():
            self._restore()

    @property
    def card(self) -> Card | None:
        """What is served, None before the first version."""
        return self._serving.card if self._serving else None

    def install(
        self,
        release: Release,
        model: ModelSpec,
        params: Params,
        contract: ContractSpec = NO_CONTRACT,
        agreed: Agreed | None = None,
        threshold: float | None = None,
        wish: Wish | None = None,
    ) -> str | None:
        """Serve these params from now on: return None, or why the model before it stays. Logs either.

        contract, agreed: what the rows are that it takes, and what its fleet has agreed on. threshold: as in `Card`.
        wish: that it be in int8.
        Whatever else a factory's code or the machine throws comes through, and then too the model before it stays.
        """
        try:
            if newer := cards.newer(self._path):
                return _refuse(release, newer)
            directory = self._make_directory(release)
        except OSError as error:
            return _refuse(release, error)
        try:
            told = b"" if agreed is None else agreed.to_bytes()
            blank = Card(release, model, {}, contract=contract, agreed=told, threshold=threshold)
            candidate = self._write(_Serving(directory, blank, params, agreed))
            self._try(candidate)
            candidate = self._quantised(candidate, wish)
            self._switch(candidate)
        except (OSError, ModelError, ParamsError, InferenceError, SlotError) as error:
            return _refuse(release, error)
        finally:
            if not self._points_at(directory):
                shutil.rmtree(directory, ignore_errors=True)
                self._reload()
        self._tidy()
        log.info(
            "model=installed job=%s version=%d.%d%s onnx=%s",
            release.job,
            release.generation,
            release.number,
            "" if release.averaged_since is None else f" averaged_since={release.averaged_since}",
            "model.onnx" in candidate.card.files,
        )
        return None

    def calibrate(
        self, job: str, generation: int, number: int, threshold: float, wish: Wish | None = None
    ) -> str | None:
        """Serve this version with this threshold from now on, if it is the one that is served, and has another one.

        wish: that it be in int8. Return None, or why it stays as it is.
        """
        if (serving := self._serving) is None:
            return None
        release, card = serving.card.release, serving.card
        is_it = (release.job, release.generation, release.number) == (job, generation, number)
        if not is_it or card.threshold == threshold:
            return None
        if wish is None and card.quantised is not None:
            wish = Wish(MAX_LOSS, None, "its threshold came when no rows to calibrate on were at hand")
        return self.install(release, card.model, serving.params, card.contract, serving.agreed, threshold, wish)

    def predict(self, X: npt.NDArray[Any]) -> Float32:
        """Return (n, outputs) float32 for n >= 1 raw rows of X, (n, inputs) or flattened to it.

        What is given are probabilities, or for mse the values, or one anomaly score a row. Raises SlotError if nothing
        is installed or the rows do not fit, ModelError if onnxruntime does not answer and the model's factory may not
        run here.
        """
        serving = self._serving
        if serving is None:
            raise SlotError(f"{self._path}: no model is installed yet")
        inputs = serving.card.model.inputs
        if math.prod(X.shape[1:]) != inputs or not len(X):
            raise SlotError(f"rows of shape {X.shape} where the model has inputs = {inputs}")
        rows = np.ascontiguousarray(X, np.float32).reshape(len(X), inputs)
        try:
            answer = self._ask(serving, rows)
        except InferenceError as error:
            self._give_up(error)
            answer = None
        return self._net_of(serving).predict(serving.params, rows) if answer is None else answer

    def close(self) -> None:
        """End the child."""
        if self._session is not None:
            self._session.close()

    def _net(self, model: ModelSpec) -> Net:
        """Return the net that computes the model without ONNX: by NumPy where that can, whatever the model says."""
        numpy = nets.find(model.kind).numpy
        return nets.build(model, allow=self._allow) if numpy is None else numpy(model)

    def _net_of(self, serving: _Serving) -> Net:
        """Return the same, which takes raw rows."""
        return normalised(self._net(serving.card.model), serving.card.contract, serving.agreed)

    def _restore(self) -> None:
        try:
            self._serving = _read(self._path)
        except (OSError, SlotError) as error:
            log.warning("model=unreadable slot=%s reason=%s", self._path, error)
        self._reload()

    def _reload(self) -> None:
        """Load what is installed into the child, or do without it."""
        try:
            self._load(self._serving)
        except InferenceError as error:
            self._give_up(error)

    def _points_at(self, directory: Path) -> bool:
        """Return whether the link has moved to this version, which must not be removed any more."""
        link = self._path / "current"
        return link.is_symlink() and link.readlink().name == directory.name

    def _make_directory(self, release: Release) -> Path:
        versions = self._path / "versions"
        files.make_folder(versions)
        name = f"{release.generation}-{release.number}-"
        directory = Path(tempfile.mkdtemp(prefix=name, dir=versions))
        directory.chmod(0o755)  # applications run as other users
        return directory

    def _write(self, serving: _Serving) -> _Serving:
        """Write and sync the three files, the card with the names of the others; return what is then served.

        Raises OSError, ModelError or ParamsError, and InferenceError where the child ends with its service.
        """
        directory, card, params, _ = serving
        release, model = card.release, card.model
        net = self._net(model)
        check(params, net.spec + net.buffers)
        buffer = io.BytesIO()
        np.savez(buffer, **params)  # type: ignore[arg-type]  # its stub takes the names for options
        content = buffer.getbuffer()
        (directory / "model.npz").write_bytes(content)
        onnx = directory / "model.onnx"
        about = {name: str(value) for name, value in msgspec.to_builtins(release).items() if value is not None}
        if card.threshold is not None:
            about["threshold"] = repr(card.threshold)
        reason = self._export(card, directory / "model.npz", onnx, about)
        if reason in ENDED:
            raise InferenceError(f"the process that writes ONNX {reason}: it is tried again")
        if reason is not None:
            log.warning("export=failed job=%s reason=%s", release.job, reason)
            onnx.write_bytes(content)  # about as large: if this fails too it was the disk, which may have room later
            onnx.unlink()
        return self._seal(serving)

    def _seal(self, serving: _Serving) -> _Serving:
        """Sync the files of a version, and write its card with their names. Raises OSError."""
        directory, card, _, _ = serving
        digests = {
            path.name: files.sync_file(path) for path in sorted(directory.iterdir()) if path.name != "model.json"
        }
        written = cards.written(card, digests)
        (directory / "model.json").write_bytes(written)
        files.sync_file(directory / "model.json")
        files.sync_folder(directory)
        files.sync_folder(directory.parent)
        return serving._replace(card=msgspec.json.decode(written, type=Card))

    def _export(self, card: Card, params: Path, onnx: Path, metadata: dict[str, str]) -> str | None:
        """Write ONNX, in the child that is there anyway if it needs no Torch for that: None, or why not."""
        model, contract, agreed = card.model, card.contract, card.agreed
        if self._session is None or nets.find(model.kind).onnx is None:
            return export(model, params, onnx, metadata=metadata, contract=contract, agreed=agreed)
        try:
            self._session.export(model, params, onnx, metadata=metadata, contract=contract, agreed=agreed)
        except InferenceError as error:
            log.warning("export=again reason=%s", error)
            return export(model, params, onnx, metadata=metadata, contract=contract, agreed=agreed)
        return None

    def _try(self, candidate: _Serving) -> None:
        """Load the candidate into the child and hold its answers against our net's.

        Raises InferenceError or SlotError if it fails; a child that dies is done without from then on.
        """
        self._load(candidate)
        model = candidate.card.model
        rows = np.random.default_rng(0).standard_normal((N_TRIAL_ROWS, model.inputs), np.float32)
        if (normal := numbers(candidate.card.contract, candidate.agreed, model.inputs)) is not None:
            offset, scale = normal
            rows = rows / scale + offset  # as its own rows are, so that what is computed is too
        found = self._ask(candidate, rows)
        if found is None:
            return
        right = self._net_of(candidate).predict(candidate.params, rows)
        worst = float(np.abs(found - right).max()) if found.shape == right.shape else math.inf
        if not worst <= TOLERANCE * max(1.0, float(np.abs(right).max())):
            raise SlotError(f"onnxruntime's answers differ by {worst:.3g} from our own")

    def _quantised(self, candidate: _Serving, wish: Wish | None) -> _Serving:
        """Return the version that is served: in int8 where that is wished for, can be had and loses little enough.

        Raises OSError, and InferenceError where the child cannot load it or all processes are ended.
        """
        if wish is None:
            return candidate
        directory, card, _, _ = candidate
        if "model.onnx" not in card.files:
            found = Quantised("there is no model.onnx here")
        else:
            found = quantise(directory / "model.onnx", card.model, wish)
        log.log(
            logging.WARNING if found.why_not else logging.INFO, "model=quantised job=%s %s", card.release.job, found
        )
        candidate = self._seal(candidate._replace(card=msgspec.structs.replace(card, quantised=found)))
        if not found.why_not:
            self._load(candidate)
        return candidate

    def _load(self, serving: _Serving | None) -> None:
        """Load this version into the child, if there is a child and the version has ONNX."""
        if self._session is None or serving is None or "model.onnx" not in serving.card.files:
            return
        try:
            self._session.load(serving.directory / "model.onnx")
        except ChildDiedError as error:
            self._give_up(error)

    def _ask(self, serving: _Serving, rows: Float32) -> Float32 | None:
        """Return onnxruntime's answers, None where there are none to be had."""
        if self._session is None or "model.onnx" not in serving.card.files:
            return None
        try:
            return self._session.predict(rows)
        except ChildDiedError as error:
            self._give_up(error)
            return None

    def _give_up(self, error: InferenceError) -> None:
        log.warning("inference=numpy reason=%s", error)
        self.close()
        self._session = None

    def _switch(self, candidate: _Serving) -> None:
        """Move the link. Raises OSError, and then nothing has changed: the move is its last act."""
        for name in FILES:
            if not (self._path / name).is_symlink():
                files.point(self._path / name, Path("current") / name)
        reach("slot.switch.before", candidate.card.release)
        files.point(self._path / "current", Path("versions") / candidate.directory.name)
        reach("slot.switch.after", candidate.card.release)
        self._previous, self._serving = self._serving, candidate

    def _tidy(self) -> None:
        """Sync the link, then remove what is older than the version before, which a reader may be opening.

        If the link cannot be synced, a crash may bring an older version back: all of them stay, so that it is whole.
        """
        kept = {serving.directory.name for serving in (self._serving, self._previous) if serving}
        with contextlib.suppress(OSError):
            files.sync_folder(self._path)
            for directory in (self._path / "versions").iterdir():
                if directory.name not in kept:
                    shutil.rmtree(directory, ignore_errors=True)


def open_slot(path: Path, *, session: Session | None = None, allow: Sequence[str] = ()) -> Slot:
    """Open the slot of another process to read. Raises SlotError, with the reason, if it serves no model."""
    slot = Slot(path, session=session, allow=allow)
    if slot.card is None:
        slot.close()
        if newer := cards.newer(path):
            raise newer
        raise SlotError(f"{path}: no model is installed, or it cannot be read")
    return slot


def _read(path: Path) -> _Serving:
    """Read card and params of the current version and check them. Raises OSError or SlotError."""
    try:
        directory = (path / "current").resolve(strict=True)
    except RuntimeError as error:  # links in a circle, before Python 3.13
        raise SlotError(f"{path}/current leads nowhere: {error}") from error
    card = cards.read(directory)
    if not {"model.npz"} <= card.files.keys() <= set(FILES):
        raise SlotError(f"{directory}/model.json: names other files than a slot has")
    for name, digest in card.files.items():
        if hashlib.sha256((directory / name).read_bytes()).hexdigest() != digest:
            raise SlotError(f"{directory}/{name} is damaged: its SHA-256 is not the card's")
    try:
        params = read_arrays(directory / "model.npz")
        numpy = nets.find(card.model.kind).numpy
        if numpy is not None:  # who else computes it may not be there
            check(params, numpy(card.model).spec)
    except (DatasetError, ParamsError) as error:
        raise SlotError(f"{directory}/model.npz: {error}") from error
    try:
        agreed = of_model(card.agreed, card.model, card.contract)
    except AgreementError as error:
        raise SlotError(f"{directory}/model.json: {error}") from error
    return _Serving(directory, card, params, agreed)


def _refuse(release: Release, error: Exception) -> str:
    reason = describe(error)
    log.warning("model=kept job=%s refused=%d.%d reason=%s", release.job, release.generation, release.number, reason)
    return reason
