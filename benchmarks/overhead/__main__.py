"""What a round costs beside training: agents as processes on mosquitto, with a training that does nothing.

    python -m benchmarks.overhead
    python -m benchmarks.overhead --agents 10 50 100 --codecs off light strong extreme
    python -m benchmarks.overhead --flower /tmp/flower/bin/python --repeats 3

With --flower the same net goes through Flower's lean server and client, in turn with ours on the same cores. The path
is that of the Python of an environment with it (python -m venv /tmp/flower; /tmp/flower/bin/pip install flwr==1.41.0).
The floor is as many bytes by bare paho through the same mosquitto, with nothing done to them.

Times are medians over the repeats. CPU is user and system of all threads of a process, as the kernel counts them, from
the fifth round on; memory is the peak of a process (VmHWM); bytes are payloads, from a run of their own behind the
proxy that counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec import structs

from benchmarks.overhead import floor, flower, ours
from benchmarks.overhead.found import Found
from benchmarks.overhead.rounds import WARM
from fleet.console.display import duration
from models.job import PRESETS, ModelSpec
from models.nets.mlp import spec_of_mlp
from models.params import n_parameters

MODEL = ModelSpec(inputs=784, hidden=(200, 200), outputs=10)
GOALS = {"off": (1.2, 4.0), "strong": (0.6, 1.0)}
"""Times Flower's round, and ms of the server's CPU an update, that we want to stay within."""
AGENT_MS = 12.0
HEADER = (
    f"{'':<14} {'agents':>6} {'wall ms':>8} {'CPU ms':>7} {'server':>7} {'/update':>8} {'broker':>7} {'agent':>6} "
    f"{'server MB':>9} {'agent MB':>8} {'start s':>8} {'lag ms':>7} {'up B':>8} {'down B':>8}"
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run everything in turn and print it, then how ours stands beside the others."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.rounds < 1 or asked.repeats < 1 or min(asked.agents) < 1:
        parser.error("there is nothing to measure without a round, a repeat and an agent")
    if asked.flower is not None and not asked.flower.is_file():
        parser.error(f"--flower {asked.flower}: there is no such file")
    if asked.flower is not None and not flower.is_installed(asked.flower):
        parser.error(f"--flower {asked.flower}: this is no Python of an environment with flwr")
    if asked.json is not None and not asked.json.parent.is_dir():
        parser.error(f"--json {asked.json}: there is no such folder")
    print(
        f"{n_parameters(spec_of_mlp(MODEL)):,} parameters, {asked.rounds} rounds after {WARM} that are not "
        f"counted, a round each unless said otherwise, medians of {asked.repeats}\n\n{HEADER}",
        flush=True,
    )
    told = []
    for n_agents in asked.agents:
        told += _compare(n_agents, asked)
    print()
    for found in told:
        for line in _judged(found, told):
            print(line)
    if asked.json is not None:
        plain = {"rounds": asked.rounds, "found": [structs.asdict(found) for found in told]}
        asked.json.write_text(json.dumps(plain, indent=1) + "\n", encoding="utf-8")


def _compare(n_agents: int, asked: argparse.Namespace) -> list[Found]:
    """Measure everything with so many agents, one after the other and again."""
    say = _Progress()
    counted = {
        codec: ours.measure(MODEL, codec, n_agents, asked.rounds, counted=True, say=say) for codec in asked.codecs
    }
    runs: dict[str, list[Found]] = {}
    for _ in range(asked.repeats):
        for codec in asked.codecs:
            found = ours.measure(MODEL, codec, n_agents, asked.rounds, say=say)
            runs.setdefault(codec, []).append(found)
        for codec in asked.codecs:
            up, down = round(counted[codec].up_bytes), round(counted[codec].down_bytes)
            found = structs.replace(floor.measure(up, down, n_agents, asked.rounds, say=say), name=f"floor, {codec}")
            runs.setdefault(f"floor, {codec}", []).append(found)
        if asked.flower is not None:
            found = flower.measure(asked.flower, spec_of_mlp(MODEL), n_agents, asked.rounds, say=say)
            runs.setdefault("flower", []).append(found)
    say.done()
    told = []
    for name, several in runs.items():
        whole = _median(several)
        if name in counted:
            whole = structs.replace(whole, up_bytes=counted[name].up_bytes, down_bytes=counted[name].down_bytes)
        told.append(structs.replace(whole, name=name))
        print(_line(told[-1]), flush=True)
    return told


def _median(several: Sequence[Found]) -> Found:
    fields = [field for field in structs.fields(Found) if field.type is float or field.type == "float"]
    return structs.replace(
        several[0], **{f.name: statistics.median(getattr(found, f.name) for found in several) for f in fields}
    )


def _line(found: Found) -> str:
    update_ms = 1e3 * found.server_cpu_s / found.agents
    return (
        f"{found.name:<14} {found.agents:>6} {1e3 * found.wall_s:>8.1f} {1e3 * found.cpu_s:>7.1f} "
        f"{1e3 * found.server_cpu_s:>7.1f} {update_ms:>8.2f} {1e3 * found.broker_cpu_s:>7.1f} "
        f"{1e3 * found.agent_cpu_s:>6.2f} {found.server_peak_mb:>9.0f} {found.agent_peak_mb:>8.0f} "
        f"{found.start_s:>8.1f} {1e3 * found.lag_s:>7.1f} {found.up_bytes:>8.0f} {found.down_bytes:>8.0f}"
    )


def _judged(found: Found, told: Sequence[Found]) -> list[str]:
    """Say how one of our codings stands beside the others of as many agents, and where it loses."""
    if found.name not in PRESETS:
        return []
    lines = []
    wall, update_ms = GOALS.get(found.name, (None, None))
    for other in (one for one in told if one.agents == found.agents and one.name in ("flower", f"floor, {found.name}")):
        ratio = found.wall_s / other.wall_s
        cpu = f"{found.cpu_s / other.cpu_s:.2f}x its CPU" if other.cpu_s else "its CPU is less than a tick"
        loses = wall is not None and other.name == "flower" and ratio > wall
        wanted = f": more than the {wall:g}x that we want" if loses else ""
        lines.append(f"{found.name}, {found.agents} agents: {ratio:.2f}x the time of {other.name}, {cpu}{wanted}")
    ours_ms, agent_ms = 1e3 * found.server_cpu_s / found.agents, 1e3 * found.agent_cpu_s
    if update_ms is not None and ours_ms > update_ms:
        lines.append(f"{found.name}, {found.agents} agents: {ours_ms:.2f} ms an update, where we want {update_ms:g}")
    if agent_ms > AGENT_MS:
        lines.append(f"{found.name}, {found.agents} agents: {agent_ms:.1f} ms an agent, where we want {AGENT_MS:g}")
    return lines


class _Progress:
    """One line on the terminal, with what goes on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._wide = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        """Say what goes on."""
        if self._wide:
            sys.stderr.write(f"\r\x1b[K{text}, {duration(time.monotonic() - self._began)} so far")
            sys.stderr.flush()

    def done(self) -> None:
        """Clear the line."""
        if self._wide:
            sys.stderr.write("\r\x1b[K")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overhead", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--agents", type=int, nargs="+", default=[10], metavar="N")
    parser.add_argument("--codecs", nargs="+", choices=list(PRESETS), default=["off", "strong"])
    parser.add_argument("--rounds", type=int, default=30, metavar="R", help="that are measured (30)")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="of everything, in turn (3)")
    parser.add_argument("--flower", type=Path, metavar="PYTHON", help="of an environment with flwr")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there")
    return parser


if __name__ == "__main__":
    main()
