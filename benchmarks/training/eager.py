"""The nets of `rows` in eager Torch, as its own tutorial writes them: channels first, torch.optim.SGD, one thread."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.training.rows import Row

torch.set_num_threads(1)


def stepper(row: Row, batch: int, rate: float) -> Callable[[], float]:
    """Return what trains a step on one of ten batches in turn, and gives its loss."""
    module, shape = MODULES[row.name]()
    X = torch.rand(10 * batch, *shape, generator=torch.manual_seed(0))
    y = torch.randint(0, row.model.outputs, (10 * batch,))
    optimizer = torch.optim.SGD(module.parameters(), lr=rate)
    at = 0

    def step() -> float:
        nonlocal at
        rows = slice(at * batch, (at + 1) * batch)
        at = (at + 1) % 10
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(X[rows]), y[rows])
        torch.autograd.backward(loss)
        optimizer.step()
        return loss.item()

    return step


def n_parameters(row: Row) -> int:
    """Return how many numbers the module learns."""
    return sum(p.numel() for p in MODULES[row.name]()[0].parameters())


def _mlp() -> tuple[nn.Module, tuple[int, ...]]:
    layers = (nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10))
    return nn.Sequential(*layers), (784,)


def _cnn1d() -> tuple[nn.Module, tuple[int, ...]]:
    net = nn.Sequential(
        *(nn.Conv1d(6, 16, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2)),
        *(nn.Conv1d(16, 32, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2)),
        *(nn.Flatten(), nn.Linear(16 * 32, 6)),
    )
    return net, (6, 64)


def _cnn2d(channels: tuple[int, int], kernel: int, *head: nn.Module) -> tuple[nn.Module, tuple[int, ...]]:
    first, second = channels
    net = nn.Sequential(
        *(nn.Conv2d(1, first, kernel, padding=kernel // 2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(first, second, kernel, padding=kernel // 2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), *head),
    )
    return net, (1, 28, 28)


class _Gru(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(6, 32, batch_first=True), nn.Linear(32, 6)

    def forward(self, X: Tensor) -> Tensor:
        answer: Tensor = self.head(self.gru(X)[0][:, -1])
        return answer


MODULES: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "mlp 2NN": _mlp,
    "cnn1d windows": _cnn1d,
    "cnn2d small 3x3": lambda: _cnn2d((8, 16), 3, nn.Linear(49 * 16, 10)),
    "cnn2d small 5x5": lambda: _cnn2d((8, 16), 5, nn.Linear(49 * 16, 10)),
    "cnn2d McMahan": lambda: _cnn2d((32, 64), 5, nn.Linear(49 * 64, 512), nn.ReLU(), nn.Linear(512, 10)),
    "gru windows": lambda: (_Gru(), (64, 6)),
}
"""By the name of a row: the module, and the shape of an example as it takes it."""
