from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from identity.keys import SigningKey, text_of
from identity.trust import Trust, TrustError, may_follow, read_trust, replace_trust, sign_trust, write_trust

ROOT, OLD, NEW, ADA, MALLORY, STEWARD = (SigningKey(bytes((n,)) * 32) for n in range(6))
TRUST = Trust("f", text_of(ROOT.public), (text_of(OLD.public),), {"ada": text_of(ADA.public)})
NEXT = structs.replace(TRUST, serial=2, aggregator=(text_of(NEW.public),))
PROMOTED = structs.replace(NEXT, operators={"mallory": text_of(MALLORY.public)})


@pytest.fixture
def pinned(tmp_path: Path) -> Path:
    write_trust(tmp_path / "trust.json", TRUST)
    return tmp_path / "trust.json"


def file(folder: Path, trust: Trust) -> Path:
    write_trust(folder / "new.json", trust)
    return folder / "new.json"


@pytest.mark.parametrize("signer", [ROOT, OLD], ids=["the root", "the old key"])
def test_the_root_or_the_old_key_hands_over_to_a_new_one(pinned: Path, signer: SigningKey) -> None:
    pinned.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(pinned, 1234, 5678)
    before = pinned.stat()
    after = replace_trust(pinned, file(pinned.parent, sign_trust(NEXT, signer)))
    now = pinned.stat()
    assert (now.st_mode, now.st_uid, now.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.aggregator_keys == (NEW.public,)
    assert read_trust(pinned, "f") == after
    assert sorted(path.name for path in pinned.parent.iterdir()) == ["new.json", "trust.json"]


def test_the_root_changes_the_operators() -> None:
    assert may_follow(TRUST, sign_trust(PROMOTED, ROOT)) == ""


def test_the_root_takes_back_what_a_stolen_key_has_handed_over(pinned: Path) -> None:
    theirs = structs.replace(NEXT, aggregator=(text_of(MALLORY.public),))
    replace_trust(pinned, file(pinned.parent, sign_trust(theirs, OLD)))
    for signer in (OLD, MALLORY):  # neither is anybody any more, or may go back
        with pytest.raises(TrustError):
            replace_trust(pinned, file(pinned.parent, sign_trust(NEXT, signer)))
    after = replace_trust(pinned, file(pinned.parent, sign_trust(NEXT, ROOT)))
    assert after.aggregator_keys == (NEW.public,)
    with pytest.raises(TrustError, match="it is an old one"):
        replace_trust(pinned, file(pinned.parent, sign_trust(NEXT, ROOT)))


REFUSED: dict[str, tuple[Trust, str]] = {
    "unsigned": (NEXT, "neither the root nor the aggregator"),
    "of another signer": (sign_trust(NEXT, MALLORY), "neither the root nor the aggregator"),
    "by the new key itself": (sign_trust(NEXT, NEW), "neither the root nor the aggregator"),
    "by an operator": (sign_trust(NEXT, ADA), "neither the root nor the aggregator"),
    "changed since": (structs.replace(sign_trust(NEXT, ROOT), serial=3), "neither the root nor the aggregator"),
    "no base64": (structs.replace(NEXT, signature="?"), "neither the root nor the aggregator"),
    "an old one": (sign_trust(structs.replace(NEXT, serial=1), ROOT), "it is an old one"),
    "far ahead by the aggregator": (sign_trust(structs.replace(NEXT, serial=2**53), OLD), "where 2 follows"),
    "of another fleet": (sign_trust(structs.replace(NEXT, fleet="g"), ROOT), "of the fleet 'g'"),
    "operators by the aggregator": (sign_trust(PROMOTED, OLD), "the aggregator's keys alone"),
    "stewards by the aggregator": (
        sign_trust(structs.replace(NEXT, stewards={"mallory": text_of(MALLORY.public)}), OLD),
        "the aggregator's keys alone",
    ),
    "a steward that was added since": (
        structs.replace(sign_trust(NEXT, ROOT), stewards={"mallory": text_of(MALLORY.public)}),
        "neither the root nor the aggregator",
    ),
    "by a steward": (sign_trust(NEXT, STEWARD), "neither the root nor the aggregator"),
    "a root by the aggregator": (
        sign_trust(structs.replace(NEXT, root=text_of(MALLORY.public)), OLD),
        "the aggregator's keys alone",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_no_other_file_takes_the_place_of_the_pinned_keys(pinned: Path, what: str) -> None:
    new, why = REFUSED[what]
    before = pinned.read_bytes()
    with pytest.raises(TrustError, match=why):
        replace_trust(pinned, file(pinned.parent, new))
    assert pinned.read_bytes() == before


def test_a_file_that_cannot_be_written_leaves_the_old_one(pinned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    new = file(pinned.parent, sign_trust(NEXT, ROOT))
    before = pinned.read_bytes()
    monkeypatch.setattr("runtime.disk.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_trust(pinned, new)
    assert pinned.read_bytes() == before
    assert sorted(path.name for path in pinned.parent.iterdir()) == ["new.json", "trust.json"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{", "is damaged"),
        (b"[]", "is damaged"),
        (msgspec.json.encode(structs.replace(TRUST, aggregator=())), "no key of an aggregator"),
        (msgspec.json.encode(structs.replace(TRUST, aggregator=("x",))), "is no public key"),
        (msgspec.json.encode(structs.replace(TRUST, format=3)), "of a newer fedge"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, text: bytes, why: str) -> None:
    (tmp_path / "trust.json").write_bytes(text)
    with pytest.raises(TrustError, match=why):
        read_trust(tmp_path / "trust.json", "f")


def test_the_keys_of_another_fleet_are_refused(pinned: Path) -> None:
    with pytest.raises(TrustError, match="of the fleet 'f', not of 'g'"):
        read_trust(pinned, "g")


def test_a_steward_is_pinned_and_is_no_operator(pinned: Path) -> None:
    new = structs.replace(TRUST, serial=2, format=2, stewards={"page": text_of(STEWARD.public)})
    after = replace_trust(pinned, file(pinned.parent, sign_trust(new, ROOT)))
    assert read_trust(pinned).steward_keys == {"page": STEWARD.public}
    assert after.operator_keys == {"ada": ADA.public}


def test_nobody_is_an_operator_and_a_steward_by_one_key(pinned: Path) -> None:
    write_trust(pinned, structs.replace(TRUST, stewards={"ada2": text_of(ADA.public)}))
    with pytest.raises(TrustError, match="one key twice"):
        read_trust(pinned)


def test_a_signature_of_before_there_were_stewards_still_counts() -> None:
    assert sign_trust(NEXT, ROOT).signature == OF_FORMAT_1


OF_FORMAT_1 = "j64J/lJAdCgSYbgAdjitHcZJSmNCh2fN/yNJnzN7CR2HhQrYzgkKb7U9ogrwGhZPaEqhm4YkZOiw17k4c/xiAA=="
"""Of the fedge before, over the same."""
