"""The fleets by name: what they train on, how it is cut, which net, how many rounds, and what a coding may cost there.

MNIST is dealt out whole: 60,000 rows, 600 to each of a hundred devices, batches of ten; nothing is sub-sampled.

Targets lie where float32 still rises, at half to two thirds of the rounds, so that a coding that needs half as many
rounds again still gets there. `chosen` fleets are those that a codec's constants may be chosen on; all others are only
reported: a constant that was fitted to them would say nothing about a fleet that nobody has seen.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from models.job import CompressionSpec, JobSpec, ModelSpec, RoundsSpec, TrainSpec
from models.nets import table as nets

BATCH = 10
NOT_RUN = frozenset(
    {"about", "target", "bound", "most_lost", "since", "chosen", "seeds", "quick_rounds", "seconds"},
)
"""Fields of a fleet that say how its runs are read, not what they are."""


class Fleet(Struct, frozen=True):
    """Devices, their data and their job."""

    name: str
    about: str
    data: str
    """Of `benchmarks.fleets.data`."""
    cut: str
    devices: int
    drawn: int
    """Devices a round."""
    net: ModelSpec
    learning_rate: float
    rounds: int
    target: float
    """The last level that is compared: an accuracy, or a loss that falls to it."""
    epochs: int = 1
    bound: float = 1.06
    """Rounds beside float32 that a coding may need."""
    most_lost: float | None = None
    """Points of accuracy that the last rounds may lie below those of float32."""
    since: int | None = None
    """The round of float32 whose level is the first that is compared; None: 60 % of the rise."""
    chosen: bool = False
    seeds: int = 8
    quick_rounds: int | None = None
    """With --quick; None: not one of its fleets."""
    seconds: float = 10.0
    """What a run in float32 took on one core of 2026, to begin with the longest."""

    @property
    def falls(self) -> bool:
        """Whether the levels are of a loss."""
        return not self.net.classifies

    @property
    def torch(self) -> bool:
        """Whether Torch computes it."""
        return bool(nets.factories_of(self.net))

    def job(self, seed: int, compression: str | CompressionSpec) -> JobSpec:
        """Return the job of one run."""
        return JobSpec(
            name="fleet",
            model=self.net,
            seed=seed,
            compression=compression,  # type: ignore[arg-type]
            deploy="never",
            train=TrainSpec(epochs=self.epochs, batch_size=BATCH, learning_rate=self.learning_rate),
            rounds=RoundsSpec(target=self.drawn, max_rounds=self.rounds),
        )

    def run_fields(self) -> dict[str, Any]:
        """Return the fields that determine a run."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return {name: value for name, value in plain.items() if name not in NOT_RUN} | {"batch": BATCH}


def _mlp(*widths: int, loss: str = "cross_entropy") -> ModelSpec:
    return ModelSpec("mlp", widths[0], tuple(widths[1:-1]), widths[-1], loss=loss)  # type: ignore[arg-type]


MNIST = _mlp(784, 200, 200, 10)
ACTIVITY = _mlp(48, 64, 5)
CLASSES = _mlp(32, 64, 8)
IMAGES = ModelSpec("cnn2d", 784, (), 10, options={"channels": [8, 16], "kernel": 5})
WINDOWS = ModelSpec("cnn1d", 300, (), 5, options={"columns": 6, "channels": [16, 32], "kernel": 5})
SEQUENCES = ModelSpec("gru", 300, (), 5, options={"columns": 6, "units": 32})

_ALL = (
    Fleet(
        "mnist-iid",
        "MNIST, 600 rows each, rate .1",
        *("mnist", "iid", 100, 10, MNIST, 0.1, 40, 0.96),
        chosen=True,
        quick_rounds=25,
        seconds=15,
    ),
    Fleet(
        "mnist-lr2",
        "the same at a rate of .2",
        *("mnist", "iid", 100, 10, MNIST, 0.2, 40, 0.965),
        seconds=15,
    ),
    Fleet(
        "mnist-shards",
        "MNIST, two shards of labels each",
        *("mnist", "shards:2", 100, 10, MNIST, 0.1, 80, 0.92),
        chosen=True,
        quick_rounds=40,
        seconds=28,
    ),
    Fleet(
        "mnist-epochs",
        "MNIST, five epochs a round",
        *("mnist", "iid", 100, 10, MNIST, 0.1, 25, 0.96),
        epochs=5,
        bound=1.08,
        most_lost=0.3,
        seconds=25,
    ),
    Fleet(
        "mnist-zipf",
        "MNIST, amounts as 1/rank",
        *("mnist", "zipf", 30, 10, MNIST, 0.1, 30, 0.975),
        bound=1.08,
        most_lost=0.3,
        seconds=20,
    ),
    Fleet(
        "mnist-three",
        "MNIST, three devices with all of it",
        *("mnist", "iid", 3, 3, MNIST, 0.1, 15, 0.98),
        bound=1.08,
        most_lost=0.3,
        seconds=28,
    ),
    Fleet(
        "mnist-conv",
        "MNIST, a conv net in Torch, Dirichlet .5",
        *("mnist", "dirichlet:0.5", 100, 10, ModelSpec("benchmarks.nets:conv", 784, (), 10), 0.1, 40, 0.965),
        seconds=22,
    ),
    Fleet(
        "mnist-cnn2d",
        "MNIST, a small net of convolutions, Dirichlet .5",
        *("mnist", "dirichlet:0.5", 100, 10, IMAGES, 0.1, 30, 0.974),
        seconds=40,
    ),
    Fleet(
        "activity",
        "activity by person and phone or watch, rate .05",
        *("activity", "natural", 46, 46, ACTIVITY, 0.05, 60, 0.86),
        chosen=True,
        quick_rounds=40,
        seconds=6,
    ),
    Fleet(
        "activity-lr1",
        "the same at a rate of .1",
        *("activity", "natural", 46, 46, ACTIVITY, 0.1, 60, 0.87),
        seconds=6,
    ),
    Fleet(
        "windows-cnn1d",
        "raw windows of activity, convolutions along time",
        *("windows", "natural", 46, 46, WINDOWS, 0.05, 40, 0.825),
        seconds=25,
    ),
    Fleet(
        "windows-gru",
        "raw windows of activity, gated recurrent units",
        *("windows", "natural", 46, 46, SEQUENCES, 0.1, 30, 0.64),
        seconds=60,
    ),
    Fleet(
        "air",
        "air quality by station",
        *("air", "natural", 12, 12, _mlp(26, 64, 4), 0.05, 20, 0.663),
        bound=1.03,
        most_lost=0.3,
        since=3,
        chosen=True,
        quick_rounds=12,
        seconds=9,
    ),
    Fleet(
        "digits-dirichlet",
        "digits, Dirichlet .1, five epochs",
        *("digits", "dirichlet:0.1", 46, 5, _mlp(64, 64, 10), 0.1, 80, 0.88),
        epochs=5,
        quick_rounds=60,
        seconds=3,
    ),
    Fleet(
        "digits-gru",
        "digits read row by row, a GRU in Torch",
        *("digits", "iid", 12, 12, ModelSpec("benchmarks.nets:gru", 64, (), 10), 0.2, 60, 0.94),
        quick_rounds=40,
        seconds=13,
    ),
    Fleet(
        "cancer-dirichlet",
        "tumours, Dirichlet .5",
        *("breast_cancer", "dirichlet:0.5", 12, 12, _mlp(30, 16, 2), 0.05, 30, 0.955),
        quick_rounds=30,
        seconds=1,
    ),
    Fleet(
        "classes-dirichlet",
        "made-up classes, Dirichlet .1, all drawn",
        *("classes", "dirichlet:0.1", 100, 100, CLASSES, 0.1, 60, 0.64),
        seconds=14,
    ),
    Fleet(
        "classes-zipf",
        "made-up classes, amounts as 1/rank, all drawn",
        *("classes", "zipf", 46, 46, CLASSES, 0.1, 60, 0.77),
        quick_rounds=40,
        seconds=6,
    ),
    Fleet(
        "friedman",
        "regression of a made-up function",
        *("friedman", "iid", 46, 46, _mlp(10, 32, 1, loss="mse"), 0.05, 60, 0.27),
        quick_rounds=40,
        seconds=6,
    ),
)

FLEETS: dict[str, Fleet] = {fleet.name: fleet for fleet in _ALL}
