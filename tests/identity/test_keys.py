from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from identity.keys import (
    ExchangeKey,
    KeyFileError,
    SigningKey,
    fingerprint,
    key_of,
    mac,
    read_key,
    text_of,
    verify,
    write_key,
)

# RFC 8032, section 7.1, test 2
SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_a_signature_is_that_of_the_standard() -> None:
    key = SigningKey(SEED)
    assert (key.public, key.sign(b"\x72")) == (PUBLIC, SIGNATURE)
    assert verify(PUBLIC, b"\x72", SIGNATURE)


@pytest.mark.parametrize("bit", [0, 100, 511])
def test_another_bit_is_no_signature(bit: int) -> None:
    wrong = bytearray(SIGNATURE)
    wrong[bit // 8] ^= 1 << bit % 8
    assert not verify(PUBLIC, b"\x72", bytes(wrong))
    assert not verify(PUBLIC, b"\x73", SIGNATURE)
    assert not verify(SigningKey.generate().public, b"\x72", SIGNATURE)
    assert not verify(PUBLIC[:-1], b"\x72", SIGNATURE)
    assert not verify(PUBLIC, b"\x72", SIGNATURE[:-1])


def test_two_agree_on_a_secret_as_the_standard_says() -> None:
    # RFC 7748, section 6.1
    alice = ExchangeKey(bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
    bob = ExchangeKey(bytes.fromhex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb"))
    secret = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    assert alice.shared(bob.public) == bob.shared(alice.public) == secret
    assert mac(alice.shared(bob.public), b"x") != mac(alice.shared(bob.public), b"y")


@pytest.mark.parametrize("public", [bytes(32), bytes(31), b"\1" + bytes(31)])
def test_a_key_that_gives_everybody_the_same_secret_is_refused(public: bytes) -> None:
    with pytest.raises(ValueError, match="key"):
        ExchangeKey().shared(public)


def test_a_key_file_is_private_and_openssl_reads_it(tmp_path: Path) -> None:
    path, key = tmp_path / "message.key", SigningKey.generate()
    write_key(path, key)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_key(path).public == key.public
    told = subprocess.run(
        ["openssl", "pkey", "-in", str(path), "-pubout", "-outform", "DER"], check=True, capture_output=True
    )
    assert told.stdout.endswith(key.public)
    with pytest.raises(FileExistsError):
        write_key(path, key)


def test_a_key_of_openssl_is_read(tmp_path: Path) -> None:
    path = tmp_path / "k"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", str(path)], check=True)
    path.chmod(0o640)
    assert len(read_key(path).public) == 32


def test_a_key_that_everybody_can_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "message.key"
    write_key(path, SigningKey.generate())
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
        read_key(path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", "no private key in PEM"),
        (b"-----BEGIN PRIVATE KEY-----\n!!!\n-----END PRIVATE KEY-----\n", "damaged"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no Ed25519 key"),
    ],
)
def test_what_is_no_key_is_named(tmp_path: Path, text: bytes, why: str) -> None:
    path = tmp_path / "k"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=why):
        read_key(path)
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_key(tmp_path / "none")


def test_public_keys_are_text() -> None:
    assert key_of(text_of(PUBLIC)) == PUBLIC
    for text in ("", "x", text_of(PUBLIC)[:-4], "é" * 44):
        with pytest.raises(KeyFileError, match="44 characters"):
            key_of(text)
    assert len(fingerprint(PUBLIC)) == 24
