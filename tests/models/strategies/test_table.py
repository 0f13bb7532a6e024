from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from models.job import AggregateSpec
from models.strategies.strategy import MOST_ROWS
from models.strategies.table import STRATEGIES

ROOT = Path(__file__).resolve().parents[3]


def test_every_strategy_that_a_job_may_name_is_there_and_no_other() -> None:
    assert set(STRATEGIES) == set(get_args(get_type_hints(AggregateSpec)["strategy"]))


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_keys_of_a_strategy_are_keys_of_a_job(name: str) -> None:
    assert STRATEGIES[name].keys <= set(AggregateSpec.__struct_fields__)
    assert STRATEGIES[name].rows(AggregateSpec()) <= MOST_ROWS


def test_every_key_of_a_server_optimizer_is_of_use_to_some_strategy() -> None:
    used = frozenset[str]().union(*(row.keys for row in STRATEGIES.values()))
    assert {key for key in AggregateSpec.__struct_fields__ if key.startswith("server_")} == used


def test_nobody_else_asks_for_a_strategy_by_its_name() -> None:
    """But for the keys of a job, and the table."""
    naming = set()
    for package in ("models", "aggregator", "edge_agent", "fleet"):
        for path in sorted((ROOT / package).rglob("*.py")):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if any(isinstance(node, ast.Constant) and node.value in STRATEGIES for node in ast.walk(tree)):
                naming.add(str(path.relative_to(ROOT)))
    assert naming == {"models/specs/rounds.py", "models/strategies/table.py"}
