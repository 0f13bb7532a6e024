"""The two roles as processes: what `fedge aggregator run` and `fedge agent run` do until they are asked to stop."""

from __future__ import annotations

import logging
import secrets
import signal
import socket
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from aggregator.config import AggregatorConfig
from broker.client import MqttTransport
from broker.settings import SettingsError, load
from broker.transport import Transport
from edge_agent import notify
from edge_agent.config import AgentConfig

log = logging.getLogger(__name__)


def load_agent(path: Path) -> AgentConfig:
    """Read agent.toml and look at everything it names. Raises SettingsError."""
    config = load(path, AgentConfig)
    for name, source in config.data.items():
        _check_file(path, f"[data.{name}] path", source.path)
    _check_secrets(path, config.broker.password_file, config.broker.ca_file)
    if not _is_id(device_name(config)):
        raise SettingsError(
            f'{path}: device: this host is called "{socket.gethostname()}": set a name of letters, digits, _ -'
        )
    return config


def device_name(config: AgentConfig) -> str:
    """Give the device's id: as configured, else the host's name."""
    return config.device or socket.gethostname().partition(".")[0]


def run_agent(config: AgentConfig) -> None:
    """Run until SIGTERM or SIGINT. Raises OSError when the state directory fails, ClonedError on a clash of names."""
    from edge_agent.service import Agent, count_boot, will

    device, boot = device_name(config), count_boot(Path(config.state_dir))
    transport = MqttTransport(config.broker, f"{config.fleet}-{device}", will(config.fleet, device, boot))
    agent = Agent(config, device, boot, transport, software=f"fedge {version('fedge')}")
    stopping = _until_stopped(transport)
    log.info(
        "agent fleet=%s device=%s boot=%d broker=%s:%d",
        config.fleet,
        device,
        boot,
        config.broker.host,
        config.broker.port,
    )
    agent.start()
    notify.ready(agent.doing)
    try:
        _loop(agent.step, stopping, lambda: agent.doing)
    finally:
        notify.stopping()
        agent.stop()


def _loop(step: Callable[[float], bool], stopping: Callable[[], bool], doing: Callable[[], str]) -> None:
    """Step until asked to stop; feed the watchdog from the loop that does the work."""
    interval_s = notify.watchdog_interval_s() or 10.0
    told_at, told = 0.0, ""
    while not stopping():
        step(min(1.0, interval_s))
        if time.monotonic() - told_at >= interval_s:
            told_at = time.monotonic()
            notify.alive()
            if (now := doing()) != told:
                told = now
                notify.status(now)


def load_aggregator(path: Path) -> AggregatorConfig:
    """Read aggregator.toml and look at everything it names. Raises SettingsError."""
    config = load(path, AggregatorConfig)
    for name, source in config.tests.items():
        _check_file(path, f"[tests.{name}] path", source.path)
    _check_secrets(path, config.broker.password_file, config.broker.ca_file)
    return config


def run_aggregator(config: AggregatorConfig, take_over: bool = False) -> None:
    """Run until SIGTERM or SIGINT. Raises StoreError when the state directory fails, ReplacedError on a clash."""
    from aggregator.service import TAKE_OVER, Aggregator, will
    from aggregator.store import Store

    store = Store(Path(config.state_dir))
    term, nonce = store.raise_term(TAKE_OVER if take_over else 0), secrets.token_hex(4)
    transport = MqttTransport(config.broker, f"{config.fleet}-aggregator-{nonce}", will(config.fleet, term, nonce))
    aggregator = Aggregator(config, store, transport, term=term, nonce=nonce)
    stopping = _until_stopped(transport)
    log.info("aggregator fleet=%s term=%d broker=%s:%d", config.fleet, term, config.broker.host, config.broker.port)
    aggregator.start()
    notify.ready("connecting")
    try:
        _loop(aggregator.step, stopping, lambda: aggregator.doing)
    finally:
        notify.stopping()
        aggregator.stop()
        store.close()


def _until_stopped(transport: Transport) -> Callable[[], bool]:
    """Give a function that tells whether SIGTERM or SIGINT has come."""
    asked = False

    def ask(_signum: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        transport.wake()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    return lambda: asked


def _check_file(config: Path, key: str, name: str) -> None:
    path = Path(name)
    if not path.is_file():
        raise SettingsError(f"{config}: {key}: there is no file {path} (seen from {Path.cwd()})")


def _check_secrets(config: Path, *names: str | None) -> None:
    for name in names:
        if name is not None:
            try:
                Path(name).read_bytes()
            except OSError as error:
                raise SettingsError(f"{config}: [broker]: {name} cannot be read: {error.strerror}") from error


def _is_id(name: str) -> bool:
    return 0 < len(name) <= 64 and all(c.isascii() and (c.isalnum() or c in "-_") for c in name)
