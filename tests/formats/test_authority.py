"""An authority, its registry, its pinned keys and a bundle of every format that there was are read and go on."""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from identity import certificates
from identity.adoption import adopt
from identity.authority import Authority
from identity.bundle import unpack
from identity.directory import AuthorityError
from identity.registry import RegistryError, read_registry
from identity.trust import TrustError, is_of_root, read_trust
from tests.formats.authority_files import NOW

HERE = Path(__file__).parent / "authority"
DAY = dt.timedelta(days=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(HERE, tmp_path / "there")
    for path in (tmp_path / "there").rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)  # a checkout knows no such modes
    return tmp_path / "there"


def test_an_authority_goes_on(folder: Path) -> None:
    with Authority(folder / "ca") as authority:
        record = authority.record
        assert {name: (one.epoch, one.revoked) for name, one in record.devices.items()} == {
            "pi-1": (2, False),
            "pi-2": (1, False),
            "pi-3": (1, True),
        }
        assert len(record.revoked) == 2
        assert [gone.holder for gone in record.older.values()] == ["pi-2"]
        # That fedge knew no tokens.
        new = ("broker/tokens", "broker/acl.tokens")
        assert authority.publish(NOW + DAY).changed == new, "nothing else is to be made good"
        assert authority.publish(NOW + DAY).changed == ()
        authority.revoke("pi-2", NOW + DAY)
        authority.publish(NOW + DAY)
        listed, _ = certificates.look_at_revocations((folder / "ca" / "broker" / "devices.crl").read_bytes())
        assert len(listed) == 4
        assert authority.root().certificate == (folder / "ca" / "root.crt").read_bytes()


def test_what_it_has_written_is_read(folder: Path) -> None:
    registry = read_registry(folder / "ca" / "aggregator" / "registry.json", "barn")
    assert (registry.devices["pi-1"].rows, registry.devices["pi-1"].labels) == (100, {"site": "north"})
    assert registry.list_until == NOW + 30 * DAY
    trust = read_trust(folder / "ca" / "trust.json", "barn")
    assert is_of_root(trust)
    assert list(trust.operators) == ["anna"]


def test_a_bundle_makes_a_device(folder: Path) -> None:
    bundle = unpack(folder / "pi-1.tar", NOW + DAY)
    assert (bundle.manifest.device, bundle.manifest.epoch) == ("pi-1", 2)
    assert adopt(bundle, folder / "etc")
    assert (folder / "etc" / "identity" / "device.key").read_bytes() == bundle.files["device.key"]


@pytest.mark.parametrize(
    ("name", "read", "error"),
    [
        ("authority.json", lambda path: Authority(path.parent), AuthorityError),
        ("trust.json", read_trust, TrustError),
        ("aggregator/registry.json", read_registry, RegistryError),
    ],
)
def test_a_number_that_is_raised_is_refused_by_name_and_nothing_is_changed(
    folder: Path, name: str, read: Callable[[Path], object], error: type[Exception]
) -> None:
    file = folder / "ca" / name
    file.write_bytes(msgspec.json.encode(msgspec.json.decode(file.read_bytes()) | {"format": 3}))
    before = file.read_bytes()
    with pytest.raises(error, match=f"{file}.*format 3, of a newer fedge, where this one reads 1"):
        read(file)
    assert file.read_bytes() == before
