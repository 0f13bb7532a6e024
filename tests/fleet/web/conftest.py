"""Users of a page and its certificate, for tests of those who come in."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet.web.users import add_user
from identity import passwords
from tests.fleet.web.browser import GOOD


@pytest.fixture(scope="module")
def cheap_passwords() -> Iterator[None]:
    """As real, with less work: tests/identity/test_passwords.py has the parameters."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(passwords, "MEMORY_BYTES", 65_536)
        patch.setattr(passwords, "PASSES", 1)
        yield


@pytest.fixture(scope="module")
def users(cheap_passwords: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An operator, anna, and an observer, bo, with the same password."""
    path = tmp_path_factory.mktemp("users") / "users.toml"
    add_user(path, "anna", "operator", GOOD)
    add_user(path, "bo", "observer", GOOD)
    return path


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1, and its key."""
    made, key = tmp_path / "web.crt", tmp_path / "web.key"
    program = shutil.which("openssl")
    assert program is not None
    line = [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "90"]
    line += ["-subj", "/CN=page", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(made)]
    subprocess.run(line, check=True, capture_output=True)
    return made, key
