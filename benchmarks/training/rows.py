"""The nets that are measured, each at two batch sizes, and the goals."""

from __future__ import annotations

from typing import Literal, NamedTuple

from models.job import ModelSpec

BATCHES = (10, 32)
HAR, DIGITS = 64 * 6, 28 * 28
"""Numbers of a window and of an image."""


class Row(NamedTuple):
    """A net, what its step is held against, and how many times as long as that it may take."""

    name: str
    shape: str
    model: ModelSpec
    against: Literal["torch", "products", "pieces"]
    goal: float


def _small(kernel: int) -> Row:
    model = ModelSpec("cnn2d", DIGITS, (), 10, options={"channels": [8, 16], "kernel": kernel})
    return Row(f"cnn2d small {kernel}x{kernel}", f"28x28, channels 8 16, kernel {kernel}, pool 2", model, "torch", 1.25)


MLP = ModelSpec("mlp", DIGITS, (200, 200), 10)
CNN1D = ModelSpec("cnn1d", HAR, (), 6, options={"columns": 6, "channels": [16, 32], "kernel": 5})
MCMAHAN = ModelSpec("cnn2d", DIGITS, (512,), 10, options={"channels": [32, 64], "kernel": 5})
"""The CNN of McMahan et al. 2017, section 3: 1,663,370 parameters."""
GRU = ModelSpec("gru", HAR, (), 6, options={"columns": 6, "units": 32})

ROWS: list[Row] = [
    Row("mlp 2NN", "784-200-200-10", MLP, "products", 1.25),
    Row("mlp 2NN", "784-200-200-10", MLP, "pieces", 1.25),
    Row("mlp 2NN", "784-200-200-10", MLP, "torch", 1.25),
    Row("cnn1d windows", "64x6, channels 16 32, kernel 5, pool 2", CNN1D, "torch", 1.25),
    _small(3),
    _small(5),
    Row("cnn2d McMahan", "28x28, channels 32 64, kernel 5, pool 2, dense 512", MCMAHAN, "torch", 1.25),
    Row("gru windows", "64x6, units 32", GRU, "torch", 2.0),
]
