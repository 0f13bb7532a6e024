"""The keys of a fleet on one machine, as files: what `fedge ca` and `fedge enroll` make for a real one.

FOLDER/trust.json  registry.json  aggregator.key  operator.key  DEVICE.key …
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from identity.keys import SigningKey, text_of, write_key
from identity.registry import Enrolled, Registry
from identity.settings import IdentitySettings
from identity.trust import Trust, write_trust

OPERATOR = "operator"


class LocalKeys:
    """Where they lie, as the tables [identity] of each process say it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of_device(self, device: str) -> dict[str, str]:
        """Return the table of a device."""
        return {"trust": self._at("trust.json"), "message_key": self._at(f"{device}.key")}

    @property
    def of_aggregator(self) -> dict[str, str]:
        """The table of the aggregator."""
        return self.of_device("aggregator") | {"registry": self._at("registry.json")}

    @property
    def of_operator(self) -> IdentitySettings:
        """The table of the operator."""
        return IdentitySettings(self._at("trust.json"), self._at(f"{OPERATOR}.key"))

    def _at(self, name: str) -> str:
        return str(self.folder / name)


def make(folder: Path, fleet: str, devices: Sequence[str]) -> LocalKeys:
    """Make the keys of a fleet in a new folder. Raises OSError."""
    folder.mkdir(parents=True)
    keys = {name: SigningKey.generate() for name in ("aggregator", OPERATOR, *devices)}
    for name, key in keys.items():
        write_key(folder / f"{name}.key", key)
    texts = {name: text_of(key.public) for name, key in keys.items()}
    root = text_of(SigningKey.generate().public)
    write_trust(folder / "trust.json", Trust(fleet, root, (texts["aggregator"],), {OPERATOR: texts[OPERATOR]}))
    registry = Registry(fleet, {device: Enrolled(texts[device]) for device in devices})
    (folder / "registry.json").write_bytes(msgspec.json.encode(registry))
    return LocalKeys(folder)
