"""A job: the one thing an ML engineer writes, as the frozen struct that travels to every device.

Everything but `name` and `model` has a default. Every number has a floor and a ceiling, wide of what anybody uses:
what lies beyond would not survive the journey as JSON (inf), or do nothing, or nothing but harm. Checks that need two
keys at once are in `__post_init__` and raise ValueError with the key's name, which the settings loader turns into one
line naming file, table and key.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from models.contract import NO_CONTRACT, ContractSpec
from models.measures import table as measures
from models.specs import checks
from models.specs.bounds import MOST_LABELS, Count, Name, Natural
from models.specs.compression import PRESETS, CompressionSpec
from models.specs.model import ModelSpec
from models.specs.rounds import AggregateSpec, RoundsSpec, StopSpec
from models.specs.train import AdapterSpec, TrainSpec

__all__ = [
    "MAX_LOSS",
    "MOST_AVERAGED",
    "MOST_LABELS",
    "PRESETS",
    "AdapterSpec",
    "AggregateSpec",
    "CompressionSpec",
    "Count",
    "JobSpec",
    "ModelSpec",
    "Name",
    "Natural",
    "RoundsSpec",
    "StopSpec",
    "TrainSpec",
]

MOST_JSON_BYTES = 262_144 - 4096
"""Of a job as it travels: what a control message may have (WIRE.md), with room for what stands around the job there and
for keys that a file writes out though they have their defaults."""
AVERAGED = 1
"""Versions of the mean that is deployed where a job does not say, and is compressed."""
MOST_AVERAGED = 16
"""Of these at most: their sum still has room in an int64."""
AVERAGED_SHARE = 8
"""They are at most one in so many of all that there are: while versions improve quickly, a mean of more lags behind."""
MAX_LOSS = 0.01
"""Of accuracy or R2: what a model in int8 may lose on a device, where a job does not say."""


class JobSpec(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A whole job file."""

    name: Name
    model: ModelSpec
    seed: Natural = 0
    data: Name | None = None
    """The data source a device must have to take part; the job's own name when not given."""
    compression: Literal["off", "light", "strong", "extreme"] | CompressionSpec = "strong"
    deploy: Annotated[
        str,
        Meta(
            pattern=r"\A(final|never|every [1-9][0-9]{0,5})\Z",
            description='it is "final", "never" or "every N", N up to 999999',
        ),
    ] = "final"
    """Which versions a device fetches and serves locally: "final", "every N" or "never"."""
    deploy_average: Annotated[int, Meta(ge=1, le=MOST_AVERAGED)] | None = None
    """What is deployed and exported is the mean of so many of the last versions, of fewer early on; 1: the version
    itself, and all there is where nothing is compressed."""
    quantise: Literal["none", "int8"] = "none"
    """What is served on a device is computed in: float32, or int8 where that loses little enough on its own rows."""
    quantise_max_loss: Annotated[float, Meta(ge=0, le=1)] | None = None
    """What a model in int8 may lose of its accuracy, or of its R2, on a device; MAX_LOSS when not given."""
    contract: ContractSpec = NO_CONTRACT
    """What a row is, and what is made of it before the net sees it."""
    train: TrainSpec = TrainSpec()
    rounds: RoundsSpec = RoundsSpec()
    aggregate: AggregateSpec = AggregateSpec()

    def __post_init__(self) -> None:
        stop = self.rounds.stop
        if stop.is_set or stop.metric != StopSpec().metric:
            try:
                measures.check(stop.metric, self.model, self.contract.class_names)
            except ValueError as error:
                raise ValueError(f"[rounds.stop] metric: {error}") from None
        if self.averaged > 1 and self.coding.codec == "float32":
            raise ValueError(
                f"deploy_average = {self.deploy_average}: where nothing is compressed a version travels whole, so that "
                "those before it cannot be had: leave it out, or choose another compression"
            )
        checks.check_quantise(self)
        checks.check_contract(self)
        checks.check_strategy(self)
        checks.check_tuning(self)
        n_bytes = len(msgspec.json.encode(self))
        if n_bytes > MOST_JSON_BYTES:
            raise ValueError(
                f"[model] options: the job is {n_bytes:,} bytes as JSON where {MOST_JSON_BYTES:,} can travel: "
                "name a file that the factory reads instead"
            )

    @property
    def data_name(self) -> str:
        """Name of the data source that this job trains on."""
        return self.data or self.name

    @property
    def coding(self) -> CompressionSpec:
        """The compression in explicit numbers."""
        return PRESETS[self.compression] if isinstance(self.compression, str) else self.compression

    @property
    def averaged(self) -> int:
        """How many versions are averaged into what is deployed, at most."""
        return self.deploy_average or (1 if self.coding.codec == "float32" else AVERAGED)

    def averaged_from(self, number: int) -> int:
        """Return the number of the first version that is averaged where the version of this number is deployed.

        The last one is the version itself, and so is the first where nothing is averaged. It never goes back.
        """
        return number + 1 - max(1, min(self.averaged, number // AVERAGED_SHARE))
