"""The authority of a fleet: a directory from which `fedge ca` certifies who is who. One command at a time has it.

    DIR/authority.json      the record: who is enrolled, who is revoked (record.py)
    DIR/authority.toml      where the broker is, and how long things hold
    DIR/root.crt            the root's certificate
    DIR/root/               the root's two keys (root.py): move this folder to a USB stick, and say --root
    DIR/devices.crt, .key   the authority for devices. It lies on the server, so it may be captured with it
    DIR/signer.key          Ed25519: signs bundles; DIR/mandate.json is the root's word that it may
    DIR/trust.json          whose words are believed (trust.py), signed by the root
    DIR/client/             the certificate with which `fedge ca revoke` cuts connections
    DIR/operators/NAME/     what a person takes along: NAME.crt, NAME.key, message.key, ca.crt, trust.json and
                            operator.toml
    DIR/aggregator/         what the aggregator reads: aggregator.crt, aggregator.key, message.key, ca.crt, trust.json,
                            registry.json
    DIR/acl.template        what the access lists are made from (access.py), once `fedge ca acl` has been told
    DIR/tokens.json         one-time tokens and their requests (tokens.py), where there were any
    DIR/issued/NAME.crt     the last certificate of each device, on disk before the record names it: who died before it
                            was handed out hands out the same

    DIR/broker/             what mosquitto reads (`per_listener_settings true`), by listener:

                     devices, 8883                       the server, 8884 on loopback; people, 8885
      cafile         devices-ca.crt                      staff-ca.crt
      crlfile        devices.crl                         staff.crl
      certfile       server.crt                          server.crt
      keyfile        server.key                          server.key
      acl_file       acl.devices                         acl.staff

    And tokens, 8886: certfile server-chain.crt (with the root, for who has no file yet), keyfile server.key, acl_file
    acl.tokens, password_file tokens, require_certificate false, use_username_as_clientid true, no anonymous client.

    All others: require_certificate true, use_identity_as_username true. Devices and people: use_username_as_clientid
    true; the server's listener without it, since `revoke` takes over the client id of a device there, as the user
    "authority", who has to be let read and write fedge/1/+/device/+, and what broker/issuing.py says.

Its law:
1. There are two authorities, and neither is below the other: no certificate of one is believed where the other is
   asked for. The root certifies the broker, the aggregator and people, and lies on no server. What is captured with the
   server makes devices and nothing else; acl.devices lets a device of any name do no more than a device.
2. `authority.json` is replaced whole, and on disk before any certificate that it tells of is handed out: none is about
   that cannot be revoked. All else but keys follows from it and is written anew where it differs (publication.py), so a
   command that died is made good by the next one, or by running it again.
3. A name is enrolled under an epoch. Enrolling it again raises the epoch, revokes every certificate of the epochs
   before and replaces the message key.
4. Devices, people and servers share no name: to the broker a name is who somebody is.
5. Nothing here can be read by others (0700, 0600), but what is copied to a folder for its group (0640).
"""

from __future__ import annotations

import datetime as dt
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from msgspec import structs

from identity import access, certificates
from identity.certificates import CertificateError
from identity.directory import AuthorityError, Directory
from identity.keys import KeyFileError, SigningKey, key_of, read_key, text_of, write_key
from identity.publication import Published, publish
from identity.record import SETTINGS as SETTINGS_TEXT
from identity.record import (
    SIGNING,
    Gone,
    Record,
    RecordError,
    Role,
    Settings,
    Staff,
    read_record,
    read_settings,
    written,
)
from identity.registry import Enrolled
from identity.root import YEARS_20, Root, RootError
from identity.tokens import TokenError, Tokens, parse_tokens
from identity.trust import Trust
from runtime.disk import make_private, sync, write_private

HERE = ("localhost", "127.0.0.1")
"""The broker's certificate is good for these too: the aggregator beside it comes by loopback."""
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Authority:
    """A directory, locked until it is closed. Open it for each change: who holds it keeps all others waiting.

    root: the folder of the root's keys, where that is not DIR/root. Raises AuthorityError, SettingsError, OSError.
    """

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        if not (folder / "authority.json").is_file():
            raise AuthorityError(
                f"{folder}: there is no authority here; `fedge ca init {folder} --fleet NAME` makes one"
            )
        self.folder, self._root_folder = folder, root or folder / "root"
        self._directory = Directory(folder)
        try:
            self.settings: Settings = read_settings(folder / "authority.toml")
            self.record: Record = read_record(folder / "authority.json")
        except RecordError as error:
            self.close()
            raise AuthorityError(str(error)) from error
        except BaseException:
            self.close()
            raise

    @classmethod
    def found(
        cls, folder: Path, fleet: str, hosts: Iterable[str], now: dt.datetime, *, template: bytes | None = None
    ) -> Authority:
        """Make a directory, with the root in it, and return it. hosts: of the broker; devices are told the first.

        template: of the access lists. Raises AuthorityError, and OSError; nothing of it is then left.
        """
        if folder.exists():
            raise AuthorityError(f"{folder}: is there already, and an authority is never written over")
        if not _NAME.fullmatch(fleet):
            raise AuthorityError(f'{fleet[:80]!r} is no name of a fleet: 1 to 64 letters, digits, "_" or "-"')
        new = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        try:
            _lay_out(new, fleet, tuple(hosts), now, template)
            new.rename(folder)
            sync(folder.parent)
        except (CertificateError, access.TemplateError) as error:
            raise AuthorityError(str(error)) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)
        return cls(folder)

    def close(self) -> None:
        """Let another command have it."""
        self._directory.close()

    def __enter__(self) -> Authority:
        return self

    def __exit__(self, _type: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None) -> None:
        self.close()

    # Devices.

    def enroll(
        self,
        device: str,
        public: bytes,
        message_key: str,
        now: dt.datetime,
        *,
        labels: Mapping[str, str] | None = None,
        rows: int | None = None,
    ) -> bytes:
        """Return the certificate of a device, in PEM, once it is known and its earlier self is out (law 3).

        public: its key on P-256, in PEM. message_key: its public Ed25519 key, as text. labels, rows: as before where
        they are not given. Call `publish` then. Raises AuthorityError, OSError.
        """
        self._check_clock(now)
        self._check_name(device)
        before = self.record.devices.get(device)
        self._check_message_key(message_key)
        certificate, serial, until = self._issue(device, public, now)
        if before is not None:
            rows, labels = before.rows if rows is None else rows, before.labels if labels is None else labels
        epoch = 1 if before is None else before.epoch + 1
        known = Enrolled(message_key, epoch, serial, until, rows, dict(labels or {}))
        older, revoked = self._without(device, now)
        devices = self.record.devices | {device: known}
        self._commit(structs.replace(self.record, devices=devices, older=older, revoked=revoked))
        return certificate

    def renew(self, device: str, public: bytes, now: dt.datetime, *, message_key: str | None = None) -> bytes:
        """Return another certificate for a device of the same epoch; the one before holds until its end.

        message_key: another one, where it changes. Call `publish` then. Raises AuthorityError, OSError.
        """
        self._check_clock(now)
        before = self.record.devices.get(device)
        if before is None or before.revoked:
            why = "is revoked" if before else "is not enrolled"
            raise AuthorityError(f"device {device} {why}, so its certificate is not renewed: enroll it")
        if message_key not in (None, before.key):
            self._check_message_key(message_key or "")
        certificate, serial, until = self._issue(device, public, now)
        known = structs.replace(before, serial=serial, expires=until, key=message_key or before.key)
        older = {
            serial: gone for serial, gone in self.record.older.items() if gone.until > now - dt.timedelta(days=366)
        }
        if before.serial is not None and before.expires is not None:
            older[before.serial] = Gone(device, before.expires)
        self._commit(structs.replace(self.record, devices=self.record.devices | {device: known}, older=older))
        return certificate

    def revoke(self, name: str, now: dt.datetime) -> bool:
        """Take a device, or somebody whom the root has certified, off the fleet; return whether that was news.

        For the latter the root is needed. Call `publish` then. Raises AuthorityError, OSError.
        """
        self._check_clock(now)
        if (known := self.record.devices.get(name)) is not None:
            older, revoked = self._without(name, now)
            devices = self.record.devices | {name: structs.replace(known, revoked=True)}
            record = structs.replace(self.record, devices=devices, older=older, revoked=revoked)
        elif (staff := self.record.staff.get(name)) is not None:
            self._check_not_vital(name, staff)
            self.root()
            gone = Gone(name, staff.expires, now)
            record = structs.replace(
                self.record,
                staff=self.record.staff | {name: structs.replace(staff, revoked=True)},
                revoked_staff={staff.serial: gone} | self.record.revoked_staff,
            )
        else:
            raise AuthorityError(f"{name[:80]}: nobody of this name is enrolled; `fedge ca show` lists all")
        if record == self.record:
            return False
        self._commit(record)
        return True

    # People and servers.

    def root(self) -> Root:
        """Return the root. Raises AuthorityError where its keys are not at hand."""
        try:
            return Root.read(self._root_folder, self._directory.read("root.crt"), self.record.root)
        except RootError as error:
            raise AuthorityError(str(error)) from error

    @property
    def has_root(self) -> bool:
        """Whether there are keys of a root where they are looked for."""
        return (self._root_folder / "root.key").exists()

    def certify(self, name: str, role: Role, public: bytes, message_key: str | None, now: dt.datetime) -> bytes:
        """Return the certificate of a person, or of a part of the server, in PEM; the one before is revoked.

        message_key: public, as text; it may sign jobs (operator, admin), commands alone (steward), or what the
        aggregator says. Needs the root. Call `publish` then. Raises AuthorityError, OSError.
        """
        self._check_clock(now)
        self._check_name(name, role)
        if message_key is not None:
            self._check_message_key(message_key)
        hosts = self.hosts if role == "broker" else ()
        try:
            certificate = self.root().certify(
                public, name, role, self._days(self.settings.validity.staff_days, now), now, hosts
            )
            _, serial, _, until = certificates.look(certificate)
        except CertificateError as error:
            raise AuthorityError(f"{name}: {error}") from error
        before, revoked = self.record.staff.get(name), dict(self.record.revoked_staff)
        if before is not None and not _is_vital(role):  # a server goes on with the old one until it has the new
            revoked[before.serial] = Gone(name, before.expires, now)
        one = Staff(role, serial, until, message_key if message_key or before is None else before.key)
        self._commit(
            structs.replace(
                self.record,
                staff=self.record.staff | {name: one},
                revoked_staff=revoked,
            )
        )
        return certificate

    @property
    def hosts(self) -> tuple[str, ...]:
        """Where the broker may be found, by its certificate."""
        return (*self.record.hosts, *(host for host in HERE if host not in self.record.hosts))

    # Files.

    def take_template(self, text: bytes) -> None:
        """Make the access lists from this template from now on. Call `publish` then. Raises AuthorityError, OSError."""
        try:
            access.lists(text.decode(), self.record.staff)
        except (access.TemplateError, UnicodeDecodeError) as error:
            raise AuthorityError(f"the template {error}") from error
        self._directory.put("acl.template", text)

    @property
    def trust(self) -> Trust:
        """What `trust.json` has to say."""
        record = self.record
        stewards = _stewards(record)
        operators, number = _operators(record), 2 if stewards else 1
        return Trust(record.fleet, record.root, record.aggregator, operators, record.trust, number, stewards=stewards)

    @property
    def mandate(self) -> bytes:
        """The root's word that `signer` may sign bundles (mandate.py)."""
        return self._directory.read("mandate.json")

    @property
    def trust_files(self) -> dict[str, bytes]:
        """What everybody pins: trust.json, and ca.crt, by which the broker is known."""
        return {"trust.json": self._directory.read("trust.json"), "ca.crt": self._directory.read("root.crt")}

    def signer(self) -> SigningKey:
        """Return the key that signs bundles. Raises AuthorityError."""
        try:
            return read_key(self.folder / "signer.key")
        except KeyFileError as error:
            raise AuthorityError(str(error)) from error

    def publish(self, now: dt.datetime, *, fresh: bool = False) -> Published:
        """Write anew what follows from the record and is not so yet, and copy it to where it is read.

        fresh: also a list of the revoked that is good for long still. What cannot be done, as without the root where
        people have changed, is named in what is returned. Raises AuthorityError for a wrong clock, OSError for a full
        disk.
        """
        self._check_clock(now)
        return publish(self._directory, self.settings, self.record, self.trust, self.root, now, fresh=fresh)

    @property
    def tokens(self) -> Tokens:
        """The tokens that are about. Raises AuthorityError."""
        name = "tokens.json"
        try:
            text = self._directory.read(name, b"")
            return parse_tokens(text, str(self.folder / name)) if text else Tokens(self.record.fleet)
        except TokenError as error:
            raise AuthorityError(str(error)) from error

    def keep_tokens(self, tokens: Tokens) -> bool:
        """Replace the tokens by these; return whether they were others. Call `publish` then. Raises OSError."""
        return self._directory.put("tokens.json", written(tokens))

    def issued(self, device: str) -> bytes:
        """Return the certificate that a device has now, in PEM. Raises AuthorityError where it is not at hand."""
        certificate, known = self._directory.read(f"issued/{device}.crt"), self.record.devices.get(device)
        try:
            serial = certificates.look(certificate)[1]
        except CertificateError as error:
            raise AuthorityError(f"{self.folder}/issued/{device}.crt: {error}") from error
        if known is None or known.revoked or known.serial != serial:
            raise AuthorityError(f"{self.folder}/issued/{device}.crt: is not the certificate that {device} has now")
        return certificate

    def is_long_ago(self, device: str, until: dt.datetime) -> bool:
        """Return whether a device whose certificate ends then has been given two others since."""
        before = [gone.until for gone in self.record.older.values() if gone.holder == device]
        return bool(before) and until < max(before)

    def check_free(self, device: str, message_key: str | None = None) -> None:
        """Raise AuthorityError where no device can have this name, or this message key, which is another's."""
        self._check_name(device)
        if message_key is not None:
            self._check_message_key(message_key)

    def due(self) -> dt.datetime:
        """Return when the list of revoked devices has to be renewed at the latest. Raises AuthorityError."""
        made = self._directory.read("broker/devices.crl", b"")
        if not made:
            raise AuthorityError(
                f"{self.folder / 'broker/devices.crl'}: is not there, and without it the broker lets no device in: "
                f"`fedge ca renew {self.folder}` makes it anew"
            )
        return certificates.look_at_revocations(made)[1]

    # The rest.

    def _issue(self, device: str, public: bytes, now: dt.datetime) -> tuple[bytes, str, dt.datetime]:
        days = self._days(self.settings.validity.device_days, now)
        try:
            made = certificates.issue(
                self._directory.read("devices.crt"),
                self._directory.read("devices.key"),
                public,
                device,
                days,
                now,
                unit="device",
            )
            _, serial, _, until = certificates.look(made)
        except CertificateError as error:
            raise AuthorityError(f"device {device}: {error}") from error
        self._directory.put(f"issued/{device}.crt", made)
        return made, serial, until

    def _without(self, device: str, now: dt.datetime) -> tuple[dict[str, Gone], dict[str, Gone]]:
        """Return the older certificates and the revoked ones, with all of this device among the latter."""
        known = self.record.devices.get(device)
        mine = {serial: gone.until for serial, gone in self.record.older.items() if gone.holder == device}
        if known is not None and known.serial is not None and known.expires is not None:
            mine[known.serial] = known.expires
        older = {serial: gone for serial, gone in self.record.older.items() if serial not in mine}
        return older, {serial: Gone(device, until, now) for serial, until in mine.items()} | self.record.revoked

    def _check_name(self, name: str, role: Role | None = None) -> None:
        if not _NAME.fullmatch(name):
            raise AuthorityError(f'{name[:80]!r} is no name: 1 to 64 letters, digits, "_" or "-"')
        taken = self.record.staff.get(name)
        if role is None and (taken is not None or name in ("broker", "aggregator", "authority", "operator")):
            raise AuthorityError(f"{name}: is the name of {_phrase(taken)}, so no device can have it")
        if role is not None and name in self.record.devices:
            raise AuthorityError(f"{name}: is the name of a device, so nobody else can have it")
        if role is not None and taken is not None and _is_vital(taken.role) != _is_vital(role):
            raise AuthorityError(f"{name}: is the name of {_phrase(taken)}")

    def _check_message_key(self, text: str) -> None:
        try:
            key_of(text)
        except KeyFileError as error:
            raise AuthorityError(str(error)) from error
        known = {d.key: f"device {name}" for name, d in self.record.devices.items()}
        known |= {s.key: name for name, s in self.record.staff.items() if s.key is not None}
        known |= dict.fromkeys((self.record.root, self.record.signer, *self.record.aggregator), "the server")
        if text in known:
            raise AuthorityError(f"this message key is that of {known[text]} already: everybody needs a new one")

    def _check_not_vital(self, name: str, staff: Staff) -> None:
        if _is_vital(staff.role):
            raise AuthorityError(
                f"{name}: the fleet cannot do without it; `fedge ca renew --root DIR` replaces its certificate"
            )

    def _check_clock(self, now: dt.datetime) -> None:
        if now < self.record.made - certificates.EARLIER:
            raise AuthorityError(
                f"the clock of this machine says {now:%Y-%m-%d %H:%M} UTC, and this authority was made on "
                f"{self.record.made:%Y-%m-%d}: set it (timedatectl) first"
            )
        until = certificates.look(self._directory.read("devices.crt"))[3]
        if now >= until:
            raise AuthorityError(
                f"the authority for devices has ended on {until:%Y-%m-%d}, going by this machine's clock"
            )

    def _days(self, days: float, now: dt.datetime) -> float:
        """Return so many days, or fewer where the authority itself ends before."""
        left = self.record.made + dt.timedelta(days=YEARS_20) - now
        return min(days, max(0.01, left / dt.timedelta(days=1)))

    def _commit(self, record: Record) -> None:
        if _commanding(record) != _commanding(self.record):
            record = structs.replace(record, trust=self.record.trust + 1)
        has_steward = any(one.role == "steward" for one in record.staff.values())
        record = structs.replace(record, format=2 if has_steward else 1)
        write_private(self.folder / "authority.json", written(record))
        self.record = record


def _lay_out(folder: Path, fleet: str, hosts: tuple[str, ...], now: dt.datetime, template: bytes | None) -> None:
    """Make everything that no command makes again: keys, both authorities, the first record."""
    folder.mkdir(mode=0o700, parents=True)
    root = Root.new(folder / "root", fleet, now)
    key, signer = certificates.new_key(), SigningKey.generate()
    devices = certificates.new_authority(key, "fedge devices", fleet, YEARS_20, now, clients_only=True)
    mandate = root.mandate(fleet, signer.public, devices)
    write_key(folder / "signer.key", signer)
    make_private(folder / "aggregator")
    aggregator = SigningKey.generate()
    write_key(folder / "aggregator" / "message.key", aggregator)
    public = text_of(aggregator.public)
    record = Record(fleet, now, hosts, text_of(root.message_key.public), text_of(signer.public), (public,))
    files = {"root.crt": root.certificate, "devices.crt": devices, "devices.key": key, "mandate.json": written(mandate)}
    files |= {"authority.toml": SETTINGS_TEXT.encode(), "authority.json": written(record)}
    if template is not None:
        access.lists(template.decode(), {})
        files["acl.template"] = template
    for name, content in files.items():
        write_private(folder / name, content)


def _operators(record: Record) -> dict[str, str]:
    """Return the keys of those who may sign jobs."""
    return _keys(record, SIGNING)


def _stewards(record: Record) -> dict[str, str]:
    """Return the keys of those who may sign commands, and no jobs."""
    return _keys(record, ("steward",))


def _commanding(record: Record) -> tuple[dict[str, str], dict[str, str]]:
    """Return the keys of both."""
    return _operators(record), _stewards(record)


def _keys(record: Record, roles: tuple[Role, ...]) -> dict[str, str]:
    having = {name: one.key for name, one in record.staff.items() if one.role in roles and not one.revoked}
    return {name: key for name, key in having.items() if key is not None}


def _is_vital(role: Role) -> bool:
    return role in ("broker", "aggregator", "authority")


def _phrase(staff: Staff | None) -> str:
    if staff is None or _is_vital(staff.role):
        return "a part of the server"
    return "a steward" if staff.role == "steward" else f"an {staff.role}"
