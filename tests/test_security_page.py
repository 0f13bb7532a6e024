"""SECURITY.md claims things; each claim names the tests that hold it, and those exist."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "SECURITY.md"
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
SECTIONS = (
    "Report a vulnerability",
    "Who attacks, and with what",
    "A stranger on the network",
    "An enrolled device",
    "The broker",
    "The aggregator",
    "An operator",
    "A stolen card",
    "Formats",
    "What is not protected",
)


def sections(text: str) -> dict[str, list[str]]:
    """Return the lines of every section by its heading."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("## "):
            found[line[3:].strip()] = []
        elif found:
            list(found.values())[-1].append(line)
    return found


def rows(lines: list[str]) -> list[tuple[str, str]]:
    """Return claim and proof of every row of the tables whose last column is headed "test"."""
    found, claims = [], False
    for line in lines:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if not cells:
            claims = False
        elif cells[-1] == "test":
            claims = True
        elif claims and set(cells[-1]) - set("-: "):
            found.append((cells[0], cells[-1]))
        elif claims and not cells[-1]:
            found.append((cells[0], ""))
    return found


@cache
def names_in(path: str) -> frozenset[str]:
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    nodes = ast.walk(ast.parse(file.read_text("utf-8")))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"))


def faults(text: str) -> list[str]:
    """Return what is wrong with the page, a line each."""
    page = sections(text)
    said = [f"the section {name!r} is missing" for name in SECTIONS if name not in page]
    for name, lines in page.items():
        for claim, proof in rows(lines):
            if not NAMED.search(proof):
                said.append(f"{name}: {claim!r} names no test")
    said += [f"there is no test {path}::{test}" for path, test in NAMED.findall(text) if test not in names_in(path)]
    return said


def test_every_claim_of_the_page_names_tests_that_exist() -> None:
    text = PAGE.read_text("utf-8")
    assert faults(text) == []
    assert sum(len(rows(lines)) for lines in sections(text).values()) >= 30


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("::test_", "::test_no_such_", "there is no test"),
        ("## The broker", "## Something else", "the section 'The broker' is missing"),
    ],
)
def test_a_page_that_claims_too_much_is_found(old: str, new: str, fault: str) -> None:
    text = PAGE.read_text("utf-8")
    assert old in text
    assert any(fault in line for line in faults(text.replace(old, new, 1)))


@pytest.mark.parametrize("proof", ["", "by design", "`tests/broker/test_wire.py`"])
def test_a_claim_without_a_test_is_found(proof: str) -> None:
    text = PAGE.read_text("utf-8") + f"\n| claim | test |\n| --- | --- |\n| Nobody ever gets in. | {proof} |\n"
    assert any("'Nobody ever gets in.' names no test" in line for line in faults(text))
