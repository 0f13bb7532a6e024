"""A job's specification as an operator has signed it: kept verbatim, and said again with every announcement of the job.

The aggregator reads the specification as it understands it, with its own defaults; devices check the signature over
what the operator wrote. It lies in the store beside the job, as a note, and is written before the job is.
"""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec
from msgspec import Struct

from aggregator.database import REMEDY, DamageError
from aggregator.store import Store, StoreError
from broker.messages import Job, Submit, Version


class SignedSpec(Struct, frozen=True):
    """What was submitted, who has signed it, and the end of the job's id that it is signed under."""

    spec: dict[str, Any]
    operator: str
    signature: str
    incarnation: str

    def said(self, job: str, term: int, last: Version | None) -> Job:
        """Return the announcement of the job."""
        return Job(job, term, self.spec, last, self.operator, self.signature)


def of(command: Submit) -> SignedSpec | None:
    """Return what a command has signed; None where it has not. Raises ValueError for one that lacks half of it."""
    if not (command.signature or command.incarnation):
        return None
    if not (command.signature and command.incarnation):
        raise ValueError("a signed job has a signature, and the eight digits of its id that were signed with it")
    return SignedSpec(command.spec, command.operator, command.signature, command.incarnation)


def keep(store: Store, job: str, signed: SignedSpec) -> None:
    """Write it down. Raises StoreError."""
    store.set_note(_name(job), msgspec.json.encode(signed).decode())


def drop(store: Store, job: str) -> None:
    """Forget it: the job was not begun. Where that cannot be written it stays, and is in nobody's way."""
    with contextlib.suppress(StoreError):
        store.set_note(_name(job), "")


def read(store: Store, job: str) -> SignedSpec | None:
    """Return what was signed of a job; None where nothing was. Raises StoreError."""
    text = store.note(_name(job))
    try:
        return msgspec.json.decode(text, type=SignedSpec) if text else None
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DamageError(f"the signature of job {job} is damaged in the state directory: {error}: {REMEDY}") from error


def _name(job: str) -> str:
    return f"signed:{job}"
