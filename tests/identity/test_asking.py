"""Requests and answers: proofs that nobody else can make, and one error whatever the bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.asking import (
    MOST_ANSWERED,
    MOST_ASKED,
    Answer,
    AskingError,
    Request,
    Secret,
    answer,
    answered,
    ask,
    asked,
)
from identity.keys import SigningKey, text_of

KEY, OTHER = SigningKey(bytes(32)), SigningKey(bytes([1]) * 32)
SECRET = Secret("a" * 32)
REQUEST = Request("pi-1", "csr", text_of(KEY.public))
TOPIC = "somewhere"
PAYLOAD = ask(TOPIC, REQUEST, KEY, SECRET.proof_key)
ANSWER = Answer(REQUEST.digest, "waiting", "for somebody")


def test_a_request_is_what_was_asked() -> None:
    assert asked(TOPIC, PAYLOAD, proof_key=SECRET.proof_key) == REQUEST
    assert asked(TOPIC, ask(TOPIC, REQUEST, KEY), key=text_of(KEY.public)) == REQUEST


def test_the_digest_is_of_name_and_keys_alone() -> None:
    thanks = Request(REQUEST.device, REQUEST.csr, REQUEST.key, done=True)
    assert thanks.digest == REQUEST.digest
    assert thanks.fingerprint == REQUEST.fingerprint
    assert Request("pi-2", REQUEST.csr, REQUEST.key).digest != REQUEST.digest
    assert Request("pi-1", "other", REQUEST.key).digest != REQUEST.digest
    assert Request("pi-1", REQUEST.csr, text_of(OTHER.public)).digest != REQUEST.digest


@pytest.mark.parametrize(
    ("topic", "payload", "more"),
    [
        ("elsewhere", PAYLOAD, {"proof_key": SECRET.proof_key}),
        (TOPIC, PAYLOAD, {"proof_key": Secret("b" * 32).proof_key}),
        (TOPIC, ask(TOPIC, REQUEST, KEY), {"proof_key": SECRET.proof_key}),
        (TOPIC, ask(TOPIC, REQUEST, OTHER, SECRET.proof_key), {"proof_key": SECRET.proof_key}),
        (TOPIC, ask(TOPIC, REQUEST, KEY), {"key": text_of(OTHER.public)}),
        (TOPIC, PAYLOAD[:-1] + b" ", {"proof_key": SECRET.proof_key}),
        (TOPIC, PAYLOAD + b" " * MOST_ASKED, {"proof_key": SECRET.proof_key}),
        (TOPIC, b"", {}),
    ],
)
def test_a_request_of_somebody_else_is_none(topic: str, payload: bytes, more: dict[str, object]) -> None:
    with pytest.raises(AskingError):
        asked(topic, payload, **more)  # type: ignore[arg-type]


def test_an_answer_is_believed_of_who_has_the_secret_or_of_the_signer() -> None:
    assert answered(TOPIC, answer(TOPIC, ANSWER, SECRET.proof_key), SECRET.proof_key, signed=False) == ANSWER
    assert answered(TOPIC, answer(TOPIC, ANSWER, KEY), KEY.public, signed=True) == ANSWER


@pytest.mark.parametrize(
    ("payload", "by", "signed"),
    [
        (answer(TOPIC, ANSWER, Secret("b" * 32).proof_key), SECRET.proof_key, False),
        (answer("elsewhere", ANSWER, SECRET.proof_key), SECRET.proof_key, False),
        (answer(TOPIC, ANSWER, OTHER), KEY.public, True),
        (answer("elsewhere", ANSWER, KEY), KEY.public, True),
        (answer(TOPIC, ANSWER, KEY) + b" " * MOST_ANSWERED, KEY.public, True),
        (b"", KEY.public, True),
    ],
)
def test_an_answer_of_somebody_else_is_none(payload: bytes, by: bytes, signed: bool) -> None:
    with pytest.raises(AskingError):
        answered(TOPIC, payload, by, signed=signed)


@given(st.binary(max_size=300))
def test_whatever_the_bytes_there_is_one_error(noise: bytes) -> None:
    with pytest.raises(AskingError):
        asked(TOPIC, noise)
    with pytest.raises(AskingError):
        answered(TOPIC, noise, KEY.public, signed=True)


@given(st.binary(max_size=200) | st.from_regex(r'\{"device":"[a-z]+","csr":"x","key":.{0,20}\}').map(str.encode))
def test_json_that_is_proven_and_damaged_is_the_same_error(text: bytes) -> None:
    from identity.keys import mac

    said = b"fedge asked 1\n" + TOPIC.encode() + b"\n" + text
    proof = mac(SECRET.proof_key, said)
    with pytest.raises(AskingError):
        asked(TOPIC, KEY.sign(proof + said) + proof + text, key=text_of(KEY.public), proof_key=SECRET.proof_key)
