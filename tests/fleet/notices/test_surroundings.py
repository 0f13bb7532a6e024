"""What is looked at on the server: a real folder, real certificates and lists of the revoked."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.notices.surroundings import DISK_S, FILES_S, Lookaround
from identity.certificates import new_authority, new_key, revocations


def test_room_and_ends_are_read_now_and_then(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    now, key = dt.datetime.now(dt.UTC).replace(microsecond=0), new_key()
    files = [str(tmp_path / name) for name in ("ca.crt", "devices.crl", "none.crt")]
    authority = new_authority(key, "a", "home", 9, now)
    Path(files[0]).write_bytes(authority)
    Path(files[1]).write_bytes(revocations(authority, key, {}, 1, 3, now))
    around = Lookaround(tmp_path, files)
    seen = around.look(1.0)
    assert seen.free is not None
    assert 0 < seen.free <= shutil.disk_usage(tmp_path).total
    assert dict(seen.ends) == {
        files[0]: (now + dt.timedelta(9)).timestamp(),
        files[1]: (now + dt.timedelta(3)).timestamp(),
    }
    Path(files[1]).write_bytes(b"nothing")
    assert around.look(1.0 + DISK_S).ends == seen.ends
    around.look(1.0 + FILES_S)
    assert list(around.look(1.0 + 2 * FILES_S).ends) == files[:1]
    assert caplog.text.count("nobody will be told when") == 2
    shutil.rmtree(tmp_path)
    assert around.look(9 * FILES_S).free is None


def test_a_server_without_the_packages_of_keys_has_notices_too(tmp_path: Path) -> None:
    now, key = dt.datetime.now(dt.UTC).replace(microsecond=0), new_key()
    authority = new_authority(key, "a", "home", 9, now)
    (tmp_path / "ca.crt").write_bytes(authority)
    (tmp_path / "devices.crl").write_bytes(revocations(authority, key, {}, 1, 3, now))
    program = f"""
import sys
sys.modules["cryptography"] = None
import fleet.notices.notifier
from pathlib import Path
from fleet.notices.surroundings import ends_at
from identity.validity import ValidityError
folder = Path({str(tmp_path)!r})
print(ends_at(folder / "ca.crt"))
try:
    ends_at(folder / "devices.crl")
except ValidityError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    ends, why = done.stdout.splitlines()
    assert float(ends) == (now + dt.timedelta(9)).timestamp()
    assert "pip install fedge[identity]" in why
