"""All that an authority knows, in one file that is replaced whole; and how it is set up, in one that people write.

authority.json    the record. Everything else in the directory but keys follows from it (authority.py)
authority.toml    where the broker is, and how long certificates hold
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from identity.registry import Enrolled
from runtime import formats
from runtime.settings import load
from runtime.words import clean

FORMAT = 2
"""2 where there is a steward, whom an older fedge would not know; 1 otherwise."""
MOST_BYTES = 256 * 1024 * 1024

Role = Literal["broker", "aggregator", "authority", "observer", "steward", "operator", "admin"]
"""Of the server's parts, and of people: an observer looks, a steward commands what is there and hands in no jobs, an
operator hands in jobs, an admin may do all there is."""
SIGNING: tuple[Role, ...] = ("operator", "admin")
"""Whose keys may sign jobs."""
COMMANDING: tuple[Role, ...] = ("steward", *SIGNING)
"""Whose keys may sign commands."""

FilePath = Annotated[str, Meta(pattern=r"\A[^\x00-\x1f\x7f]{1,4096}\Z", description="a path has no control characters")]
Port = Annotated[int, Meta(ge=1, le=65535)]
Days = Annotated[float, Meta(gt=0, le=36_500)]


class RecordError(ValueError):
    """A record that cannot be used; the message is one line, names the file and says what to do."""


class Staff(Struct, frozen=True, omit_defaults=True):
    """Whom the root has certified: a person, or a part of the server. key: the public message key, as text."""

    role: Role
    serial: str
    expires: dt.datetime
    key: str | None = None
    revoked: bool = False


class Gone(Struct, frozen=True):
    """A certificate that is on a list of the revoked, or will be with its holder. until: it ends by itself then."""

    holder: str
    until: dt.datetime
    since: dt.datetime | None = None


class Record(Struct, frozen=True):
    """What the authority knows.

    root, aggregator, signer: public message keys as text; the last one signs bundles. hosts: of the broker's
    certificate; devices are told the first. older: certificates of devices that were renewed, by serial, which hold
    still. revoked, revoked_staff: by serial, what their lists name. trust: the serial of trust.json.
    """

    fleet: str
    made: dt.datetime
    hosts: tuple[str, ...]
    root: str
    signer: str
    aggregator: tuple[str, ...]
    devices: dict[str, Enrolled] = {}
    staff: dict[str, Staff] = {}
    older: dict[str, Gone] = {}
    revoked: dict[str, Gone] = {}
    revoked_staff: dict[str, Gone] = {}
    trust: int = 1
    format: int = 1


class BrokerSide(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the broker is, and how it is told: [broker]."""

    port: Port = 8883
    """Of the listener for devices."""
    inner_host: str = "127.0.0.1"
    inner_port: Port = 8884
    """The listener for the aggregator and for `fedge ca`, as this machine reaches it."""
    people_port: Port = 8885
    """Of the listener for people."""
    enroll_port: Port = 8886
    """Of the listener for one-time tokens."""
    files: FilePath | None = None
    """A folder that mosquitto reads, to which its files are copied at every change; they get its group."""
    pid_file: FilePath | None = None
    """Of a mosquitto of this machine, which is sent SIGHUP."""
    reload: tuple[str, ...] = ()
    """Or the command that has it read its files anew."""
    passwords: FilePath | None = None
    """Its password file, where devices of the fleet have passwords."""


class AggregatorSide(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the aggregator reads who is enrolled: [aggregator]."""

    files: FilePath | None = None
    """A folder to which its files are copied at every change; they get the group of the folder."""


class Validity(Struct, frozen=True, forbid_unknown_fields=True):
    """For how many days things hold: [validity]."""

    device_days: Days = 365.0
    staff_days: Days = 730.0
    """Of the broker, the aggregator and people: the root is needed to renew them."""
    crl_days: Days = 30.0
    """Of the list of revoked devices. Past it the broker lets no device in, so `fedge ca renew` runs every day."""


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """authority.toml."""

    broker: BrokerSide = BrokerSide()
    aggregator: AggregatorSide = AggregatorSide()
    validity: Validity = Validity()


SETTINGS = """\
# How this authority is set up. Lines that begin with "#" and a key show the defaults or an example.

[broker]
# The listeners for devices, for people and for tokens, and the server's own as this machine reaches it
# (mosquitto/locked.conf). Where you change one, change it in aggregator/aggregator.toml and operators/*/operator.toml
# too, which are made already.
#port = 8883
#people_port = 8885
#enroll_port = 8886
#inner_host = "127.0.0.1"
#inner_port = 8884
# A folder that mosquitto reads: what it needs is copied there at every change, for the group of the folder, so make it
#   install -d -g mosquitto -m 2750 /etc/mosquitto/broker
# Without it mosquitto has to read the folder `broker` beside this file.
#files = "/etc/mosquitto/broker"
# How it is told to read them anew; one of the two.
#pid_file = "/run/mosquitto/mosquitto.pid"
#reload = ["systemctl", "reload", "mosquitto"]
#reload = ["docker", "kill", "--signal", "HUP", "deploy_mosquitto_1"]
# Its password file, where devices have passwords: `fedge ca revoke` takes them out.
#passwords = "/etc/mosquitto/passwd"

[aggregator]
# A folder that the aggregator reads: who is enrolled, its own certificate, and aggregator.toml, which is copied there
# once and is yours from then on. Without it: the folder `aggregator`.
#files = "/etc/fedge/aggregator"

[validity]
#device_days = 365
# Of the broker, the aggregator and people; the root is needed to renew them.
#staff_days = 730
# Of the list of revoked devices, which `fedge ca renew` makes anew every day.
#crl_days = 30
"""


def read_settings(path: Path) -> Settings:
    """Return authority.toml; the defaults where there is none. Raises SettingsError."""
    return load(path, Settings) if path.exists() else Settings()


def read_record(path: Path) -> Record:
    """Return a record. Raises RecordError."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror or error}; is this what ca init made?") from error
    try:
        formats.check(str(path), msgspec.json.decode(text, type=_Numbered).format, FORMAT)
        return msgspec.json.decode(text, type=Record)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RecordError(f"{path}: is damaged: {clean(str(error))}; bring it back from a backup") from error
    except formats.FormatError as error:
        raise RecordError(str(error)) from error


def written(value: object) -> bytes:
    """Return JSON that people can read, too."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"


class _Numbered(Struct):
    format: int = 1
