"""A Flower server or client that trains nothing: run by the Python of an environment that has `flwr`, and by no other.

    python flower_role.py server ADDRESS AGENTS ROUNDS SHAPES.json REPORT
    python flower_role.py client ADDRESS SHAPES.json SEED

The lean `start_server` and `start_client`, a NumPy client and FedAvg without evaluation: what Flower costs least. A
client adds one recorded update to what it is given. The server writes a line for every round that it has aggregated.
"""

from __future__ import annotations

import json
import logging
import os
import sys

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"

import flwr  # noqa: E402  # isort: skip  # of another environment
import numpy as np  # noqa: E402

logging.getLogger("flwr").setLevel(logging.ERROR)
SIZE = 1e-3


def _shapes(path: str) -> list[tuple[int, ...]]:
    with open(path) as file:  # noqa: PTH123 -- nothing of ours is imported here
        return [tuple(shape) for shape in json.load(file)]


def serve(address: str, n_agents: str, rounds: str, shapes: str, report: str) -> None:
    """Serve so many rounds."""

    class Noting(flwr.server.strategy.FedAvg):
        def aggregate_fit(self, server_round, results, failures):
            found = super().aggregate_fit(server_round, results, failures)
            with open(report, "a") as file:  # noqa: PTH123
                file.write(f"{server_round} {len(results)} {len(failures)}\n")
            return found

    first = [np.zeros(shape, np.float32) for shape in _shapes(shapes)]
    strategy = Noting(
        fraction_fit=1.0,
        fraction_evaluate=0.0,
        min_fit_clients=int(n_agents),
        min_available_clients=int(n_agents),
        initial_parameters=flwr.common.ndarrays_to_parameters(first),
    )
    config = flwr.server.ServerConfig(num_rounds=int(rounds))
    flwr.server.start_server(server_address=address, config=config, strategy=strategy)


def take_part(address: str, shapes: str, seed: str) -> None:
    """Be a client until the server is done."""
    rng = np.random.default_rng(int(seed))
    recorded = [np.float32(SIZE) * rng.standard_normal(shape, np.float32) for shape in _shapes(shapes)]

    class Recorded(flwr.client.NumPyClient):
        def fit(self, parameters, config):  # noqa: ARG002
            return [here + there for here, there in zip(parameters, recorded, strict=True)], 64, {}

    flwr.client.start_client(server_address=address, client=Recorded().to_client())


if __name__ == "__main__":
    {"server": serve, "client": take_part}[sys.argv[1]](*sys.argv[2:])
