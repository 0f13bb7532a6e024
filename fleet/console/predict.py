"""`fedge agent predict`: answers from the model that a device serves now."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edge_agent.config import AgentConfig
from edge_agent.slot import SlotError, open_slot
from edge_agent.slots import slot_path
from models.data.csv_file import load_rows
from models.serving import session
from models.serving.session import Session
from runtime.settings import load


def predict(config_path: Path, rows: Path, job: str | None, *, as_json: bool) -> int:
    """Print one answer a row: the class and its probability, or the values. Raises SlotError or DatasetError."""
    config = load(config_path, AgentConfig)
    name = job or _only_job(Path(config.state_dir))
    child = Session() if session.probe() is None else None
    slot = open_slot(slot_path(Path(config.state_dir), name), session=child, allow=config.models.allow)
    try:
        card = slot.card
        if card is None:
            raise SlotError(f"job {name} has no model here yet")
        answers = slot.predict(load_rows(rows, card.model.inputs)).tolist()
    finally:
        slot.close()
    release = f"{card.release.generation}.{card.release.number}"
    if as_json:
        json.dump({"job": card.release.job, "version": release, "answers": answers}, sys.stdout)
        sys.stdout.write("\n")
    elif card.model.classifies:
        lines = (f"{max(range(len(a)), key=a.__getitem__)},{max(a):.6f}" for a in answers)
        sys.stdout.write("\n".join(("class,probability", *lines)) + "\n")
    else:
        sys.stdout.write("\n".join(",".join(f"{value:.6g}" for value in a) for a in answers) + "\n")
    return 0


def _only_job(state_dir: Path) -> str:
    """Return the one job that has a model here. Raises SlotError when there are none or several."""
    names = sorted(path.parent.name for path in (state_dir / "models").glob("*/current"))
    if len(names) == 1:
        return names[0]
    if not names:
        raise SlotError(f"no model is installed under {state_dir} yet: the agent installs one as the job's deploy says")
    raise SlotError(f"there are models of {', '.join(names)}: choose one with --job")
