"""Tokens: their lines, their passwords as mosquitto has them, and what each is still good for."""

from __future__ import annotations

import base64
import datetime as dt
import subprocess
from pathlib import Path

import pytest
from msgspec import structs

from identity.asking import Request, Secret
from identity.record import written
from identity.tokens import FETCH, Line, TokenError, Tokens, draw, parse_tokens, password_hash, read_line, refusal

NOW = dt.datetime(2026, 11, 27, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
REQUEST = Request("pi-1", "csr", "key")
NAME, SECRET, TOKEN = draw(NOW, 60, device=None, labels={}, rows=None, again=False)


def line(**more: object) -> Line:
    bare = Line("broker.example", 8886, "barn", None, NAME, SECRET, "0" * 64)
    return bare._replace(**more)  # type: ignore[arg-type]


@pytest.mark.parametrize("one", [line(), line(device="pi-1"), line(host="10.0.0.7"), line(host="fd00::7", port=443)])
def test_a_line_says_what_it_was_made_of(one: Line) -> None:
    text = str(one)
    assert read_line(f" {text}\n") == one
    assert text.startswith("fedge-token://")
    assert len(text.split()) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "https://example.org",
        "fedge-token://",
        str(line())[:-1],
        str(line()).replace(SECRET, SECRET[1:]),
        str(line()).replace("token.", "pi."),
        str(line()).replace(":8886", ":88866"),
        str(line()).replace("barn", "../etc"),
        str(line()).replace("/barn", "/barn/pi-1/more"),
        str(line()) + "0" * 2000,
        str(line()).replace("broker.example", "[broker"),
    ],
)
def test_what_is_no_line_is_named(text: str) -> None:
    with pytest.raises(TokenError, match="this is no token: it is one line that begins with fedge-token://"):
        read_line(text)


def test_no_name_of_a_token_is_one_of_a_device() -> None:
    assert "." in NAME
    assert draw(NOW, 60, device=None, labels={}, rows=None, again=False)[0] != NAME


def test_a_password_is_hashed_as_mosquitto_hashes_it(tmp_path: Path) -> None:
    file = tmp_path / "passwd"
    file.write_text("somebody:secret\n")
    subprocess.run(["mosquitto_passwd", "-U", file], check=True, capture_output=True)
    theirs = file.read_text().strip().partition(":")[2]
    _, kind, rounds, salt, _ = theirs.split("$")
    assert (kind, rounds) == ("7", "101")
    assert password_hash("secret", base64.b64decode(salt)) == theirs


def test_the_secret_itself_is_kept_nowhere() -> None:
    kept = written(Tokens("barn", {NAME: TOKEN}))
    assert SECRET.encode() not in kept
    assert Secret(SECRET).password.encode() not in kept
    assert parse_tokens(kept, "tokens.json") == Tokens("barn", {NAME: TOKEN})


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"fleet": 1}', b'{"fleet":"barn","format":2}'])
def test_a_damaged_or_newer_file_is_named(text: bytes) -> None:
    with pytest.raises(TokenError, match=r"tokens\.json"):
        parse_tokens(text, "tokens.json")


def test_a_token_is_good_for_one_request_until_its_end() -> None:
    assert refusal(TOKEN, REQUEST, NOW) == ""
    assert "has expired" in refusal(TOKEN, REQUEST, NOW + HOUR)
    used = structs.replace(TOKEN, asked=REQUEST, state="waiting")
    assert refusal(used, REQUEST, NOW) == ""
    assert "was used already" in refusal(used, Request("pi-1", "another", "key"), NOW)
    bound = structs.replace(TOKEN, device="pi-2")
    assert refusal(bound, REQUEST, NOW) == "this token is for the device pi-2, and not for pi-1"


def test_what_was_issued_can_be_fetched_for_a_while_longer() -> None:
    issued = structs.replace(TOKEN, asked=REQUEST, state="issued")
    assert refusal(issued, REQUEST, NOW + HOUR) == ""
    assert "has expired" in refusal(issued, REQUEST, NOW + HOUR + FETCH)
    tokens = Tokens("barn", {"token.a": TOKEN, "token.b": issued})
    assert list(tokens.without_gone(NOW).tokens) == ["token.a", "token.b"]
    assert list(tokens.without_gone(NOW + HOUR).tokens) == ["token.b"]
    assert not tokens.without_gone(NOW + HOUR + FETCH).tokens


def test_a_request_is_found_by_its_fingerprint_and_a_window_ends() -> None:
    tokens = Tokens("barn", {"token.b": structs.replace(TOKEN, asked=REQUEST)}, NOW + HOUR)
    assert tokens.find(f" {REQUEST.fingerprint.upper()} ")[0] == "token.b"
    with pytest.raises(TokenError, match="no request has this fingerprint"):
        tokens.find("0000")
    assert tokens.is_open_window(NOW)
    assert not tokens.is_open_window(NOW + HOUR)
    assert tokens.passwords.splitlines()[1:] == [f"token.b:{TOKEN.hash}"]
