"""Torch nets that benchmarks train beside the built-in one: factories for `kind = "benchmarks.nets:conv"` and `:gru`.

Both take flat rows, as every data set here has them, and see an image or a sequence in them (`input_shape`).
"""

from __future__ import annotations

from torch import Tensor, nn


def conv(side: int = 28, channels: int = 8, outputs: int = 10) -> nn.Module:
    """Return two strided convolutions and a dense layer, for grey images of `side` x `side`."""
    net = nn.Sequential(
        nn.Conv2d(1, channels, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * channels * (-(-side // 4)) ** 2, outputs),
    )
    net.input_shape = (1, side, side)  # type: ignore[assignment]
    return net


def gru(steps: int = 8, inputs: int = 8, hidden: int = 32, outputs: int = 10) -> nn.Module:
    """Return a recurrent net with gates that reads `steps` rows of `inputs` numbers and answers after the last."""
    return _Gru(steps, inputs, hidden, outputs)


class _Gru(nn.Module):
    def __init__(self, steps: int, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.input_shape = (steps, inputs)
        self.gru = nn.GRU(inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, X: Tensor) -> Tensor:
        states, _ = self.gru(X)
        answer: Tensor = self.head(states[:, -1])
        return answer
