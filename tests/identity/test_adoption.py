from __future__ import annotations

import datetime as dt
import os
import stat
from pathlib import Path

import msgspec
import pytest

from identity.adoption import adopt
from identity.authority import Authority
from identity.bundle import Bundle, BundleError, unpack
from runtime.disk import exchange
from tests.identity.conftest import AGENT, NOW, bundle_of


def enrolled(authority: Authority, device: str = "pi-1") -> Bundle:
    return unpack(bundle_of(authority, device, authority.folder.parent / f"{device}.tar"), NOW)


def on_disk(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_machine_becomes_a_device_and_nobody_else_reads_its_keys(authority: Authority, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    assert adopt(enrolled(authority), etc)
    assert {path.name for path in (etc / "identity").iterdir()} == {
        *("ca.crt", "device.crt", "device.key", "message.key", "trust.json", "mandate.json", "manifest.json")
    }
    assert (etc / "agent.toml").read_bytes() == AGENT.replace(b"/etc/fedge", str(etc).encode())
    modes = {stat.S_IMODE(path.stat().st_mode) for path in etc.rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert stat.S_IMODE((etc / "identity").stat().st_mode) == 0o700


def test_a_group_may_read_and_not_write_them(authority: Authority, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    adopt(enrolled(authority), etc, os.getgid())
    assert {stat.S_IMODE(path.stat().st_mode) for path in etc.rglob("*") if path.is_file()} == {0o640}
    assert stat.S_IMODE((etc / "identity").stat().st_mode) == 0o750
    assert {path.stat().st_gid for path in etc.rglob("*")} == {os.getgid()}


def test_a_card_that_is_enrolled_again_has_its_new_keys_and_its_own_configuration(
    authority: Authority, tmp_path: Path
) -> None:
    etc = tmp_path / "etc"
    first = enrolled(authority)
    adopt(first, etc)
    (etc / "agent.toml").write_text("mine")
    second = enrolled(authority)
    assert not adopt(second, etc)
    assert (etc / "agent.toml").read_text() == "mine"
    assert (etc / "identity" / "device.key").read_bytes() == second.files["device.key"] != first.files["device.key"]
    assert not adopt(second, etc), "once more is the same"
    before = on_disk(etc)
    with pytest.raises(BundleError, match=r"epoch 1 of pi-1, and here is epoch 2"):
        adopt(first, etc)
    assert on_disk(etc) == before


def test_a_bundle_of_another_fleet_root_or_device_changes_nothing(authority: Authority, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    adopt(enrolled(authority), etc)
    before = on_disk(etc)
    for name, fleet, why in (("a", "stable", "that of fleet barn"), ("b", "barn", "that of another root")):
        with Authority.found(tmp_path / name / "ca", fleet, [], NOW) as other:
            other.publish(NOW)
            with pytest.raises(BundleError, match=f"{why}.* remove .*identity first"):
                adopt(enrolled(other), etc)
    with pytest.raises(BundleError, match="that of device pi-1, and the bundle is of pi-2"):
        adopt(enrolled(authority, "pi-2"), etc)
    assert on_disk(etc) == before


def test_older_pinned_keys_and_an_older_certificate_do_not_come_back(authority: Authority, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    bundle = enrolled(authority)
    adopt(bundle, etc)
    later = authority.renew("pi-1", _public(bundle), NOW + dt.timedelta(days=9))
    (etc / "identity" / "device.crt").write_bytes(later)
    with pytest.raises(BundleError, match="older than the one here"):
        adopt(bundle, etc)
    (etc / "identity" / "device.crt").write_bytes(bundle.files["device.crt"])
    newer = msgspec.structs.replace(bundle.trust, serial=bundle.trust.serial + 1)
    (etc / "identity" / "trust.json").write_bytes(msgspec.json.encode(newer))
    with pytest.raises(BundleError, match="older than those here"):
        adopt(bundle, etc)


def _public(bundle: Bundle) -> bytes:
    return bundle.files["device.key"]


def test_an_adoption_that_died_half_way_is_completed_by_another(authority: Authority, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    adopt(enrolled(authority), etc)
    (etc / "identity").rename(etc / ".identity.old")  # it died here
    (etc / ".identity.new").mkdir()
    with pytest.raises(BundleError, match="that of device pi-1"):
        adopt(enrolled(authority, "pi-2"), etc)
    second = enrolled(authority)
    adopt(second, etc)
    assert (etc / "identity" / "device.crt").read_bytes() == second.files["device.crt"]
    assert sorted(path.name for path in etc.iterdir()) == ["agent.toml", "identity"]


def test_a_renewed_identity_takes_the_place_of_the_old_one_at_once(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    etc, gone = tmp_path / "etc", []
    adopt(enrolled(authority), etc)
    rename = Path.rename

    def watched(path: Path, target: Path) -> Path:
        moved = rename(path, target)
        gone.append(not (etc / "identity").exists())
        return moved

    monkeypatch.setattr(Path, "rename", watched)
    second = enrolled(authority)
    adopt(second, etc)
    assert (etc / "identity" / "device.crt").read_bytes() == second.files["device.crt"]
    assert sorted(path.name for path in etc.iterdir()) == ["agent.toml", "identity"]
    assert not any(gone) or not _can_exchange(tmp_path)


def _can_exchange(folder: Path) -> bool:
    one, other = folder / "one", folder / "other"
    one.mkdir()
    other.mkdir()
    return exchange(one, other)


@pytest.mark.parametrize("can", [True, False])
def test_where_two_folders_cannot_change_places_they_are_moved(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can: bool
) -> None:
    if not can:
        monkeypatch.setattr("identity.adoption.exchange", lambda *_: False)
    etc = tmp_path / "etc"
    adopt(enrolled(authority), etc)
    second = enrolled(authority)
    adopt(second, etc)
    assert (etc / "identity" / "device.crt").read_bytes() == second.files["device.crt"]
    assert sorted(path.name for path in etc.iterdir()) == ["agent.toml", "identity"]


def test_what_is_here_and_damaged_is_not_written_over(authority: Authority, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    adopt(enrolled(authority), etc)
    (etc / "identity" / "trust.json").write_bytes(b"{")
    with pytest.raises(BundleError, match=r"damaged.* remove .*identity first"):
        adopt(enrolled(authority), etc)
