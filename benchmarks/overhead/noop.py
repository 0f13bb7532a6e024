"""The two roles as `fedge` starts them, with a training that does nothing: every step is a recorded one, gone again.

    python -m benchmarks.overhead.noop agent run --config agent.toml

All that a round costs beside training stays: installing, coding, probing, checkpoints, syncs, the broker. What stands
in for training is the first real step of the device, recorded, and gone again at every round, each time a little less
far: as a training that converges, so that the coding is steered as it is for one.

Where FEDGE_OVERHEAD_LAGS names a file, the aggregator writes down for every round how many seconds lay between the last
update that it took up and the next round's leaving it, a line each.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

SHORTER = 0.9
"""Of the way of the round before."""
LAGS = "FEDGE_OVERHEAD_LAGS"


def main() -> int:
    """Run `fedge` with these arguments, training nothing."""
    import fleet.cli  # first: it sets the threads that NumPy reads once

    _train_nothing()
    if LAGS in os.environ:
        from runtime import failpoints

        failpoints._points = _Lags(Path(os.environ[LAGS]))  # type: ignore[assignment]
    return fleet.cli.main()


def _train_nothing() -> None:
    import numpy as np

    from models.nets import table as nets
    from models.nets.losses import Labels
    from models.nets.mlp import Mlp
    from models.params import Float32, Params

    class Recorded(Mlp):
        """The net, whose gradient is always the same but for its length."""

        recorded: Params | None = None

        def loss_and_gradients(
            self,
            params: Params,
            X: Float32,
            y: Labels,
            *,
            weights: Float32 | None = None,
            scale: float = 1.0,
            out: Params | None = None,
            draw: int = 0,
        ) -> tuple[float, Params]:
            if self.recorded is None:
                _, real = super().loss_and_gradients(params, X, y, weights=weights, scale=scale, out=out, draw=draw)
                self.recorded = {name: values.copy() for name, values in real.items()}
                return 1.0, real
            found = out if out is not None else {name: np.empty_like(p) for name, p in params.items()}
            for name, values in self.recorded.items():
                values *= np.float32(SHORTER)
                found[name][...] = values
            return 1.0, found

    nets.NETS["mlp"] = nets.NETS["mlp"]._replace(numpy=Recorded)


class _Lags:
    """Stands in for the trail of failpoints: looks at the clock where others die."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        self._since = 0.0

    def reach(self, point: str, what: object) -> None:
        """Note the time of an update that is taken up, and of a round that leaves."""
        if point == "aggregator.Collect.before":
            self._since = time.perf_counter()
        elif point == "aggregator.published" and "/round/" in str(what) and self._since:
            self._file.write(f"{time.perf_counter() - self._since:.6f}\n")
            self._file.flush()
            self._since = 0.0


if __name__ == "__main__":
    sys.exit(main())
