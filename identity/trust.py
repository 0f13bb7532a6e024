"""What a process pins when it is enrolled: whose words it believes. One file, `trust.json`, the same in a fleet."""

from __future__ import annotations

import base64
from pathlib import Path

import msgspec

from identity.keys import KeyFileError, Signer, key_of, verify
from runtime import formats
from runtime.disk import write_over
from runtime.words import clean

FORMAT = 2
"""2 where there are stewards, whom an older fedge would not know; 1 otherwise."""
MOST_BYTES = 262_144


class TrustError(ValueError):
    """A file of pinned keys that cannot be used; the message is one line, names the file and says what to do."""


class Trust(msgspec.Struct, frozen=True):
    """The public keys that are believed, as text (identity/keys.py).

    aggregator: those that may sign what the aggregator says; the first is the one in use. operators: by name, those
    that may sign jobs, and all commands. stewards: by name, those that may sign commands to what is there, and neither
    hand in nor delete jobs. root: signs changes of this file, and never lies on a server. serial: a higher one replaces
    a lower.
    """

    fleet: str
    root: str
    aggregator: tuple[str, ...]
    operators: dict[str, str] = {}
    serial: int = 1
    format: int = 1
    signature: str = ""
    """Of who may replace the file before, as text; the first one needs none."""
    stewards: dict[str, str] = {}

    @property
    def aggregator_keys(self) -> tuple[bytes, ...]:
        """The keys of the aggregator, 32 bytes each."""
        return tuple(map(key_of, self.aggregator))

    @property
    def operator_keys(self) -> dict[str, bytes]:
        """The keys of operators by their names, 32 bytes each."""
        return {name: key_of(text) for name, text in self.operators.items()}

    @property
    def steward_keys(self) -> dict[str, bytes]:
        """The keys of stewards by their names, 32 bytes each."""
        return {name: key_of(text) for name, text in self.stewards.items()}


def read_trust(path: str | Path, fleet: str | None = None) -> Trust:
    """Return the pinned keys of a file. fleet: the one that they must be of. Raises TrustError."""
    try:
        with Path(path).open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise TrustError(f"{path}: the pinned keys cannot be read: {error.strerror or error}") from error
    return parse_trust(text, str(path), fleet)


def parse_trust(text: bytes, source: str, fleet: str | None = None) -> Trust:
    """Return the pinned keys that lie in these bytes. source: names them for people. Raises TrustError."""
    if len(text) > MOST_BYTES:
        raise TrustError(f"{source}: is longer than {MOST_BYTES:,} bytes")
    try:
        number = msgspec.json.decode(text, type=_Numbered).format
        formats.check(source, number, FORMAT)
        trust = msgspec.json.decode(text, type=Trust)
        keys = (
            key_of(trust.root),
            *trust.aggregator_keys,
            *trust.operator_keys.values(),
            *trust.steward_keys.values(),
        )
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise TrustError(f"{source}: is damaged: {clean(str(error))}; enroll again") from error
    except (KeyFileError, formats.FormatError) as error:
        raise TrustError(f"{source}: {error}") from error
    if not trust.aggregator or len(set(keys)) != len(keys):
        raise TrustError(f"{source}: names no key of an aggregator, or one key twice; enroll again")
    if fleet is not None and trust.fleet != fleet:
        raise TrustError(f"{source}: these are the keys of the fleet {trust.fleet!r}, not of {fleet!r}")
    return trust


# A later file in the place of one that is pinned.


def sign_trust(trust: Trust, key: Signer) -> Trust:
    """Return the file with its signature: by the root, or by an aggregator's key of the file that it replaces."""
    return msgspec.structs.replace(trust, signature=base64.b64encode(key.sign(_said(trust))).decode())


def is_of_root(trust: Trust) -> bool:
    """Return whether it is its own root that has signed it."""
    try:
        return verify(key_of(trust.root), _said(trust), base64.b64decode(trust.signature, validate=True))
    except ValueError:
        return False


def may_follow(before: Trust, after: Trust) -> str:
    """Return why these keys must not take the place of those; "" where they may.

    The root may change everything. The aggregator's key may hand over to another aggregator's key and nothing else:
    who has taken it over must not make himself an operator
    or a steward. Nor may he take a serial beyond the root's reach: it rises
    by one, and of two files with one serial the root's counts.
    """
    if after.fleet != before.fleet:
        return f"these are the keys of the fleet {after.fleet!r}, and those in use are of {before.fleet!r}"
    takes_back = after.serial == before.serial and is_of_root(after) and not is_of_root(before) and before.signature
    if after.serial <= before.serial and not takes_back:
        return f"it has the serial {after.serial}, and that in use has {before.serial}: it is an old one"
    try:
        signature = base64.b64decode(after.signature, validate=True)
    except ValueError:
        signature = b""
    said = _said(after)
    if verify(key_of(before.root), said, signature):
        return ""
    if not any(verify(key, said, signature) for key in before.aggregator_keys):
        return "neither the root nor the aggregator whose keys are in use has signed it"
    if (after.root, after.operators, after.stewards) != (before.root, before.operators, before.stewards):
        return "the aggregator has signed it, and it may change the aggregator's keys alone: have the root sign it"
    if after.serial > before.serial + 1:
        return (
            f"the aggregator has signed it, with the serial {after.serial} where {before.serial + 1} follows: have the "
            "root sign it"
        )
    return ""


def replace_trust(path: Path, new: Path) -> Trust:
    """Put a later file in the place of the pinned keys, durably. Raises TrustError or OSError, and changes nothing."""
    before, after = read_trust(path), read_trust(new)
    if why := may_follow(before, after):
        raise TrustError(f"{new}: {why}")
    write_trust(path, after)
    return after


def write_trust(path: Path, trust: Trust) -> None:
    """Write a file of pinned keys, durably, with owner and mode of the one in whose place it is put. Raises OSError."""
    write_over(path, msgspec.json.format(msgspec.json.encode(trust)) + b"\n")


def _said(trust: Trust) -> bytes:
    """Return the bytes that a signature over it covers: all but the signature, and no stewards where there are none, as
    in files of before there were any.
    """
    fields = msgspec.to_builtins(msgspec.structs.replace(trust, signature=""))
    if not trust.stewards:
        del fields["stewards"]
    return msgspec.msgpack.Encoder(order="sorted").encode(["fedge trust", trust.fleet, fields])


class _Numbered(msgspec.Struct):
    format: int = 1
