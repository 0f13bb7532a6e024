"""users.toml: who may log in, and what is done with a file that is not as it should be."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from fleet.cli import main
from fleet.web.users import User, Users, add_user, listed, read_users, remove_user
from identity import passwords
from runtime.settings import SettingsError

GOOD = "correct horse battery"


@pytest.fixture(autouse=True)
def _cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """As real, with less work: tests/identity/test_passwords.py has the parameters."""
    monkeypatch.setattr(passwords, "MEMORY_BYTES", 65_536)
    monkeypatch.setattr(passwords, "PASSES", 1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "users.toml"


def test_users_are_added_listed_and_removed_by_the_command(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{GOOD}\nanother line\n")
    line = ["web", "user"]
    of = ["--users", str(path)]
    assert main([*line, "add", "anna.b", "--role", "operator", "--password-file", str(secret), *of]) == 0
    monkeypatch.setattr("sys.stdin", io.StringIO(GOOD + "\n"))
    assert main([*line, "add", "bo", "--role", "observer", "--json", *of]) == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert GOOD not in path.read_text()
    capsys.readouterr()
    assert main([*line, "list", "--json", *of]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"users": [{"name": "anna.b", "role": "operator"}, {"name": "bo", "role": "observer"}]}
    assert main([*line, "remove", "anna.b", *of]) == 0
    assert list(read_users(path)) == ["bo"]


@pytest.mark.parametrize("password", ["", "short\n"])
def test_a_short_password_makes_no_user(
    path: Path, password: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(password))
    assert main(["web", "user", "add", "bo", "--role", "observer", "--users", str(path)]) == 2
    assert "10 characters" in capsys.readouterr().err
    assert not path.exists()


def test_nobody_is_written_over_unless_that_is_asked_for(path: Path) -> None:
    add_user(path, "bo", "observer", GOOD)
    with pytest.raises(SettingsError, match="--again"):
        add_user(path, "bo", "operator", GOOD)
    add_user(path, "bo", "operator", GOOD, again=True)
    assert [line.role for line in listed(path).users] == ["operator"]


@pytest.mark.parametrize("name", ["", "-x", "a b", "a\nb", "é", "x" * 41, 'a"]'])
def test_a_name_is_plain(path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="no name"):
        add_user(path, name, "observer", GOOD)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[users.bo]\nrole = "admin"\npassword = "HASH"\n', "role"),
        ('[users.bo]\nrole = "operator"\npassword = "correct horse battery"\n', "set it again"),
        ('[users.bo]\nrole = "operator"\n', "password"),
        ('[users.bo]\nrole = "operator"\npassword = "HASH"\ngroups = []\n', "groups"),
        ("[users", "TOML"),
    ],
)
def test_a_broken_file_lets_nobody_in_and_says_why(path: Path, text: str, why: str) -> None:
    add_user(path, "anna", "operator", GOOD)
    kept = read_users(path)["anna"].password
    users = Users(path)
    assert users.find("anna") is not None
    path.write_text(text.replace("HASH", kept))
    assert users.find("anna") is None
    assert why in users.trouble
    assert GOOD not in users.trouble
    path.unlink()
    assert users.find("anna") is None
    add_user(path, "anna", "operator", GOOD)
    assert users.find("anna") is not None
    assert users.trouble == ""


@pytest.mark.parametrize("mode", [0o644, 0o620, 0o602])
def test_a_file_that_others_read_or_write_lets_nobody_in(path: Path, mode: int) -> None:
    add_user(path, "anna", "operator", GOOD)
    path.chmod(mode)
    users = Users(path)
    assert users.find("anna") is None
    assert "chmod 600" in users.trouble


def test_who_is_removed_is_not_found_any_more(path: Path) -> None:
    add_user(path, "anna", "operator", GOOD)
    users = Users(path)
    assert users.find("anna") is not None
    remove_user(path, "anna")
    assert users.find("anna") is None


def test_an_observer_may_not_what_an_operator_may() -> None:
    assert User("a", "operator").may("operator")
    assert User("a", "operator").may("observer")
    assert User("a", "observer").may("observer")
    assert not User("a", "observer").may("operator")
