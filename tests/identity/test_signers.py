from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from identity.keys import KeyFileError, SigningKey, write_key
from identity.settings import DeviceIdentity
from identity.signers import signer_of
from runtime.settings import SettingsError

KEY = SigningKey.generate()


class Chip:
    """A key that never leaves its chip."""

    public = KEY.public

    def sign(self, message: bytes) -> bytes:
        return KEY.sign(message)


class Liar(Chip):
    public = SigningKey.generate().public


def broken() -> None:
    raise OSError("no chip")


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    made = types.ModuleType("our_tpm")
    for name, factory in {"key": Chip, "liar": Liar, "broken": broken, "none": lambda: None}.items():
        setattr(made, name, factory)
    monkeypatch.setitem(sys.modules, "our_tpm", made)


def test_a_key_is_a_file_or_what_a_factory_gives(tmp_path: Path, module: None) -> None:
    write_key(tmp_path / "k", KEY)
    for name in (str(tmp_path / "k"), "our_tpm:key"):
        signer = signer_of(name)
        assert (signer.public, signer.sign(b"x")) == (KEY.public, KEY.sign(b"x"))


def test_a_file_whose_name_looks_like_a_factory_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_key(Path("our_tpm:key"), KEY)
    assert isinstance(signer_of("our_tpm:key"), SigningKey)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("our_tpm:broken", "our_tpm:broken: gives no key: OSError: no chip"),
        ("our_tpm:missing", "gives no key: AttributeError"),
        ("nowhere.at_all:key", "gives no key: ModuleNotFoundError"),
        ("our_tpm:none", "gives no key: AttributeError"),
        ("our_tpm:liar", "no Ed25519 signature of the key that it names"),
        ("/nowhere", "cannot be read"),
    ],
)
def test_what_gives_no_key_is_named(module: None, name: str, why: str) -> None:
    with pytest.raises(KeyFileError, match=why):
        signer_of(name)
    with pytest.raises(SettingsError, match=why):
        DeviceIdentity(message_key=name).read_key()


def test_without_a_name_there_is_no_key() -> None:
    found: Callable[[], object] = DeviceIdentity().read_key
    assert found() is None
