"""A version of a job as ONNX: written by `fedge job export` in a process of its own, since its libraries are heavy.

One at a time, within TIMES_OUT_S; who asks meanwhile waits, and a bounded number may.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

from fleet.web.site import MissingError
from runtime.children import NOT_THERE, environment
from runtime.words import clean

TIMES_OUT_S = 60.0
MOST_WAITING = 4
COMMAND = (sys.executable, "-P", "-m", "fleet.cli", "job", "export")


class ExportFailedError(RuntimeError):
    """No model was written; the message says why."""


class Exporter:
    """Writes models. config: a file like operator.toml, as whom the aggregator is asked."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._one = asyncio.Lock()
        self._waiting = 0

    async def export(self, job: str, version: str = "") -> BinaryIO:
        """Return a version of a job as an open ONNX file that nothing else has to clear away.

        version: "best", "last", a number; "" for the one that devices serve.

        Raises ExportFailedError, MissingError where the aggregator has no such version.
        """
        if self._waiting >= MOST_WAITING:
            raise ExportFailedError("Other models are being written; ask again in a minute.")
        self._waiting += 1
        try:
            async with self._one:
                return await self._export(job, version)
        finally:
            self._waiting -= 1

    async def _export(self, job: str, version: str) -> BinaryIO:
        with tempfile.TemporaryDirectory(prefix="fedge-web-") as folder:
            out = Path(folder) / "model.onnx"
            which = ["--version", version] if version else []
            process = await asyncio.create_subprocess_exec(
                *(*COMMAND, "--out", str(out), "--config", str(self._config), *which),
                *("--", job),  # its name may begin as an option does
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                env=environment(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1"),
            )
            try:
                async with asyncio.timeout(TIMES_OUT_S):
                    _, said = await process.communicate()
            except TimeoutError as error:
                raise ExportFailedError(f"No model was written within {TIMES_OUT_S:g} s.") from error
            finally:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                    await process.wait()
            if process.returncode:
                lines = said.decode("utf-8", "replace").strip().splitlines()
                why = lines[-1].removeprefix("fedge: ") if lines else "the export failed without a word"
                raise (MissingError if process.returncode == NOT_THERE else ExportFailedError)(clean(why))
            try:
                return out.open("rb")  # its name goes with the folder
            except OSError as error:
                raise ExportFailedError(f"The model cannot be read: {error.strerror}") from error
