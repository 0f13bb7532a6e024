"""`fedge aggregator take-over` and `repair` as an operator runs them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from aggregator.store import TAKE_OVER, Store
from broker.ceilings import MOST_TERM
from fleet.cli import main


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "aggregator.toml"
    path.write_text(f'fleet = "f"\nstate_dir = "{tmp_path}/state"\n', encoding="utf-8")
    return path


def a_store(config: Path, term: int = 17, claim: str = "2", replaced: str = "x") -> Path:
    folder = config.parent / "state"
    store = Store(folder, synced=False)
    store.raise_term(term)
    store.set_note("claim", claim)
    store.set_note("replaced", replaced)
    store.close()
    return folder


def test_take_over_says_what_it_has_changed_and_that_it_is_for_the_next_start(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_store(config)
    assert main(["aggregator", "take-over", "--config", str(config)]) == 0
    said = capsys.readouterr().out
    assert f"{folder}: claim 3 (it was 2), term 18 (it was 17): the next `fedge aggregator run` leads" in said
    assert "another aggregator had taken its place: versions that only that one has made are not in this store" in said
    store = Store(folder, synced=False)
    assert (store.term, store.claim, store.note("replaced"), store.note(TAKE_OVER)) == (18, 3, "", "yes")
    store.close()


def test_take_over_tells_scripts(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = a_store(config, replaced="")
    assert main(["aggregator", "take-over", "--config", str(config), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "state_dir": str(folder),
        "term": 18,
        "claim": 3,
        "term_before": 17,
        "claim_before": 2,
        "was_replaced": False,
    }


def test_repair_names_each_number_and_a_second_one_has_nothing_to_do(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_store(config)
    db = sqlite3.connect(folder / "aggregator.sqlite")
    db.execute("UPDATE meta SET value = ? WHERE name = 'term'", (2**53 + 1,))
    db.commit()
    db.close()
    assert main(["aggregator", "repair", "--config", str(config), "--json"]) == 0
    mended = [{"what": "term", "was": 2**53 + 1, "now": 0, "job": ""}]
    assert json.loads(capsys.readouterr().out) == {"state_dir": str(folder), "mended": mended}
    assert main(["aggregator", "repair", "--config", str(config)]) == 0
    assert "every number is in range, and nothing was changed" in capsys.readouterr().out


def test_repair_says_what_was_and_what_is(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_store(config, claim=str(2**50))
    assert main(["aggregator", "repair", "--config", str(config)]) == 0
    assert f"the claim was {2**50}, and is 0" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["take-over", "repair"])
def test_neither_touches_the_state_of_an_aggregator_that_runs(
    config: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = a_store(config)
    running = Store(folder, synced=False)
    assert main(["aggregator", command, "--config", str(config)]) != 0
    assert "is in use by process" in capsys.readouterr().err
    assert (running.term, running.claim, running.note("replaced")) == (17, 2, "x")
    running.close()


@pytest.mark.parametrize("command", ["take-over", "repair"])
def test_where_no_aggregator_has_run_none_is_begun(
    config: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["aggregator", command, "--config", str(config)]) == 2
    assert "has no aggregator.sqlite: no aggregator has run there" in capsys.readouterr().err
    assert not (config.parent / "state").exists()


def test_where_the_term_has_none_above_take_over_names_the_other_command(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_store(config, term=MOST_TERM)
    assert main(["aggregator", "take-over", "--config", str(config)]) != 0
    assert "run `fedge aggregator repair` for every aggregator" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["take-over", "repair"])
def test_the_help_has_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["aggregator", command, "--help"])
    assert f"example: fedge aggregator {command} --config aggregator.toml" in capsys.readouterr().out
