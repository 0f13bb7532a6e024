"""What an operator asks of a running fleet, over MQTT like everybody else: submit, list, show, stop, resume, pause.

What has to do with the numbers of a version, and takes NumPy, is in versions.py.

A command is sent again until it is answered, and the aggregator does it once: one that comes while it starts, or that
the broker has dropped, is not lost. What comes back is cleaned before it is shown, whoever said it.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs

from broker.connection import BrokerSettings
from broker.messages import (
    Beacon,
    Body,
    Command,
    Delete,
    Explain,
    Job,
    Jobs,
    Message,
    Pause,
    Presence,
    Query,
    Reply,
    Resume,
    RollBack,
    Show,
    Status,
    Stop,
    Submit,
    ToWhatIsThere,
    Upload,
)
from broker.operator_seal import OperatorSeal
from broker.transport import Denied, Offline, SessionTakenOver
from broker.wire import Wire
from edge_agent.bases import Fetching
from edge_agent.fetch import Fetch
from edge_agent.workspace import Subscribe
from fleet.console import int8
from fleet.console.by_devices import ByDevices
from fleet.console.int8 import InInt8, OfFleet
from fleet.console.observer import Garbage, Said, over_mqtt
from fleet.identity import wire_of_operator
from identity.settings import IdentitySettings
from models.job import JobSpec, Name
from models.params import Params
from runtime.settings import SettingsError, convert, load
from runtime.words import clean

PATIENCE_S = 15.0
"""How long a broker or an aggregator may take to answer."""
RESEND_S = 2.0
"""A command that has not been answered is sent again after this long."""
PIECE_BYTES = 24_576
"""Of weights that are sent, in one command: a third more in base64, and the smallest broker known takes 64 kB."""
QUIET_S = 0.4
"""Retained messages are all here when no more has come for this long; a busy fleet is never quiet otherwise."""


class OperatorError(RuntimeError):
    """What was asked could not be done; the message says why."""


class DeniedError(OperatorError):
    """The broker lets this user not write, or not hear, a topic."""


class RefusedError(OperatorError):
    """The aggregator has answered that it cannot be done; the message is its own."""


class UnansweredError(OperatorError):
    """The broker or the aggregator is away: what was asked may be answered later."""


class OperatorConfig(Struct, frozen=True):
    """What of aggregator.toml, or of a file of the operator's own, is needed to speak to a fleet."""

    fleet: Name
    broker: BrokerSettings = BrokerSettings()
    identity: IdentitySettings = IdentitySettings()


class JobLine(Struct, frozen=True):
    """One job as `fedge job list` shows it."""

    name: str
    job: str
    state: str
    version: str
    metrics: dict[str, float] = {}
    devices_online: int = 0
    devices_ready: int = 0
    reason: str = ""
    """Why it has ended, or rests."""
    waits_for: str = ""
    """What has to come before it goes on; empty when it has ended."""
    ends: str = ""
    """What would end the wait."""
    notes: list[str] = []
    """What will never come of it as it is set up, and what the broker refuses of it."""


class JobList(Struct, frozen=True):
    """Every job there is."""

    jobs: list[JobLine]


class DeviceLine(Struct, frozen=True):
    """How a device stands to a job. since_s: seconds since it went offline, if that is known."""

    device: str
    state: str
    why: str = ""
    since_s: float | None = None
    examples: int | None = None
    trouble: str = ""
    """What goes wrong though it takes part."""
    alarm: str = ""
    """What an operator should look at: two devices under one id."""
    int8: InInt8 | None = None
    """What it has said last of its model in int8; None where the job wants none, or it has said nothing."""


class VersionScores(Struct, frozen=True):
    """What was measured of one version. confusion: a row for each class, of how many were answered which, last none."""

    number: int
    measures: dict[str, float] = {}
    confusion: list[list[int]] = []


class Scores(Struct, frozen=True):
    """What was measured of the current version, and of the best by the job's rule to stop."""

    classes: list[str]
    """Their names; none where the job does not say them."""
    current: VersionScores
    best: VersionScores


class JobDetails(Struct, frozen=True):
    """All there is to know of one job."""

    job: JobLine
    devices: list[DeviceLine]
    scores: Scores | None = None
    """None where the aggregator does not say them: the job is at rest, or an older one answers."""
    federated: ByDevices | None = None
    """The last version that its devices have scored, and how."""
    int8: OfFleet | None = None
    """What has come of int8 on all devices; None where none has said anything of it."""


class RoundLine(Struct, frozen=True):
    """One attempt to make a version, as `fedge round explain` shows it."""

    attempt: int
    base: str
    outcome: str
    reason: str
    opened: str
    closed: str | None
    target: int | None
    fates: dict[str, str]


class Rounds(Struct, frozen=True):
    """Every attempt to make a version."""

    rounds: list[RoundLine]


class Console:
    """A connection of an operator. called: what its client id begins with, which the aggregator's words may name."""

    def __init__(self, config: OperatorConfig, called: str = "operator") -> None:
        self.fleet = config.fleet
        self._where = f"{config.broker.host}:{config.broker.port}"
        wire = wire_of_operator(config.fleet, config.identity)
        self._observer = over_mqtt(called, config.broker, wire)
        self._seal = wire.seal if isinstance(wire.seal, OperatorSeal) and wire.seal.signs else None
        """What signs commands; None where nobody does."""
        self._only_looks = isinstance(wire.seal, OperatorSeal) and wire.seal.only_looks
        self._is_steward = isinstance(wire.seal, OperatorSeal) and wire.seal.is_steward
        self.client = self._observer.client
        self._asks_by_query = True

    def __enter__(self) -> Console:
        """Connect. Raises UnansweredError when the broker does not answer in time."""
        self._observer.listen_for_replies()
        if self._seal is not None:
            self._observer.listen("aggregator")  # a command names the life of the aggregator that it is said to
        self._observer.__enter__()
        if why := self._observer.connect(PATIENCE_S):
            self._observer.__exit__()
            raise UnansweredError(f"the broker at {self._where} cannot be reached: {why}")
        return self

    def __exit__(self, *_: object) -> None:
        """Say goodbye."""
        self._observer.__exit__()

    def gather(self, *words: str) -> list[Message]:
        """Return what is retained under these words of the topic table."""
        self._observer.listen(*words)
        return list(self._messages(QUIET_S))

    def ask(self, command: Command) -> Reply:
        """Send a command until it is answered, and return the answer.

        Raises RefusedError when the aggregator refuses it, UnansweredError when it is silent, DeniedError when the
        broker refuses it, and SettingsError where it would have to be signed and there is no key.
        """
        if self._only_looks and not isinstance(command, Query):
            raise SettingsError(
                "[identity]: there is no message_key, and this fleet takes signed commands alone: observers may only "
                "look; name the operator.toml of an operator with --config"
            )
        if self._is_steward and not isinstance(command, ToWhatIsThere | Query):
            raise SettingsError(
                "[identity] message_key: it is a steward's, who commands what is there and neither hands in nor "
                "deletes jobs: name the operator.toml of an operator with --config"
            )
        until, denials = time.monotonic() + PATIENCE_S, set()
        if self._seal is not None and not self._seal.leader:
            for _ in self._messages(PATIENCE_S, until=lambda _: self._seal is None or self._seal.leader != ""):
                pass
        while (left := until - time.monotonic()) > 0:
            if self._seal is None or self._seal.leader:
                self._say(command)
            try:
                for message in self._messages(min(RESEND_S, left), until=lambda m: _answers(m, command)):
                    if isinstance(message, Reply) and _answers(message, command):
                        if message.ok:
                            return message
                        raise RefusedError(message.text)
            except DeniedError as error:
                if not isinstance(command, Query):
                    hint = "observers may only look, it takes the certificate or password of an operator"
                    raise DeniedError(f"{error}; {hint}") from error
                denials.add(str(error))
                if len(denials) == 2:
                    raise DeniedError(
                        f"{error}; name the operator.toml of an observer or operator with --config"
                    ) from error
            self._asks_by_query = not self._asks_by_query
        busy = ", and not ended or kept busy by this job's own code" * isinstance(command, Submit)
        if isinstance(command, Stop | RollBack):
            busy = ", or evaluating a version of this job, after which it is done: look at `fedge job list`"
        raise UnansweredError(f"no aggregator of fleet {self.fleet} answers at {self._where}: is it running{busy}?")

    def _say(self, command: Command) -> None:
        """Send a command. One that only looks goes where an observer may send it.

        An older aggregator does not listen there, or the broker's access list does not know it: then, in turn, it is
        sent like any other command, and where one was answered is where the next is sent.
        """
        if isinstance(command, Query) and self._asks_by_query:
            self._observer.ask(command)
        else:
            self._observer.say(command)

    def sign(self, command: Submit, name: str) -> Submit:
        """Return a job that is submitted as one of this operator's: under an id that is drawn here, and signed."""
        return command if self._seal is None else self._seal.signed(command, name, secrets.token_hex(4))

    @property
    def wire(self) -> Wire:
        """What says the topics of its fleet."""
        return self._observer.wire

    def upload(self, weights: bytes, called: str = "upload") -> str:
        """Send weights that a job is to start from, and return what they are called there. Raises OperatorError.

        called: "base" where they begin with what is frozen of its net.
        """
        digest, at = hashlib.sha256(weights).hexdigest()[:32], 0
        while at < len(weights):
            piece = base64.b64encode(weights[at : at + PIECE_BYTES]).decode()
            upload = Upload(self.client, secrets.token_hex(4), digest, len(weights), at, piece)
            here = self.ask(upload).text
            if not (here.isascii() and here.isdigit() and at < int(here) <= len(weights)):
                raise OperatorError(f"the aggregator has not taken the weights: {here[:100]}")
            at = int(here)
        return f"{called}:{digest}"

    def pages(self, command: Query) -> Iterator[dict[str, Any]]:
        """Ask page after page, and give what is on each, fit for a screen. Raises OperatorError."""
        return map(_cleaned, self.raw_pages(command))

    def raw_pages(self, command: Query) -> Iterator[dict[str, Any]]:
        """Ask page after page, and give what is on each as it came: for what is read, and not shown. Raises
        OperatorError.
        """
        after = command.after
        while True:
            reply = self.ask(structs.replace(command, request=secrets.token_hex(4), after=after))
            yield reply.data
            if not reply.more or reply.more == after:
                return
            after = reply.more

    def fetch(self, fetch: Fetch) -> None:
        """Get the bodies of a version. Raises OperatorError when they do not come."""
        self._observer.subscribe(*fetch.filters(self._observer.wire))
        for message in self._messages(PATIENCE_S, until=lambda _: fetch.done):
            if isinstance(message, Body):
                fetch.add(message)
            if fetch.done:
                return
        if not fetch.done:
            raise OperatorError("the bodies of this version are not at the broker: is the aggregator running?")

    def fetch_base(self, fetching: Fetching) -> Params:
        """Get what is frozen of a job's net. Raises OperatorError when it does not come, FrozenError."""
        asked = fetching.ask()
        while True:
            self._observer.subscribe(*(name for one in asked if isinstance(one, Subscribe) for name in one.filters))
            asked = []
            for message in self._messages(PATIENCE_S):
                asked = fetching.take(message) if isinstance(message, Body) else []
                if fetching.is_done:
                    return fetching.tensors()
                if any(isinstance(one, Subscribe) for one in asked):
                    break
            else:
                raise OperatorError("what is frozen of its net is not at the broker: is the aggregator running?")

    def _messages(self, quiet_s: float, until: Callable[[Message], bool] = lambda _: False) -> Iterator[Message]:
        """Return messages until nothing retained has come for quiet_s, or this one was the last wanted."""
        ends_at = time.monotonic() + quiet_s
        while (left := ends_at - time.monotonic()) > 0 and (heard := self._observer.take(left)) is not None:
            match heard:
                case Said(_, retained) | Garbage(_, _, retained):
                    if retained:
                        ends_at = time.monotonic() + quiet_s
                    if isinstance(heard, Said):
                        yield heard.message
                        if until(heard.message):
                            return
                case Denied(topic, reason):
                    raise DeniedError(f"the broker refuses {topic}: {reason}")
                case Offline(reason):
                    raise UnansweredError(f"the connection to {self._where} was lost: {reason}")
                case SessionTakenOver():
                    raise OperatorError(
                        "another command was started under the same name, and the broker ended this one"
                    )


def load_job(path: Path) -> JobSpec:
    """Read job.toml. Raises SettingsError."""
    return load(path, JobSpec)


def submit(
    config: OperatorConfig, path: Path, start: str = "", weights: bytes = b"", base: str = ""
) -> tuple[str, list[str]]:
    """Start the job of a file; return its id, and what can be said of it already.

    start: the version that it starts from, JOB or JOB@VERSION. weights: those that it starts from, as a body that says
    them exactly. base: SHA-256 of what is frozen of its net, where the weights begin with that. Raises SettingsError or
    OperatorError.
    """
    spec = load_job(path)
    tree = tomllib.loads(path.read_text(encoding="utf-8"))
    if base:
        tree.setdefault("train", {})["base"] = base
    with Console(config) as fleet:
        if weights:
            start = fleet.upload(weights, "base" if base else "upload")
        command = structs.replace(Submit(fleet.client, secrets.token_hex(4), tree), start=start)
        reply = fleet.ask(fleet.sign(command, spec.name))
    return reply.text, [str(note) for note in _cleaned(reply.data).get("notes", [])]


def stop(config: OperatorConfig, name: str) -> str:
    """Stop the job of this name, at work or at rest. Raises OperatorError."""
    with Console(config) as fleet:
        return fleet.ask(Stop(fleet.client, secrets.token_hex(4), name)).text


def resume(config: OperatorConfig, name: str) -> str:
    """Try the job of this name again, which is at rest. Raises OperatorError."""
    with Console(config) as fleet:
        return fleet.ask(Resume(fleet.client, secrets.token_hex(4), name)).text


def pause(config: OperatorConfig, name: str) -> str:
    """Let no round of the job of this name open until it is resumed. Raises OperatorError."""
    with Console(config) as fleet:
        return fleet.ask(Pause(fleet.client, secrets.token_hex(4), name)).text


def roll_back(config: OperatorConfig, name: str, version: str) -> str:
    """Make an older version of the job the next one: its number, or "best". Raises OperatorError."""
    with Console(config) as fleet:
        return fleet.ask(RollBack(fleet.client, secrets.token_hex(4), name, version)).text


def delete(config: OperatorConfig, name: str) -> str:
    """Forget the job of this name, or id, which has ended or was replaced. Raises OperatorError."""
    with Console(config) as fleet:
        return fleet.ask(Delete(fleet.client, secrets.token_hex(4), name)).text


def explain(config: OperatorConfig, name: str, number: int, device: str | None = None) -> Iterator[RoundLine]:
    """Return every attempt to make a version, how it ended, and why each device was or was not counted.

    An attempt of very many devices comes in several lines of the same number. device: of this one alone.
    Raises OperatorError.
    """
    with Console(config) as fleet:
        yield from rounds_of(fleet, name, number, device)


def rounds_of(fleet: Console, name: str, number: int, device: str | None = None) -> Iterator[RoundLine]:
    """Return the same over a connection that stands. Raises OperatorError."""
    for page in fleet.pages(Explain(fleet.client, "", name, number, device)):
        yield from convert(page, Rounds, "the aggregator's answer").rounds


def whole(lines: Iterable[RoundLine]) -> list[RoundLine]:
    """Put the lines of one attempt together."""
    found: dict[int, RoundLine] = {}
    for line in lines:
        before = found.get(line.attempt)
        found[line.attempt] = structs.replace(line, fates=before.fates | line.fates) if before else line
    return list(found.values())


def show(config: OperatorConfig, name: str) -> JobDetails:
    """Return all there is to know of one job. Raises OperatorError."""
    with Console(config) as fleet:
        pages = [
            convert(page, JobDetails, "the aggregator's answer") for page in fleet.pages(Show(fleet.client, "", name))
        ]
    devices = [device for page in pages for device in page.devices]
    return JobDetails(
        pages[0].job, devices, pages[0].scores, pages[0].federated, int8.of_fleet(d.int8 for d in devices)
    )


def jobs(config: OperatorConfig, *, past: bool = False) -> list[JobLine]:
    """Return every job there is: as the aggregator knows it, or as the broker remembers. Raises OperatorError.

    past: also those that another of their name has replaced, which the broker does not remember.
    """
    with Console(config) as fleet:
        why = f"no aggregator leads fleet {config.fleet}: is it running?"
        if any(isinstance(m, Beacon) and m.online for m in fleet.gather("aggregator")):
            try:
                pages = list(fleet.pages(Jobs(fleet.client, "", past=past)))
            except OperatorError as error:
                why = str(error)
            else:
                return [line for page in pages for line in convert(page, JobList, "the aggregator's answer").jobs]
        return _remembered(fleet.gather("job", "status", "round", "device"), why)


def _remembered(messages: list[Message], why: str) -> list[JobLine]:
    """Return the jobs as they lie at the broker, while no aggregator answers."""
    statuses = {m.job: m for m in messages if isinstance(m, Status)}
    devices = [m for m in messages if isinstance(m, Presence) and m.online]
    lines = []
    for job in (m for m in messages if isinstance(m, Job) and m.spec is not None):
        status = statuses.get(job.job)
        over = status is not None and status.state in ("finished", "stopped")
        lines.append(
            JobLine(
                name=str((job.spec or {}).get("name", "")),
                job=job.job,
                state=status.state if status is not None and over else "no aggregator",
                version=str(status.version) if status else "",
                metrics=status.metrics if status else {},
                devices_online=len(devices),
                devices_ready=sum(job.job in device.ready for device in devices),
                reason=status.reason if status else "",
                waits_for="" if over else why,
                ends="" if over else "an aggregator that is started",
            )
        )
    return sorted(lines, key=lambda line: line.job)


def load_config(path: Path) -> OperatorConfig:
    """Read who and where the fleet is. Raises SettingsError."""
    if not path.exists():
        raise SettingsError(f"{path}: there is no such file: name the aggregator.toml of the fleet with --config")
    return load(path, OperatorConfig)


def _answers(message: Message, command: Command) -> bool:
    return isinstance(message, Reply) and message.request == command.request


def _cleaned(data: Any) -> Any:
    """Make whatever is in an answer fit for a screen."""
    match data:
        case str():
            return clean(data)
        case dict():
            return {clean(str(key)): _cleaned(value) for key, value in data.items()}
        case list():
            return [_cleaned(value) for value in data]
    return data


def as_json(answer: Struct) -> str:
    """Return an answer as JSON for scripts."""
    return msgspec.json.format(msgspec.json.encode(answer)).decode()
