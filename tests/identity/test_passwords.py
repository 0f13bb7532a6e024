"""What is kept of a password, and what it takes to try one."""

from __future__ import annotations

import pytest

from identity.passwords import FEWEST, PasswordError, check_hash, hashed, matches

GOOD = "correct horse battery"


def test_what_is_kept_knows_its_password_and_no_other() -> None:
    kept = hashed(GOOD)
    assert kept.startswith("$argon2id$v=19$m=32768,t=3,p=1$")
    assert matches(kept, GOOD)
    assert not matches(kept, GOOD + "y")
    assert GOOD not in kept


def test_the_same_password_is_kept_as_another_text_each_time() -> None:
    assert hashed(GOOD) != hashed(GOOD)


def test_a_letter_is_the_same_however_a_keyboard_composes_it() -> None:
    assert matches(hashed("stra\u00dfe m\u00fcnchen"), "stra\u00dfe mu\u0308nchen")


@pytest.mark.parametrize("password", ["", "x" * (FEWEST - 1), "x" * 1001])
def test_a_short_or_endless_password_is_refused_and_not_repeated(password: str) -> None:
    with pytest.raises(PasswordError) as refused:
        hashed(password)
    assert not password or password not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain text",
        "$argon2i$v=19$m=32768,t=3,p=1$aaaaaaaaaaaaaaaaaaaaaa$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "$argon2id$v=19$m=999999,t=3,p=1$aaaaaaaaaaaaaaaaaaaaaa$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "$argon2id$v=19$m=32768,t=99,p=1$aaaaaaaaaaaaaaaaaaaaaa$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "$argon2id$v=19$m=32768,t=0,p=1$aaaaaaaaaaaaaaaaaaaaaa$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ],
)
def test_what_takes_too_much_to_try_is_not_tried(text: str) -> None:
    with pytest.raises(PasswordError):
        check_hash(text)
    with pytest.raises(PasswordError):
        matches(text, GOOD)
