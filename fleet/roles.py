"""The two roles as processes: what `fedge aggregator run` and `fedge agent run` do until they are asked to stop.

What one of them alone stands on is imported where that begins: an agent holds nothing of the aggregator's.
"""

from __future__ import annotations

import datetime as dt
import gc
import logging
import os
import re
import secrets
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from msgspec import structs

from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.mailbox import ClientLimits
from broker.transport import Transport
from edge_agent import notify
from edge_agent.config import AgentConfig
from edge_agent.live.refusal import same_as_written
from edge_agent.live.settings import live_sources
from fleet.concerns import Daily, concerns, list_concerns
from fleet.identity import wire_of_aggregator, wire_of_device
from models.data import table
from models.data.dataset import DatasetError
from models.data.source import DataSource
from runtime.settings import SettingsError, load
from runtime.software import VERSION

if TYPE_CHECKING:
    from aggregator.config import AggregatorConfig
    from broker.wire import Wire
    from edge_agent.live.listeners import Live
    from edge_agent.renewal import Renewal
    from fleet.sight.companion import Companion

log = logging.getLogger(__name__)

_URI = re.compile(r"(pkcs11|engine|tpm2?|handle|provider):")
AGAIN_S = 1.0
"""A signal that comes so soon after the first is the same request: Ctrl-C reaches a whole group of processes."""


def load_agent(path: Path) -> AgentConfig:
    """Read agent.toml and look at everything it names. Raises SettingsError."""
    config = load(path, AgentConfig)
    for name, source in config.data.items():
        _check_data(path, f"[data.{name}] path", source)
    _check_broker(path, config.broker)
    for live in live_sources(config.data):
        _check_broker(path, live.mqtt, f"[data.{live.name}.mqtt]")
        if why := same_as_written(live.mqtt, config.broker):
            raise SettingsError(f"{path}: [data.{live.name}.mqtt]: {why}")
    if not _is_id(device_name(config)):
        raise SettingsError(
            f'{path}: device: this host is called "{socket.gethostname()}": set a name of letters, digits, _ -'
        )
    return config


def device_name(config: AgentConfig) -> str:
    """Return the device's id: as configured, else the host's name."""
    return config.device or socket.gethostname().partition(".")[0]


def run_agent(config: AgentConfig) -> None:
    """Run until SIGTERM or SIGINT.

    Raises SettingsError when the state directory is another device's, HomeError when another agent has it, OSError when
    it fails, ClonedError on a clash of names.
    """
    from edge_agent.capacity import capacity_of
    from edge_agent.home import ForeignHomeError, Home
    from edge_agent.reading import threads
    from edge_agent.service import Agent, will

    try:
        home = Home(Path(config.state_dir), device_name(config))
    except ForeignHomeError as error:
        raise SettingsError(str(error)) from error
    capacity = capacity_of(config)
    wire = wire_of_device(config.fleet, home.device, config.identity)
    transport = MqttTransport(config.broker, f"{config.fleet}-{home.device}", will(wire, home))
    agent = Agent(
        *(config, home, transport, wire),
        software=f"fedge {VERSION}",
        start_reading=threads(transport.wake),
        capacity=capacity,
        renewal=_renewal(config, home.device, transport),
        live=_live(config, home.device, wire),
    )
    stopping = _until_stopped(transport)
    log.info(
        "agent fleet=%s device=%s incarnation=%s boot=%d nonce=%s broker=%s:%d",
        *(config.fleet, home.device, home.incarnation, home.boot, home.nonce),
        *(config.broker.host, config.broker.port),
    )
    log.info("budget %s", capacity.budget)
    _miss("data", {name: source for name, source in config.data.items() if source.mqtt is None})
    secrets_of_sites = [live.mqtt.password_file for live in live_sources(config.data)]
    daily = Daily(lambda: concerns(config.broker, config.state_dir, *secrets_of_sites))
    agent.start()
    notify.ready(agent.doing)
    try:
        _loop(agent.step, stopping, lambda: agent.doing, daily)
    finally:
        notify.stopping()
        agent.stop()
        home.close()


def _renewal(config: AgentConfig, device: str, transport: Transport) -> Renewal | None:
    """Return what renews the device's certificate, where it lies in a folder that enrolling has made."""
    file = config.broker.certificate_file
    if file is None or not (Path(file).parent / "manifest.json").is_file():
        return None
    from edge_agent.renewal import Renewal

    return Renewal(Path(file).parent.absolute(), config.fleet, device, transport, clock=time.monotonic)


def _live(config: AgentConfig, device: str, wire: Wire) -> Live | None:
    """Return what listens to the live sources of a device, where it has any."""
    sources = live_sources(config.data)
    if not sources:
        return None
    from edge_agent.live.listeners import Listeners

    def connect(broker: BrokerSettings, client_id: str, limits: ClientLimits) -> Transport:
        return MqttTransport(broker, client_id, limits=limits)

    return Listeners(sources, wire, device, config.broker, connect)


def _loop(
    step: Callable[[float], bool],
    stopping: Callable[[], bool],
    doing: Callable[[], str],
    daily: Daily,
    beside: Callable[[], None] = lambda: None,
) -> None:
    """Step until asked to stop; feed the watchdog from the loop that does the work. beside: called after each step."""
    interval_s = notify.watchdog_interval_s() or 10.0
    told_at, told = 0.0, ""
    gc.collect()
    gc.freeze()  # what was imported stays, and is not gone through again with every large collection
    while not stopping():
        step(min(1.0, interval_s))
        beside()
        if time.monotonic() - told_at >= interval_s:
            told_at = time.monotonic()
            notify.alive()
            daily.tick()
            if (now := doing()) != told:
                told = now
                notify.status(now)


def load_aggregator(path: Path, bind: str = "", *, in_container: bool = False) -> AggregatorConfig:
    """Read aggregator.toml and look at everything it names. Raises SettingsError.

    bind, in_container: of [web], where the command line says it.
    """
    from aggregator.config import AggregatorConfig
    from aggregator.looking_on import why_not, with_line

    config = load(path, AggregatorConfig)
    config = structs.replace(config, web=with_line(config.web, bind, in_container=in_container))
    if why := why_not(config.web):
        raise SettingsError(f"{path}: [web] {why}")
    for name, source in config.tests.items():
        _check_data(path, f"[tests.{name}] path", source)
    _check_broker(path, config.broker)
    return config


def companion_of_aggregator(config: AggregatorConfig, path: Path) -> Companion | None:
    """Return who is to look on beside an aggregator, if anybody; say where a page is asked for and cannot be served."""
    from aggregator.looking_on import MISSING_PAGE, page_is_installed
    from fleet.sight.companion import companion_of

    is_installed = page_is_installed()
    if config.web.bind and not is_installed:
        log.error("[web] %s", MISSING_PAGE)
    return companion_of(config, path, is_installed=is_installed)


def run_aggregator(
    config: AggregatorConfig,
    *,
    take_over: bool = False,
    exit_when_replaced: bool = False,
    companion: Companion | None = None,
) -> None:
    """Run until SIGTERM or SIGINT, leading or standing by. companion: who looks on beside it.

    Raises StoreError when the state directory fails, ReplacedError when another aggregator leads and this one was asked
    to exit then.
    """
    from aggregator.capacity import capacity_of
    from aggregator.counters import CountersFile, totals_of
    from aggregator.executor import of_kind
    from aggregator.service import Aggregator
    from aggregator.store import Store
    from aggregator.takeover import Takeover
    from broker.occupant import Occupant

    wire = wire_of_aggregator(config.fleet, config.identity)
    store = Store(Path(config.state_dir))
    nonce = secrets.token_hex(4)
    # The client id is drawn apart: who reads the nonce in the beacon must not know under which id to connect.
    transport = MqttTransport(config.broker, f"{config.fleet}-aggregator-{secrets.token_hex(4)}")
    executor, capacity = of_kind(config.executor), capacity_of(config)
    aggregator = Aggregator(
        *(config, store, transport, wire),
        nonce=nonce,
        take_over=take_over,
        exit_when_replaced=exit_when_replaced,
        executor=executor,
        cutter=Takeover(lambda client_id: Occupant(config.broker, client_id), transport.wake),
        capacity=capacity,
    )
    stopping = _until_stopped(transport)
    log.info(
        "aggregator fleet=%s store=%s nonce=%s broker=%s:%d",
        *(config.fleet, store.identity, nonce, config.broker.host, config.broker.port),
    )
    log.info("budget %s", capacity.budget)
    _miss("tests", config.tests)
    daily = Daily(lambda: aggregator_concerns(config))
    aggregator.start()
    notify.ready("connecting")
    started = time.time()
    counters = CountersFile(store.folder, lambda: totals_of(started, transport.counters, store.events, store.counting))

    def beside() -> None:
        counters.tick()
        if companion is not None:
            companion.tick()

    try:
        _loop(aggregator.step, stopping, lambda: aggregator.doing, daily, beside)
    finally:
        notify.stopping()
        aggregator.stop()
        if companion is not None:
            companion.stop()
        executor.shutdown(wait=False, cancel_futures=True)
        store.close()


def aggregator_concerns(config: AggregatorConfig) -> list[str]:
    """Return what an operator should know about an aggregator's certificate, files and list of the revoked."""
    from identity.registry import RegistryError, read_registry

    found = concerns(config.broker, config.state_dir)
    if config.identity.registry is None:
        return found
    try:
        return found + list_concerns(read_registry(config.identity.registry, config.fleet), dt.datetime.now(dt.UTC))
    except RegistryError as error:
        return [*found, str(error)]


def _until_stopped(transport: Transport) -> Callable[[], bool]:
    """Return a function that tells whether SIGTERM or SIGINT has come.

    SIGINT too where we were started with it ignored (`&` in a script): who sends it to a service means it. Who sends
    either once more, AGAIN_S later, does not want to wait for what goes on now: nothing durable is lost by that.
    """
    asked_at: float | None = None

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal asked_at
        if asked_at is not None and time.monotonic() > asked_at + AGAIN_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        asked_at = asked_at or time.monotonic()
        transport.wake()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    return lambda: asked_at is not None


def _check_data(config: Path, key: str, source: DataSource) -> None:
    try:
        table.known(source)
    except DatasetError as error:
        raise SettingsError(f"{config}: {key}: {error}") from error


def _miss(table: str, sources: Mapping[str, DataSource]) -> None:
    """Say which files are not there. The jobs on them wait, or rest, with the reason, and the others go on."""
    for name, source in sources.items():
        if not os.path.isfile(source.path):  # noqa: PTH113 -- Path.is_file throws for a name that is too long
            log.error("[%s.%s] path: there is no file %s (seen from %s)", table, name, source.path, Path.cwd())


def _check_broker(config: Path, broker: BrokerSettings, table: str = "[broker]") -> None:
    """Raise SettingsError for files that cannot be read, and for keys that would be passed over without another."""
    if broker.key_file is not None and _URI.match(broker.key_file):
        raise SettingsError(
            f"{config}: {table} key_file: {broker.key_file} is a URI, and Python's TLS opens files alone: name the "
            "PEM file by which OpenSSL's provider for a TPM or token knows it (deploy/README.md, With certificates)"
        )
    for name in (broker.password_file, broker.ca_file, broker.certificate_file, broker.key_file):
        if name is not None:
            try:
                Path(name).read_bytes()
            except OSError as error:
                raise SettingsError(f"{config}: {table}: {name} cannot be read: {error.strerror}") from error
    if broker.password_file is not None and broker.username is None:
        raise SettingsError(f"{config}: {table} password_file: no password is sent without a username")
    if broker.certificate_file is not None and broker.ca_file is None:
        raise SettingsError(f"{config}: {table} certificate_file: without a ca_file the connection is not encrypted")
    if broker.key_file is not None and broker.certificate_file is None:
        raise SettingsError(f"{config}: {table} key_file: a key is of no use without its certificate_file")
    try:
        broker.host.encode("idna")
    except UnicodeError as error:
        raise SettingsError(f"{config}: {table} host: {broker.host} is no name of a host: {error}") from error


def _is_id(name: str) -> bool:
    return 0 < len(name) <= 64 and all(c.isascii() and (c.isalnum() or c in "-_") for c in name)
