"""The process that looks on beside an aggregator, and that its page, notices and Home Assistant stand in.

    fedge aggregator run ──starts, and again when it ends──▶ this process: Lookout ──View──▶ things: the page, …
    (companion.py)                                                │ reads the store, listens at the broker
                                                                  └ ends with the aggregator, whatever ends that

It writes nothing but questions and notices to the broker, and to the state directory what it has told. Its command is
`fedge web run --config aggregator.toml`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Protocol

from msgspec import Struct, structs

from aggregator.looking_on import (
    MISSING_PAGE,
    HomeAssistantSettings,
    NotifySettings,
    ObserverSettings,
    WebSettings,
    page_is_installed,
    why_not,
    with_line,
)
from broker.connection import BrokerSettings, FilePath
from fleet.homeassistant.published import FILE
from fleet.identity import wire_of_operator
from fleet.local.toml import written
from fleet.sight.lookout import Lookout, lookout_on
from fleet.sight.store_readings import StoreSource
from identity.keys import key_of
from identity.settings import IdentitySettings, ServerIdentity
from runtime.children import end_with
from runtime.settings import SettingsError, load
from runtime.software import VERSION

log = logging.getLogger(__name__)

NICE = 5
"""Rounds come first."""
MOST_FILES = 4096
"""That this process has open: a thousand streams, and room beside them."""


class Speaker(Struct, frozen=True):
    """As whom this process speaks to a broker: a file like operator.toml."""

    fleet: str
    broker: BrokerSettings = BrokerSettings()
    identity: IdentitySettings = IdentitySettings()


class Looking(Struct, frozen=True):
    """What of aggregator.toml is of interest here. The aggregator looks at the rest."""

    fleet: str
    state_dir: FilePath = "aggregator-state"
    broker: BrokerSettings = BrokerSettings()
    identity: ServerIdentity = ServerIdentity()
    observer: ObserverSettings = ObserverSettings()
    web: WebSettings = WebSettings()
    notify: NotifySettings = NotifySettings()
    homeassistant: HomeAssistantSettings = HomeAssistantSettings()


class Thing(Protocol):
    """Something that stands on a lookout: the page, notices, Home Assistant."""

    def start(self) -> None:
        """Begin; it works on threads of its own."""

    def stop(self) -> None:
        """End, within a second or two."""


def read(path: Path, bind: str = "", *, in_container: bool = False) -> Looking:
    """Read aggregator.toml; bind and in_container: as the command line has them. Raises SettingsError."""
    found = load(path, Looking)
    web = with_line(found.web, bind, in_container=in_container)
    if why := why_not(web):
        raise SettingsError(f"{path}: [web] {why}")
    return structs.replace(found, web=web)


def speaker_of(looking: Looking) -> Speaker:
    """Return as whom the broker is spoken to: as [observer] says; else as nobody. Raises SettingsError.

    Never as the aggregator: this process is asked things by strangers.
    """
    if looking.observer.config:
        speaker = load(Path(looking.observer.config), Speaker)
        if speaker.fleet != looking.fleet:
            raise SettingsError(f"{looking.observer.config}: fleet: it is of {speaker.fleet}, not of {looking.fleet}")
        return speaker
    nobody = structs.replace(looking.broker, username=None, password_file=None, certificate_file=None, key_file=None)
    return Speaker(looking.fleet, nobody, IdentitySettings(trust=looking.identity.trust))


class Company:
    """A lookout, and the things that stand on it."""

    def __init__(self, lookout: Lookout, things: Sequence[Thing]) -> None:
        self._lookout, self._things = lookout, things

    def start(self) -> None:
        """Start all of it."""
        self._lookout.start()
        for thing in self._things:
            thing.start()

    def stop(self) -> None:
        """Stop all of it, what was started last first."""
        for thing in reversed(self._things):
            thing.stop()
        self._lookout.stop(1.0)


def things_on(lookout: Lookout, looking: Looking, folder: Path, failed: Callable[[], None]) -> list[Thing]:
    """Return what is asked for by [web], [notify] and [homeassistant]. folder: for files of this process's own.

    Raises SettingsError.
    """
    things: list[Thing] = []
    if looking.web.bind:
        things.append(_page(lookout, looking, folder, failed))
    if looking.notify.webhook or looking.notify.topic:
        from fleet.notices.notifier import Notifier

        things.append(Notifier(lookout, looking.notify, Path(looking.state_dir), _certificates(looking)))
    if looking.homeassistant.prefix or (Path(looking.state_dir) / FILE).exists():
        from fleet.homeassistant.publisher import Publisher

        where, prefix = speaker_of(looking).broker, looking.homeassistant.prefix
        things.append(Publisher(lookout, where, prefix, Path(looking.state_dir), VERSION))
    return things


def only_looks(looking: Looking, speaker: Speaker) -> str:
    """Return why the page cannot act, whoever asks; "" where it can."""
    if not looking.web.users_file:
        return "nobody can log in here: [web] names no users_file"
    if not looking.observer.config:
        return "it speaks to the broker as nobody: config in [observer] names nobody with role operator"
    trust = speaker.identity.read_trust(speaker.fleet)
    if trust is not None and trust.operators and speaker.identity.message_key is None:
        return "this fleet takes signed commands alone, and what config in [observer] names has no message_key"
    return ""


def refuse_keys_of_jobs(looking: Looking, speaker: Speaker) -> None:
    """Raise SettingsError where this process would hold a key whose owner may hand in jobs, or speak for the fleet."""
    key, trust = speaker.identity.read_key(), speaker.identity.read_trust(speaker.fleet)
    if key is None or trust is None:
        return
    if key.public in (key_of(trust.root), *trust.aggregator_keys, *trust.operator_keys.values()):
        raise SettingsError(
            f"{looking.observer.config}: [identity] message_key: its owner may sign jobs, and this process is asked "
            "things by strangers: name an operator.toml without message_key, or of somebody with role steward"
        )


def _certificates(looking: Looking) -> list[str]:
    """Return the files whose end is told: those that are named here, each once."""
    named = (looking.broker.ca_file, looking.broker.certificate_file, looking.web.certificate_file)
    return [*dict.fromkeys(name for name in (*named, *looking.notify.certificate_files) if name)]


def _page(lookout: Lookout, looking: Looking, folder: Path, failed: Callable[[], None]) -> Thing:
    if not page_is_installed():
        raise SettingsError(f"[web] {MISSING_PAGE}")
    from fleet.web import metrics
    from fleet.web.actions import way_in
    from fleet.web.app import app
    from fleet.web.export import Exporter
    from fleet.web.orders import sender
    from fleet.web.premises import Inspector
    from fleet.web.server import WebServer, readable

    web, config = looking.web, Path(looking.observer.config)
    if not looking.observer.config:
        config = folder / "operator.toml"
        config.write_text(written(_plain(speaker_of(looking))), encoding="utf-8")
    certificate = (web.certificate_file, web.key_file) if web.certificate_file else None
    if certificate is not None:
        try:
            readable(*certificate)
        except OSError as error:
            raise SettingsError(f"[web] certificate_file: {error.strerror}") from error
    certificates = {
        "broker": looking.broker.certificate_file,
        "broker_ca": looking.broker.ca_file,
        "web": web.certificate_file,
    }
    inspector = Inspector(Path(looking.state_dir), certificates, looking.identity.registry)
    speaker = speaker_of(looking)
    why, send = only_looks(looking, speaker), sender(speaker.fleet, speaker.broker, speaker.identity)
    forms, inside = way_in(web, why, send) if web.users_file else (lambda _site: (), ())
    made = app(lookout, web, Exporter(config), lambda site: [*metrics.routes(site, inspector), *forms(site)], inside)
    return WebServer(made, web.bind, failed, made.state.hub.close, certificate)


def _plain(speaker: Speaker) -> dict[str, object]:
    return {
        "fleet": speaker.fleet,
        "broker": structs.asdict(speaker.broker),
        "identity": structs.asdict(speaker.identity),
    }


def run(path: Path, bind: str = "", *, in_container: bool = False, parent: int | None = None) -> int:
    """Look on until SIGTERM or SIGINT, or until the parent ends; return the exit code. Raises SettingsError.

    parent: the process that has started this one, where it did so to have it end with it.
    """
    if parent is not None:
        end_with(parent)
    _raise_limit()
    looking = read(path, bind, in_container=in_container)
    if parent is not None and not page_is_installed():  # who has started us has said so
        looking = structs.replace(looking, web=WebSettings())
    speaker = speaker_of(looking)
    refuse_keys_of_jobs(looking, speaker)
    wire = wire_of_operator(speaker.fleet, speaker.identity)
    stopping, failed = threading.Event(), threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        stopping.set()

    def fail() -> None:
        failed.set()
        stopping.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    with tempfile.TemporaryDirectory(prefix="fedge-looks-on-") as folder:
        source = StoreSource(Path(looking.state_dir))
        lookout = lookout_on(speaker.broker, wire, source, software=VERSION)
        company = Company(lookout, things_on(lookout, looking, Path(folder), fail))
        if parent is not None:
            os.nice(NICE)  # once everything is imported: its threads have it from this one
        company.start()
        log.info("looks-on fleet=%s broker=%s:%d", looking.fleet, speaker.broker.host, speaker.broker.port)
        stopping.wait()
        company.stop()
    return 1 if failed.is_set() else 0


def _raise_limit() -> None:
    """Have as many files open as streams may need, where the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft < most:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
