from __future__ import annotations

import datetime as dt
import stat
import subprocess
from pathlib import Path

import msgspec
import pytest

from identity import certificates, directory
from identity.authority import Authority
from identity.directory import AuthorityError
from identity.registry import read_registry
from identity.trust import is_of_root, read_trust
from runtime.disk import write_private
from tests.identity.conftest import NOW, message_key, public_key

DAY = dt.timedelta(days=1)


def serial_of(certificate: bytes) -> str:
    return certificates.look(certificate)[1]


def listed(authority: Authority, name: str = "devices") -> frozenset[str]:
    return certificates.look_at_revocations((authority.folder / "broker" / f"{name}.crl").read_bytes())[0]


def openssl_takes(authority: Authority, certificate: bytes, among: str, *extra: str) -> bool:
    """Whether a listener of the broker with these files (devices, staff) would take a client's certificate."""
    file = authority.folder.parent / "client.crt"
    file.write_bytes(certificate)
    folder = authority.folder / "broker"
    line = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-crl_check", *extra]
    line += ["-CAfile", str(folder / f"{among}-ca.crt"), "-CRLfile", str(folder / f"{among}.crl"), str(file)]
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


def test_a_device_is_enrolled_and_the_aggregator_reads_of_it(authority: Authority) -> None:
    key = message_key()
    certificate = authority.enroll("pi-1", public_key(), key, NOW, labels={"site": "north"}, rows=100)
    assert authority.publish(NOW).failed == ()
    known = read_registry(authority.folder / "aggregator" / "registry.json", "barn").devices["pi-1"]
    assert (known.key, known.epoch, known.serial) == (key, 1, serial_of(certificate))
    assert (known.labels, known.rows, known.revoked) == ({"site": "north"}, 100, False)
    assert known.expires == certificates.look(certificate)[3]
    assert openssl_takes(authority, certificate, "devices")


def test_enrolling_a_name_again_puts_its_older_self_out(authority: Authority) -> None:
    first = authority.enroll("pi-1", public_key(), message_key(), NOW, labels={"site": "north"}, rows=7)
    renewed = authority.renew("pi-1", public_key(), NOW)
    key = message_key()
    last = authority.enroll("pi-1", public_key(), key, NOW)
    authority.publish(NOW)
    known = authority.record.devices["pi-1"]
    assert (known.epoch, known.key, known.labels, known.rows) == (2, key, {"site": "north"}, 7)
    assert listed(authority) == {serial_of(first), serial_of(renewed)}
    assert [openssl_takes(authority, one, "devices") for one in (first, renewed, last)] == [False, False, True]


def test_a_renewed_certificate_leaves_the_one_before_until_both_are_revoked(authority: Authority) -> None:
    first = authority.enroll("pi-1", public_key(), message_key(), NOW)
    second = authority.renew("pi-1", public_key(), NOW)
    authority.publish(NOW + DAY)
    assert authority.record.devices["pi-1"].epoch == 1
    assert openssl_takes(authority, first, "devices")
    assert openssl_takes(authority, second, "devices")
    assert authority.revoke("pi-1", NOW + DAY)
    authority.publish(NOW + DAY)
    assert listed(authority) == {serial_of(first), serial_of(second)}
    assert authority.record.devices["pi-1"].revoked
    assert not authority.revoke("pi-1", NOW + DAY), "once more is no news"
    with pytest.raises(AuthorityError, match="is revoked"):
        authority.renew("pi-1", public_key(), NOW + DAY)


def test_a_captured_authority_for_devices_makes_no_operator_no_aggregator_and_no_broker(authority: Authority) -> None:
    files = [(authority.folder / name).read_bytes() for name in ("devices.crt", "devices.key")]
    forged = certificates.issue(*files, public_key(), "aggregator", 9, NOW, unit="aggregator")
    assert openssl_takes(authority, forged, "devices"), "where acl.devices lets it do no more than any device"
    assert not openssl_takes(authority, forged, "staff", "-untrusted", str(authority.folder / "devices.crt"))
    server = certificates.issue(*files, public_key(), "broker", 9, NOW, server=["server.example"])
    (authority.folder.parent / "server.crt").write_bytes(server)
    for trusted in ("root.crt", "devices.crt"):
        line = ["openssl", "verify", "-purpose", "sslserver", "-CAfile", trusted, "-untrusted", "devices.crt"]
        line.append(str(authority.folder.parent / "server.crt"))
        assert subprocess.run(line, cwd=authority.folder, capture_output=True, check=False).returncode != 0


def test_people_come_from_the_root_and_no_listener_of_devices_takes_them(authority: Authority) -> None:
    key = message_key()
    certificate = authority.certify("anna", "admin", public_key(), key, NOW)
    assert authority.publish(NOW).failed == ()
    assert openssl_takes(authority, certificate, "staff")
    assert not openssl_takes(authority, certificate, "devices")
    trust = read_trust(authority.folder / "trust.json", "barn")
    assert trust.operators == {"anna": key}
    assert is_of_root(trust)
    assert not is_of_root(msgspec.structs.replace(trust, operators={"anne": key}))
    assert not is_of_root(msgspec.structs.replace(trust, signature="junk"))
    assert b"user anna" in (authority.folder / "broker" / "acl.staff").read_bytes()


def test_a_person_who_is_certified_again_has_one_certificate(authority: Authority) -> None:
    first, second = (authority.certify("anna", "admin", public_key(), message_key(), NOW) for _ in range(2))
    authority.publish(NOW)
    assert listed(authority, "staff") == {serial_of(first)}
    assert [openssl_takes(authority, one, "staff") for one in (first, second)] == [False, True]


def test_pinned_keys_have_another_serial_only_where_they_are_others(authority: Authority) -> None:
    authority.certify("broker", "broker", public_key(), None, NOW)
    authority.certify("otto", "observer", public_key(), None, NOW)
    authority.revoke("otto", NOW)
    assert authority.trust.serial == 1
    for serial in (2, 3):
        authority.certify("anna", "operator", public_key(), message_key(), NOW)
        assert authority.trust.serial == serial
    authority.certify("anna", "observer", public_key(), None, NOW)
    assert (authority.trust.serial, authority.trust.operators) == (4, {})


def test_a_revoked_operator_is_out_everywhere(authority: Authority) -> None:
    certificate = authority.certify("anna", "operator", public_key(), message_key(), NOW)
    authority.publish(NOW)
    before = authority.record.trust
    assert authority.revoke("anna", NOW)
    assert authority.publish(NOW).failed == ()
    assert not openssl_takes(authority, certificate, "staff")
    trust = read_trust(authority.folder / "trust.json")
    assert (trust.operators, trust.serial) == ({}, before + 1)
    assert b"anna" not in (authority.folder / "broker" / "acl.staff").read_bytes()


def test_without_the_root_devices_are_enrolled_and_revoked_and_people_are_not(
    authority: Authority, tmp_path: Path
) -> None:
    (authority.folder / "root").rename(tmp_path / "stick")
    assert not authority.has_root
    authority.enroll("pi-1", public_key(), message_key(), NOW)
    authority.revoke("pi-1", NOW)
    assert authority.publish(NOW).failed == ()
    for act in (
        lambda: authority.certify("anna", "admin", public_key(), message_key(), NOW),
        lambda: authority.certify("aggregator", "aggregator", public_key(), None, NOW),
    ):
        with pytest.raises(AuthorityError, match=r"needs the root, .* --root DIR"):
            act()
    authority.close()
    with Authority(authority.folder, tmp_path / "stick") as again:
        again.certify("anna", "admin", public_key(), message_key(), NOW)
        assert again.publish(NOW).failed == ()


def test_the_root_of_another_authority_is_refused(authority: Authority, tmp_path: Path) -> None:
    with Authority.found(tmp_path / "other", "barn", [], NOW):
        pass
    authority.close()
    with (
        Authority(authority.folder, tmp_path / "other" / "root") as again,
        pytest.raises(AuthorityError, match="another"),
    ):
        again.root()


def test_what_a_command_did_not_come_to_write_is_written_by_the_next(authority: Authority) -> None:
    certificate = authority.enroll("pi-1", public_key(), message_key(), NOW)
    authority.revoke("pi-1", NOW)
    authority.close()  # it died here
    with Authority(authority.folder) as again:
        assert set(again.publish(NOW).changed) == {"broker/devices.crl", "aggregator/registry.json"}
        assert listed(again) == {serial_of(certificate)}
        assert again.publish(NOW).changed == ()


@pytest.mark.parametrize("nth", range(12))
def test_wherever_the_disk_is_full_no_certificate_is_about_that_is_not_revoked_later(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Law 2: each write may be the one that fails; the next command makes it good."""
    handed_out: list[bytes] = []
    left = nth

    def write(path: Path, content: bytes, mode: int = 0o600) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(28, "No space left on device", str(path))
        write_private(path, content, mode)

    def acts() -> None:
        for act in (authority.enroll, authority.enroll):
            handed_out.append(act("pi-1", public_key(), message_key(), NOW))
            authority.publish(NOW)
        handed_out.append(authority.renew("pi-1", public_key(), NOW))
        authority.revoke("pi-1", NOW)
        authority.publish(NOW)

    with monkeypatch.context() as patch:
        patch.setattr("identity.authority.write_private", write)
        patch.setattr("identity.directory.write_private", write)
        try:
            acts()
        except OSError:
            assert left < 0
    authority.close()
    with Authority(authority.folder) as again:
        if "pi-1" in again.record.devices:
            again.revoke("pi-1", NOW)
        again.publish(NOW)
        assert {serial_of(certificate) for certificate in handed_out} <= listed(again)
        assert read_registry(authority.folder / "aggregator" / "registry.json").devices == again.record.devices


def test_the_list_of_the_revoked_is_renewed_long_before_it_ends(authority: Authority) -> None:
    days = authority.settings.validity.crl_days
    assert authority.due() > NOW + (days - 1) * DAY
    assert authority.publish(NOW + days / 2 * DAY).changed == ()
    renewed = ("broker/devices.crl", "aggregator/registry.json")
    assert authority.publish(NOW + days / 2 * DAY, fresh=True).changed == renewed
    assert authority.publish(NOW + 1.4 * days * DAY).changed == renewed
    read = read_registry(authority.folder / "aggregator" / "registry.json")
    assert read.list_until == authority.due() > NOW + 2 * days * DAY


def test_nobody_else_can_look_into_it(authority: Authority) -> None:
    for path in (authority.folder, *authority.folder.rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    authority.close()
    authority.folder.chmod(0o750)
    with pytest.raises(AuthorityError, match=f"chmod 700 {authority.folder}"):
        Authority(authority.folder)


def test_two_commands_at_once_are_one_too_many(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "LOCK_S", 0.0)
    with pytest.raises(AuthorityError, match=r"process \d+ is at work"):
        Authority(authority.folder)


def test_an_authority_is_never_written_over(authority: Authority) -> None:
    before = (authority.folder / "authority.json").read_bytes()
    with pytest.raises(AuthorityError, match="never written over"):
        Authority.found(authority.folder, "barn", [], NOW)
    assert (authority.folder / "authority.json").read_bytes() == before


def test_an_authority_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(AuthorityError, match="no line `pattern"):
        Authority.found(tmp_path / "ca", "barn", [], NOW, template=b"user aggregator\n")
    assert list(tmp_path.iterdir()) == []


def test_what_is_copied_elsewhere_is_for_the_group_of_the_folder(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "mosquitto").mkdir()
    (authority.folder / "authority.toml").write_text(
        '[broker]\nfiles = "../mosquitto"\n[aggregator]\nfiles = "/none"\n'
    )
    authority.close()
    with Authority(authority.folder) as again:
        (failed,) = again.publish(NOW).failed
    assert failed.startswith("/none: cannot be written")
    copied = {path.name for path in (tmp_path / "mosquitto").iterdir()}
    assert copied == {path.name for path in (authority.folder / "broker").iterdir()}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "mosquitto").iterdir()} == {0o640}


def test_a_configuration_is_copied_once_with_the_paths_of_the_copies_and_never_written_over(
    authority: Authority, tmp_path: Path
) -> None:
    there, name = tmp_path / "etc", "aggregator.toml"
    there.mkdir()
    (authority.folder / "aggregator" / name).write_text(f'key_file = "{authority.folder}/aggregator/aggregator.key"\n')
    (authority.folder / "authority.toml").write_text('[aggregator]\nfiles = "../etc"\n')
    authority.close()
    with Authority(authority.folder) as again:
        assert again.publish(NOW).failed == ()
        copied = msgspec.toml.decode((there / name).read_bytes())
        assert Path(copied["key_file"]).resolve() == (there / "aggregator.key").resolve()
        (there / name).write_text("# mine\n")
        again.enroll("pi-1", public_key(), message_key(), NOW)
        assert again.publish(NOW).failed == ()
    assert (there / name).read_text() == "# mine\n"
    assert b"pi-1" in (there / "registry.json").read_bytes()


def test_pinned_keys_that_were_changed_elsewhere_are_not_written_over(authority: Authority, tmp_path: Path) -> None:
    there = tmp_path / "aggregator"
    there.mkdir()
    (authority.folder / "authority.toml").write_text('[aggregator]\nfiles = "../aggregator"\n')
    authority.close()
    with Authority(authority.folder) as again:
        assert again.publish(NOW).failed == ()
        newer = msgspec.json.encode(msgspec.structs.replace(read_trust(there / "trust.json"), serial=99))
        (there / "trust.json").write_bytes(newer)
        again.certify("anna", "admin", public_key(), message_key(), NOW)
        (failed,) = again.publish(NOW).failed
    assert "has the serial 99, and that of the authority 2" in failed
    assert (there / "trust.json").read_bytes() == newer


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 65, "aggregator", "authority", "broker", "anna"])
def test_a_device_has_no_name_that_is_none_or_somebody_elses(authority: Authority, name: str) -> None:
    authority.certify("anna", "observer", public_key(), None, NOW)
    before = authority.record
    with pytest.raises(AuthorityError, match="name"):
        authority.enroll(name, public_key(), message_key(), NOW)
    assert authority.record is before


def test_people_have_no_name_of_a_device_and_no_role_of_the_server(authority: Authority) -> None:
    authority.enroll("pi-1", public_key(), message_key(), NOW)
    authority.certify("aggregator", "aggregator", public_key(), None, NOW)
    for name in ("pi-1", "aggregator"):
        with pytest.raises(AuthorityError, match="is the name of"):
            authority.certify(name, "operator", public_key(), message_key(), NOW)
    with pytest.raises(AuthorityError, match="cannot do without"):
        authority.revoke("aggregator", NOW)


def test_a_message_key_is_that_of_one_alone(authority: Authority) -> None:
    key = message_key()
    authority.enroll("pi-1", public_key(), key, NOW)
    for device in ("pi-1", "pi-2"):
        with pytest.raises(AuthorityError, match="that of device pi-1 already"):
            authority.enroll(device, public_key(), key, NOW)
    with pytest.raises(AuthorityError, match="44 characters"):
        authority.enroll("pi-2", public_key(), "junk", NOW)


def test_a_wrong_clock_certifies_nothing(authority: Authority) -> None:
    wrong = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    for act in (
        lambda: authority.enroll("pi-1", public_key(), message_key(), wrong),
        lambda: authority.publish(wrong, fresh=True),
        lambda: authority.certify("anna", "admin", public_key(), message_key(), wrong),
    ):
        with pytest.raises(AuthorityError, match=r"clock of this machine says 1970-01-01 .*timedatectl"):
            act()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"{", "is damaged"),
        (b'{"format": 3}', "of a newer fedge"),
        (b'{"format": 1}', "is damaged"),
        (b"\xff", "is damaged"),
    ],
)
def test_a_record_that_cannot_be_read_is_named_and_the_lock_is_free_again(
    authority: Authority, text: bytes, why: str
) -> None:
    authority.close()
    file = authority.folder / "authority.json"
    whole = file.read_bytes()
    file.write_bytes(text)
    with pytest.raises(AuthorityError, match=f"authority.json.* {why}"):
        Authority(authority.folder)
    assert file.read_bytes() == text
    file.write_bytes(whole)
    Authority(authority.folder).close()
