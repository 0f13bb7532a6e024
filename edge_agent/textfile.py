"""How a device is, as a file that node_exporter's textfile collector reads, where somebody asks for one.

Prometheus' text format, version 0.0.4, written by hand: a device has no library for it. A reader sees one file or the
next, whole. How old it is, node_exporter tells itself (node_textfile_mtime_seconds).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args, get_type_hints

from broker.messages import Vitals
from runtime.disk import write_unsynced

log = logging.getLogger(__name__)

DOINGS: tuple[str, ...] = get_args(get_type_hints(Vitals)["doing"])
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class Textfile:
    """The file. software: what the agent calls itself."""

    def __init__(self, path: Path, software: str) -> None:
        self._path, self._software = path, software
        self._is_failing = False

    def write(self, vitals: Vitals) -> None:
        """Put these in its place. What cannot be written is said once, and tried again with the next."""
        try:
            write_unsynced(self._path, written(vitals, self._software).encode())
        except OSError as error:
            if not self._is_failing:
                log.warning("[vitals] textfile: %s cannot be written: %s", self._path, error.strerror)
            self._is_failing = True
        else:
            self._is_failing = False


def written(vitals: Vitals, software: str) -> str:
    """Return the content of the file.

    >>> print(written(Vitals("pi-1", 1, heat=41.5), "fedge 1.0").splitlines()[-1])
    fedge_agent_temperature_celsius 41.5
    """
    info = {"device": vitals.device, "software": software}
    lines = [*_family("info", "What runs here.", [(info, 1)])]
    doing = [({"doing": doing}, int(doing == vitals.doing)) for doing in DOINGS]
    lines += _family("doing", "1 for what the agent does.", doing)
    served = [({"job": job}, version.number) for job, version in vitals.serves.items()]
    lines += _family("serves_version", "The version of each job that applications are answered by.", served)
    for name, what, value in (
        ("progress_ratio", "How far what it does is.", vitals.progress),
        ("disk_free_bytes", "Free where its state lies.", vitals.disk_free),
        ("mqtt_today_bytes", "Over MQTT since midnight, UTC.", vitals.bytes_today),
        ("uptime_seconds", "How long the agent has run.", vitals.uptime_s),
        ("load", "Processes that run or wait to, over the processors.", vitals.load),
        ("temperature_celsius", "Of the processor.", vitals.heat),
    ):
        lines += _family(name, what, [] if value is None else [({}, value)])
    return "\n".join(lines) + "\n"


def _family(name: str, what: str, samples: Sequence[tuple[dict[str, str], float]]) -> Iterator[str]:
    """Yield the lines of a gauge; none where there is no sample of it."""
    if samples:
        yield f"# HELP fedge_agent_{name} {what}"
        yield f"# TYPE fedge_agent_{name} gauge"
    for labels, value in samples:
        text = ",".join(f'{label}="{word.translate(_ESCAPES)}"' for label, word in labels.items())
        yield f"fedge_agent_{name}{f'{{{text}}}' if text else ''} {value}"
