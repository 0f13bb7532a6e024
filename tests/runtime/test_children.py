from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.children import environment


def test_a_child_finds_our_modules_and_those_beside_them_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "a_factory_of_mine.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path / "beside")
    code = "import os, runtime, broker, a_factory_of_mine; print(runtime.__file__, os.environ['ASKED'])"
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd="/", env=environment(ASKED="yes"), capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(Path(sys.modules["runtime"].__file__ or "")), "yes"]
