"""The house rules that a reader should not have to check: who may import whom, and what only one file may do."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np
import pytest

from models.nets.losses import LOSSES
from models.nets.table import NETS

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("runtime", "identity", "broker", "models", "aggregator", "edge_agent", "fleet")

ALLOWED = {
    "runtime": {"runtime", "msgspec"},
    "identity": {"identity", "runtime", "msgspec", "nacl", "cryptography"},
    "broker": {"broker", "identity", "runtime", "paho", "msgspec", "amqtt"},
    "models": {"models", "runtime", "numpy", "msgspec", "torch", "onnx", "onnxruntime"},
    "aggregator": {"aggregator", "broker", "identity", "models", "runtime", "numpy", "msgspec"},
    "edge_agent": {"edge_agent", "broker", "identity", "models", "runtime", "numpy", "msgspec"},
}
"""Beside the standard library; `fleet` stands on everything."""

HOMES = {
    "paho": "broker/client.py",
    "amqtt": "broker/embedded.py",
    "torch": "models/nets/torch_net.py",
    "onnx": "models/serving/export.py",
    "onnxruntime": "models/serving/inference.py",
    "sqlite3": "aggregator/database.py",
    "nacl": "identity/keys.py",
    "cryptography": "identity/certificates.py",
    "tensorboardX": "fleet/console/tensorboard.py",
    "prometheus_client": "fleet/web/metrics.py",
    "uvicorn": "fleet/web/server.py",
    "jinja2": "fleet/web/site.py",
}
"""A heavy library and the one file that imports it."""
SECOND_HOMES = {
    "sqlite3": {"models/data/sqlite_file.py"},
    "torch": {"models/nets/torch_buffers.py", "models/nets/torch_export.py", "models/nets/torch_trial.py"},
    "onnxruntime": {"models/serving/quantise.py"},
    "nacl": {"identity/passwords.py"},
}
"""Where one is needed besides: a source that is an SQLite file, and nothing else; what is done with Torch's modules; a
model that is put in int8, in a process of its own; passwords, which have nothing to do with keys."""

PURE = (
    "runtime/states.py",
    "aggregator/absences.py",
    "aggregator/attendance.py",
    "aggregator/cohort.py",
    "aggregator/coordinator.py",
    "aggregator/ledger.py",
    "aggregator/convergence.py",
    "aggregator/effects.py",
    "aggregator/fates.py",
    "aggregator/lead.py",
    "aggregator/improvements.py",
    "aggregator/leadership.py",
    "aggregator/members.py",
    "aggregator/pace.py",
    "aggregator/progress.py",
    "aggregator/ranking.py",
    "aggregator/refusals.py",
    "aggregator/remarks.py",
    "aggregator/round.py",
    "aggregator/rounds.py",
    "aggregator/scale.py",
    "aggregator/shares.py",
    "aggregator/shortlist.py",
    "aggregator/streaks.py",
    "aggregator/waits.py",
    "edge_agent/announced.py",
    "edge_agent/deployment.py",
    "edge_agent/effects.py",
    "edge_agent/participant.py",
    "edge_agent/resend.py",
    "edge_agent/versions.py",
)
IMPURE = {
    *("numpy", "time", "datetime", "threading", "asyncio", "concurrent", "multiprocessing", "subprocess", "signal"),
    *("socket", "select", "os", "io", "pathlib", "shutil", "tempfile", "sqlite3", "logging", "secrets", "uuid"),
}


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@functools.cache
def imported(path: Path, *, types: bool = True) -> frozenset[str]:
    """Return the dotted name of everything that a file imports, wherever in the file. types: also what only they
    need."""
    whole = tree(path)
    of_types = [
        node for node in ast.walk(whole) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    passed = set() if types else {id(inner) for node in of_types for inner in ast.walk(node)}
    names: set[str] = set()
    for node in (node for node in ast.walk(whole) if id(node) not in passed):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(names)


def graph() -> dict[str, set[str]]:
    """Return every module of ours and what it imports of ours, wherever in the file, but for what only types need."""
    paths = sources(*PACKAGES, "benchmarks")
    modules = {name(path)[:-3].replace("/", ".").removesuffix(".__init__"): path for path in paths}
    found = {}
    for module, path in modules.items():
        names = imported(path, types=False) & modules.keys()
        found[module] = {other for other in names if not any(below.startswith(f"{other}.") for below in names)} - {
            module
        }
    return found


def roots(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def called(path: Path) -> Iterator[str]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("package", ALLOWED)
def test_a_package_imports_only_what_it_stands_on(package: str) -> None:
    for path in sources(package):
        foreign = roots(path) - ALLOWED[package] - set(sys.stdlib_module_names)
        assert not foreign, f"{name(path)} imports {foreign}"


@pytest.mark.parametrize("library", HOMES)
def test_a_heavy_library_has_one_home(library: str) -> None:
    homes = {
        name(path)
        for path in sources("identity", "broker", "models", "aggregator", "edge_agent", "fleet")
        if library in roots(path)
    }
    assert homes == {HOMES[library]} | SECOND_HOMES.get(library, set())


def test_what_the_page_is_made_with_stays_with_the_page() -> None:
    found = {name(path) for path in sources(*PACKAGES) if roots(path) & {"starlette", "anyio", "markupsafe"}}
    assert found
    assert all(path.startswith("fleet/web/") for path in found)


FOR_PEOPLE = tuple(f"fleet/sight/{name}.py" for name in ("course", "doing", "facts", "known", "sight", "view"))
"""The core that makes views of a fleet; its words are those that people see."""


@pytest.mark.parametrize("path", [*PURE, *FOR_PEOPLE])
def test_a_core_has_no_clock_no_thread_no_socket_no_file_and_no_numbers(path: str) -> None:
    assert not roots(ROOT / path) & IMPURE
    assert not {"open", "input", "print"} & set(called(ROOT / path))


@pytest.mark.parametrize("path", PURE)
def test_a_core_knows_only_words_and_rules(path: str) -> None:
    ours = {module for module in imported(ROOT / path) if module.split(".")[0] in PACKAGES}
    mine = path.split("/", maxsplit=1)[0]
    others = {".".join(module.split(".")[:2]) for module in ours if not module.startswith(mine)}
    words = {"broker", "broker.ceilings", "broker.messages"}
    assert others <= words | {"models.draw", "models.job", "models", "models.measures", "runtime.states"}
    assert {module for module in ours if "measures" in module} <= {"models.measures", "models.measures.table"}


def test_what_a_core_imports_of_its_own_package_is_pure_too() -> None:
    for path in PURE:
        package = path.split("/", maxsplit=1)[0]
        siblings = {m.split(".")[1] for m in imported(ROOT / path) if m.startswith(f"{package}.")}
        assert {f"{package}/{sibling}.py" for sibling in siblings} <= set(PURE)


def test_imports_go_in_no_circle() -> None:
    try:
        list(TopologicalSorter(graph()).static_order())
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_the_agent_starts_without_its_heavy_libraries() -> None:
    code = """
import sys, edge_agent.service, fleet.roles
heavy = {"torch", "onnx", "onnxruntime", "sqlite3", "cryptography", "nacl", "starlette", "uvicorn", "jinja2"}
print(sorted({name.split(".")[0] for name in sys.modules} & heavy))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


NOT_OF_AN_AGENT = (
    *("aggregator", "fleet.console", "fleet.sight", "fleet.lines.alone", "fleet.lines.job", "fleet.lines.web"),
    *("edge_agent.live.listeners", "edge_agent.renewal", "identity.registry", "broker.occupant"),
    *("broker.device_seal", "broker.operator_seal", "broker.server_seal"),
    *("urllib.request", "http", "email", "importlib.metadata", "asyncio", "multiprocessing", "unittest", "getpass"),
)
"""What an agent without live sources, keys and certificates has no use for: these are megabytes of a small device."""


def test_an_agent_at_work_imports_no_more_than_it_uses(tmp_path: Path) -> None:
    """It runs, as `fedge agent run` has it, until it waits for its broker, which is not there."""
    np.savez(tmp_path / "rows.npz", X=np.zeros((3, 2), np.float32), y=np.arange(3))
    (tmp_path / "agent.toml").write_text(
        f'fleet = "f"\ndevice = "d"\nstate_dir = "{tmp_path}/state"\n[broker]\nport = 1\n'
        f'[data.rows]\npath = "{tmp_path}/rows.npz"\n'
    )
    code = f"""
import signal, sys
import fleet.cli
from edge_agent import notify
notify.ready = lambda doing: signal.raise_signal(signal.SIGTERM)
assert fleet.cli.main(["agent", "run", "--config", {str(tmp_path / "agent.toml")!r}]) == 0
assert "edge_agent.service" in sys.modules and "broker.client" in sys.modules
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    found = {name for name in done.stdout.split() for no in NOT_OF_AN_AGENT if name == no or name.startswith(f"{no}.")}
    assert not found


def test_only_the_command_line_prints() -> None:
    printing = {name(p) for p in sources(*PACKAGES) if "print" in set(called(p))}
    assert printing
    assert all(path.startswith("fleet/lines/") for path in printing)


def test_only_the_table_writes_topics() -> None:
    written = set()
    for path in sources(*PACKAGES):
        strings = (n.value for n in ast.walk(tree(path)) if isinstance(n, ast.Constant) and isinstance(n.value, str))
        if any(text.startswith(("fedge/1", "/fedge")) for text in strings):
            written.add(name(path))
    assert not written


def test_only_the_wire_stands_on_the_table() -> None:
    knowing = {name(path) for path in sources(*PACKAGES, "benchmarks") if "broker.topics" in imported(path)}
    assert all(path.startswith("broker/") for path in knowing), "who speaks to a fleet is handed its Wire"


def test_a_service_is_handed_its_wire_and_makes_none() -> None:
    makers = {name(path) for path in sources(*PACKAGES) if "Wire" in set(called(path))}
    assert makers
    assert all(path.startswith("fleet/") for path in makers)


def test_only_its_table_switches_on_a_kind_of_net_or_of_loss() -> None:
    rows, tables = {*NETS, *LOSSES}, {ROOT / "models/nets/table.py", ROOT / "models/nets/losses/table.py"}
    others = {ROOT / "models/training/schedule.py"}  # whose rows are of something else that is called "linear" too
    for path in set(sources(*PACKAGES, "benchmarks")) - tables - others:
        found: list[ast.AST | None] = []
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Compare | ast.MatchValue):
                found += ast.walk(node)
            elif isinstance(node, ast.Dict):
                found += node.keys
        words = {node.value for node in found if isinstance(node, ast.Constant)} & rows
        assert not words, f"{name(path)} asks for {words}: let it ask the row of models/nets/table.py or of losses"


def test_a_wheel_has_every_package() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["packages"]
    there = {name(path.parent).replace("/", ".") for path in sources(*PACKAGES)}
    assert set(listed) == there


def test_there_is_nothing_called_utils() -> None:
    forbidden = {"utils", "common", "helpers", "base", "manager", "misc"}
    assert not {path.stem for path in sources(*PACKAGES, "tests", "benchmarks")} & forbidden


def test_nobody_unpickles() -> None:
    for path in sources(*PACKAGES):
        assert not roots(path) & {"pickle", "dill", "cloudpickle", "marshal", "shelve"}, name(path)
        keywords = (k for node in ast.walk(tree(path)) if isinstance(node, ast.Call) for k in node.keywords)
        allowing = [k.value for k in keywords if k.arg == "allow_pickle"]
        assert all(isinstance(value, ast.Constant) and value.value is False for value in allowing), name(path)
