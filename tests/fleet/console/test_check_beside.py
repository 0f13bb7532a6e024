"""`fedge aggregator run --check` of what looks on beside it: the page, as whom it speaks, notices, Home Assistant."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet.cli import main
from fleet.web.users import add_user

Capture = pytest.CaptureFixture[str]

OPERATOR = 'fleet = "f"\n[broker]\nport = 1884\nusername = "operator"\npassword_file = "operator.password"\n'


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with an operator.toml, from which the commands are run."""
    monkeypatch.chdir(tmp_path)
    Path("operator.toml").write_text(OPERATOR)
    password = Path("operator.password")
    password.write_text("secret\n")
    password.chmod(0o600)


def check(capsys: Capture, text: str, *words: str) -> tuple[int, list[str], list[str]]:
    """Give the exit code, what is said of what looks on, and what is wrong."""
    Path("aggregator.toml").write_text(f'fleet = "f"\n{text}\n')
    code = main(["aggregator", "run", *words, "--check"])
    said = capsys.readouterr()
    lines = said.out.splitlines()
    tables = ("[observer]", "[web]", "[notify]", "[homeassistant]")
    return code, [line for line in lines if line.startswith(tables)], said.err.splitlines()


def test_nothing_is_said_where_nothing_looks_on(capsys: Capture) -> None:
    assert check(capsys, "") == (0, [], [])


def test_the_page_of_the_command_line_is_looked_at_too(capsys: Capture) -> None:
    code, lines, wrong = check(capsys, "", "--web", "127.0.0.1:8080")
    assert (code, wrong) == (0, [])
    assert lines[0].startswith("[observer] names no config: the broker is spoken to as nobody")
    assert lines[1:] == ["[web] the page will be at http://127.0.0.1:8080/"]
    code, _, wrong = check(capsys, "", "--web", "0.0.0.0:8080")
    assert code == 2
    assert "bind: 0.0.0.0:8080 is beyond this machine" in wrong[0]


def test_all_of_it_is_described(capsys: Capture) -> None:
    add_user(Path("users.toml"), "anna", "operator", "a long enough password")
    code, lines, wrong = check(
        capsys,
        '[observer]\nconfig = "operator.toml"\n[web]\nbind = "127.0.0.1:8080"\nusers_file = "users.toml"\n'
        '[notify]\nwebhook = "https://example.org/a-secret"\ntopic = true\nkinds = ["job.ended", "disk"]\n'
        '[homeassistant]\nprefix = "homeassistant"',
    )
    assert lines == [
        "[observer] operator.toml: 127.0.0.1:1884 as operator, with the password in operator.password",
        "[web] the page will be at http://127.0.0.1:8080/",
        "[web] users_file users.toml: anna (operator)",
        "[notify] posted to https://example.org and said under the topic `notice`: job.ended, disk",
        "[homeassistant] devices by discovery, under the prefix homeassistant",
    ]
    assert (code, wrong) == (0, [])


def test_users_who_cannot_act_are_told_why(capsys: Capture) -> None:
    add_user(Path("users.toml"), "anna", "operator", "a long enough password")
    _, lines, _ = check(capsys, '[web]\nbind = "127.0.0.1:8080"\nusers_file = "users.toml"')
    assert lines[-1].startswith("[web] users_file users.toml: anna (operator); nobody can act: ")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[web]\nbind = "127.0.0.1:8080"\n[observer]\nconfig = "none.toml"', "[observer]: none.toml: cannot be read"),
        ('[web]\nbind = "127.0.0.1:8080"\nusers_file = "none.toml"', "[web] users_file: none.toml: cannot be read"),
        ('[notify]\nwebhook = "http://:80/a-secret"', "[notify]: webhook: it is no address that begins with http://"),
        ("[notify]\ntopic = true\nkinds = []", "[notify]: kinds: none is named, so nobody is told anything"),
        (
            '[notify]\ntopic = true\ncertificate_files = ["none.crt"]',
            "[notify] certificate_files: none.crt: No such file or directory: nobody would be told when it ends",
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_place(capsys: Capture, text: str, why: str) -> None:
    code, _, wrong = check(capsys, text)
    assert code == 2
    assert len(wrong) == 1
    assert why in wrong[0]
    assert "a-secret" not in wrong[0]


def test_a_users_file_without_anybody_is_an_error_that_says_what_to_do(capsys: Capture) -> None:
    users = Path("users.toml")
    users.write_text("")
    users.chmod(0o600)
    code, _, wrong = check(capsys, '[web]\nbind = "127.0.0.1:8080"\nusers_file = "users.toml"')
    assert code == 2
    assert "nobody is in it: fedge web user add NAME --role operator --users users.toml" in wrong[0]
