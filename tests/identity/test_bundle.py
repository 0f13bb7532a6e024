from __future__ import annotations

import contextlib
import datetime as dt
import io
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from identity import certificates
from identity.authority import Authority
from identity.bundle import MEMBERS, MOST_BYTES, BundleError, Manifest, pack, unpack
from identity.keys import SigningKey, fingerprint, key_of
from tests.identity.conftest import NOW, bundle_of

DAY = dt.timedelta(days=1)


@pytest.fixture
def bundle(authority: Authority, tmp_path: Path) -> Path:
    return bundle_of(authority, "pi-1", tmp_path / "pi-1.tar")


def repacked(bundle: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """The bundle with other members, as tar would have it."""
    with tarfile.open(bundle) as archive:
        members = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    change(members)
    with tarfile.open(bundle, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return bundle


def signed_again(authority: Authority, bundle: Path, **other: bytes) -> Path:
    """The bundle with other files in it, signed by the authority itself."""
    whole = unpack(bundle, NOW)
    files = whole.files | {name.replace("_", "."): content for name, content in other.items()}
    files.pop("manifest.json")
    pack(bundle, whole.manifest, files, authority.signer())
    return bundle


def test_a_bundle_is_for_its_owner_alone_and_comes_back_as_it_was_packed(authority: Authority, bundle: Path) -> None:
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600
    whole = unpack(bundle, NOW)
    assert (whole.manifest.fleet, whole.manifest.device, whole.manifest.epoch) == ("barn", "pi-1", 1)
    assert whole.manifest.expires == authority.record.devices["pi-1"].expires
    assert whole.trust == msgspec.structs.replace(authority.trust, signature=whole.trust.signature)
    assert whole.fingerprint == fingerprint(key_of(authority.record.root))
    with tarfile.open(bundle) as archive:
        assert sorted(archive.getnames()) == sorted(MEMBERS)


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_that_was_changed_or_is_missing_is_noticed(bundle: Path, name: str) -> None:
    whole = bundle.read_bytes()
    repacked(bundle, lambda members: members.update({name: members[name][:-20] + b"!" + members[name][-19:]}))
    with pytest.raises(BundleError, match=r"pi-1.tar: was tampered with or is damaged"):
        unpack(bundle, NOW)
    bundle.write_bytes(whole)
    repacked(bundle, lambda members: members.pop(name))
    with pytest.raises(BundleError, match=f"{name} is not in it"):
        unpack(bundle, NOW)


def test_a_whole_manifest_of_somebody_else_is_noticed(authority: Authority, bundle: Path, tmp_path: Path) -> None:
    """Whoever signs with another key has no mandate for it; whoever has another root has another fingerprint."""
    whole = unpack(bundle, NOW)
    files = {name: content for name, content in whole.files.items() if name != "manifest.json"}
    pack(bundle, whole.manifest, files, SigningKey.generate())
    with pytest.raises(BundleError, match="signature over its manifest"):
        unpack(bundle, NOW)
    with Authority.found(tmp_path / "other", "barn", [], NOW) as other:
        pack(bundle, whole.manifest, files | {"mandate.json": other.mandate}, other.signer())
    with pytest.raises(BundleError, match="mandate is not one of this fleet's root"):
        unpack(bundle, NOW)
    trust = msgspec.json.decode(files["trust.json"]) | {"operators": {"mallory": "A" * 43 + "="}}
    pack(bundle, whole.manifest, files | {"trust.json": msgspec.json.encode(trust)}, authority.signer())
    with pytest.raises(BundleError, match=r"trust.json is not signed by the root"):
        unpack(bundle, NOW)


Member = tuple[str, bytes, int]
HOSTILE: dict[str, tuple[Member, str]] = {
    "a path upwards": (("../../etc/passwd", b"x", 0), "belongs into no bundle"),
    "a path from the top": (("/etc/passwd", b"x", 0), "belongs into no bundle"),
    "a folder in a name": (("identity/device.key", b"x", 0), "belongs into no bundle"),
    "a symbolic link": (("device.key", tarfile.SYMTYPE, 0), "no regular file"),
    "a hard link": (("device.key", tarfile.LNKTYPE, 0), "no regular file"),
    "a device": (("device.key", tarfile.CHRTYPE, 0), "no regular file"),
    "a folder": (("device.key", tarfile.DIRTYPE, 0), "no regular file"),
    "a long name": (("device.key", tarfile.GNUTYPE_LONGNAME, 0), "no regular file"),
    "a sparse file": (("device.key", tarfile.GNUTYPE_SPARSE, 0), "no regular file"),
    "a huge member": (("device.key", b"0", 8 * 2**30 - 1), "cut off in device.key"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_what_belongs_into_no_bundle_is_refused_by_name(tmp_path: Path, what: str) -> None:
    (name, kind, size), why = HOSTILE[what]
    member = tarfile.TarInfo(name)
    member.type, member.size = kind if kind != b"x" else tarfile.REGTYPE, size
    member.linkname = "/etc/passwd" if "link" in what else ""
    (tmp_path / "b.tar").write_bytes(member.tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    with pytest.raises(BundleError, match=why):
        unpack(tmp_path / "b.tar", NOW)


def test_a_member_that_comes_twice_is_refused(tmp_path: Path) -> None:
    head = tarfile.TarInfo("ca.crt").tobuf(tarfile.USTAR_FORMAT)
    (tmp_path / "b.tar").write_bytes(head + head + bytes(1024))
    with pytest.raises(BundleError, match=r"has ca\.crt twice"):
        unpack(tmp_path / "b.tar", NOW)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is no bundle"),
        (bytes(2048), "is no bundle"),
        (b"\x1f\x8b" + bytes(range(256)) * 4, "not packed any further"),
        (bytes(MOST_BYTES + 1), "is longer than"),
    ],
)
def test_what_is_no_bundle_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    (tmp_path / "b.tar").write_bytes(content)
    with pytest.raises(BundleError, match=f"b.tar: .*{why}"):
        unpack(tmp_path / "b.tar", NOW)
    with pytest.raises(BundleError, match=r"none.tar: cannot be read"):
        unpack(tmp_path / "none.tar", NOW)


def test_a_certificate_out_of_its_time_names_the_clock_and_how_to_set_it(bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"not valid before .* clock says 1970-01-01 .*timedatectl"):
        unpack(bundle, dt.datetime(1970, 1, 1, tzinfo=dt.UTC))
    with pytest.raises(BundleError, match=r"has expired on .* enroll the device again; .*timedatectl"):
        unpack(bundle, NOW + 400 * DAY)


def test_a_key_that_is_not_the_certificates_is_noticed(authority: Authority, bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"device.key is not the key of device.crt"):
        unpack(signed_again(authority, bundle, device_key=certificates.new_key()), NOW)


def test_a_message_key_that_is_none_is_noticed(authority: Authority, bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"message.key is no private key"):
        unpack(signed_again(authority, bundle, message_key=b"junk"), NOW)


def test_a_bundle_of_a_newer_fedge_is_refused_by_its_number(authority: Authority, bundle: Path) -> None:
    whole = unpack(bundle, NOW)
    files = {name: content for name, content in whole.files.items() if name != "manifest.json"}
    manifest = msgspec.structs.replace(whole.manifest, format=2)
    pack(bundle, manifest, files, authority.signer())
    with pytest.raises(BundleError, match="format 2, of a newer fedge"):
        unpack(bundle, NOW)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_the_bytes_there_is_one_error_and_never_another_bundle(bundle: Path, data: st.DataObject) -> None:
    """Near the true bytes: a few of them changed, cut off, or repeated."""
    true = bundle.read_bytes()
    changed = bytearray(true)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "octal"])):
            case "flip":
                changed[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del changed[at : at + data.draw(st.integers(1, 600))]
                changed = changed or bytearray(1)
            case "insert":
                changed[at:at] = changed[: data.draw(st.integers(1, 600))]
            case "octal":
                changed[at // 512 * 512 + 124 : at // 512 * 512 + 136] = b"%011o\0" % data.draw(
                    st.integers(0, 2**33 - 1)
                )
    file = bundle.with_name("changed.tar")
    file.write_bytes(changed)
    with contextlib.suppress(BundleError):
        assert unpack(file, NOW) == unpack(bundle, NOW)


def test_a_manifest_names_no_name_that_is_none() -> None:
    for field, value in (("device", "../x"), ("fleet", "a b"), ("epoch", 0)):
        tree = {"fleet": "f", "device": "d", "epoch": 1, "expires": NOW, "files": {}} | {field: value}
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(msgspec.json.encode(tree), type=Manifest)
