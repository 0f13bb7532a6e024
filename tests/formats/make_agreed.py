"""Make the files of a job whose fleet has agreed: python -m tests.formats.make_agreed, into tests/formats/agreed.

    state.bin    the state of version 1, in the server's store (aggregator/record.py)
    slot/        a model slot whose card has a contract (edge_agent/card.py), without ONNX

They are committed, and never made anew: they are what some fedge wrote.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aggregator.learner import Learner
from aggregator.record import start
from edge_agent import slot
from edge_agent.card import Release
from edge_agent.slot import Slot
from models import sections, statistic
from models.contract import ContractSpec
from models.job import JobSpec, ModelSpec
from models.nets import table as nets

HERE = Path(__file__).resolve().parent / "agreed"
CONTRACT = ContractSpec(
    features=("Temp °C", "vib"), classes=("ok", "fault"), normalise="standard", class_weight="balanced"
)
JOB = JobSpec("agreed", ModelSpec(inputs=2, hidden=(3,), outputs=2), contract=CONTRACT)
NET = nets.build(JOB.model)
RELEASE = Release("agreed-00000001", 1, 1, "5" * 64)
ROWS = np.array([[1e5 + 10 * k, (-1) ** k * 1e-3] for k in range(24)], np.float32)
LABELS = np.arange(24) % 2


def learner() -> Learner:
    """Return a job whose fleet, of one device, has just agreed."""
    made = Learner(NET, JOB, start(NET, JOB).to_bytes())
    said = statistic.to_bytes(statistic.of_rows(JOB, ROWS, LABELS))
    made.admit(sections.join({sections.STATISTICS: said}), 24, None, None, "d0")
    made.take(made.next())
    return made


def main() -> None:
    HERE.mkdir()
    now = learner().now
    (HERE / "state.bin").write_bytes(now.to_bytes())
    slot.export = lambda *_, **__: "no ONNX in here"  # type: ignore[assignment]
    filled = Slot(HERE / "slot")
    filled.install(RELEASE, JOB.model, now.model.params(NET.spec), CONTRACT, now.held.agreed)


if __name__ == "__main__":
    main()
