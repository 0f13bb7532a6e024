"""What goes into the coordinator and what comes out of it: plain values, carried out by the service in order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from broker.messages import Offer, Verdict, Version
from models.job import RoundsSpec

# Events: what the coordinator is told.


class DeviceStatus(Struct, frozen=True):
    """A device is there or not, and can take part in this job or says why not.

    live: it has said so itself just now; else it is what the broker has retained. failed: the base that its last
    training failed on, and failure why.
    """

    device: str
    online: bool
    ready: bool
    why: str = ""
    live: bool = True
    failed: Version | None = None
    failure: str = ""
    rows: int = 0
    """About how many examples it has, as it says; 0 where it does not."""
    barred: str = ""
    """Why nothing of it is counted, whatever it says; "" where it may take part."""


class BrokerLost(Struct, frozen=True):
    """The broker is not reachable: nobody can be heard, so that nothing is said by silence."""


class Doubted(Struct, frozen=True):
    """The connection to the broker is a new one: what is known of devices is a hint until they are heard again."""


class VerdictPending(Struct, frozen=True):
    """A collected update is all here, or its refusal is certain: its verdict is being made durable, and `VerdictStored`
    says when it is.
    """

    device: str


class VerdictStored(Struct, frozen=True):
    """The verdict on a collected update is durable."""

    verdict: Verdict


class Committed(Struct, frozen=True):
    """The next version is durable; these are its metrics.

    left: those of the version before it, where more is known of that by now: its devices have scored it.
    """

    version: Version
    metrics: Mapping[str, float]
    left: Mapping[str, float] | None = None


class CommitFailed(Struct, frozen=True):
    """No version can be made of the sum, and the end of the round as stopped is durable: the job ends."""

    reason: str


class NotRestored(Struct, frozen=True):
    """No version can be made of the one that was to be restored; nothing has changed."""

    reason: str


class RollBack(Struct, frozen=True):
    """An operator wants this version to be the next one again. The open round is abandoned, and says `why`."""

    number: int
    why: str


class Pause(Struct, frozen=True):
    """An operator wants no round to open; that is durable. paused: by whom, and since when, in words."""

    paused: str


class Unpause(Struct, frozen=True):
    """An operator wants rounds to open again; that is durable."""


class EndJob(Struct, frozen=True):
    """An operator wants the job to end."""

    reason: str


class Tick(Struct, frozen=True):
    """Nothing has happened but that time has passed: what `tick` stands for in the table of states."""


CoordinatorEvent = (
    DeviceStatus
    | BrokerLost
    | Doubted
    | Offer
    | VerdictPending
    | VerdictStored
    | Committed
    | CommitFailed
    | NotRestored
    | RollBack
    | Pause
    | Unpause
    | EndJob
)


# Effects: what the coordinator wants done.


class Attempt(Struct, frozen=True):
    """A round as it is stored before it is announced. target: updates that end it at once, None: all of the cohort."""

    base: Version
    number: int
    salt: str
    threshold: int
    target: int | None
    cohort: tuple[str, ...]
    seconds: float = 0.0
    """Its deadline, from its opening."""
    absences: dict[str, int] = {}
    """With wait = "all": for each device how many attempts running it has been absent throughout, before this one."""
    shift: int = 0
    """By so many bits the rows of devices are shifted to be their weights: the same in all attempts to leave a base."""


class Open(Struct, frozen=True):
    """Make this attempt durable."""

    attempt: Attempt


class Announce(Struct, frozen=True):
    """Publish the round, retained, with this much time left. first: nobody has heard of this base before."""

    attempt: Attempt
    seconds_left: float
    first: bool = False


class Collect(Struct, frozen=True):
    """Welcome this update: get its body, say `VerdictPending`, judge it, make the verdict durable, then say
    `VerdictStored`.

    weight: of the update in the sum: its examples, or fewer where it is late.
    """

    offer: Offer
    weight: int


class StoreRefusal(Struct, frozen=True):
    """Say `VerdictPending`, make this refusal durable, then say `VerdictStored`."""

    verdict: Verdict


class SendVerdict(Struct, frozen=True):
    """Send this verdict."""

    verdict: Verdict


class Close(Struct, frozen=True):
    """The attempt is over: record it with each device's fate, and clear its topic."""

    attempt: Attempt
    outcome: Literal["committed", "abandoned", "stopped"]
    reason: str
    fates: Mapping[str, str]


class Commit(Struct, frozen=True):
    """Turn the fold into the next version, make it and the end of its round durable in one, then say `Committed`.

    That may take long: other events come meanwhile.
    """

    close: Close


class Restore(Struct, frozen=True):
    """Make the version of this number the next one again, durable, then say `Committed`; or `NotRestored`.

    ends: why the job has finished with it, which is durable with it; "" where it goes on.
    """

    number: int
    ends: str = ""


class Publish(Struct, frozen=True):
    """Publish the current version's bodies and, last, its head."""

    state: Literal["waiting", "running", "finished", "stopped"]
    reason: str


class AskDevices(Struct, frozen=True):
    """Ask devices that have been silent for a sign of life."""

    devices: dict[str, float]
    """Device to when it was heard last; -inf for never."""


class Tell(Struct, frozen=True):
    """Tell operators what the job waits for now: nothing goes on before that has changed."""

    reason: str


Effect = Open | Announce | Collect | StoreRefusal | SendVerdict | Commit | Close | Restore | Publish | AskDevices | Tell


# What it begins with.


class Setup(Struct, frozen=True, kw_only=True):
    """What a coordinator is made from: the settings of its job, and what is stored of it."""

    rules: RoundsSpec
    seed: int
    max_examples: int | None = None
    """What a device may claim to have trained on, where the job says so: who claims more is refused."""
    max_body_bytes: int = 2**40
    """The largest body that an update of this job can have."""
    stated_rows: Mapping[str, int] | None = None
    """The rows of each device as its operator stated them: what it claims beyond them counts for nothing."""
    advice: str = ""
    """What to do where training takes steps that are far too long."""
    heartbeat_s: float = 10.0
    """From the announcement of a round to its first repetition."""
    hint_s: float = 7.0
    """How long devices may take to answer a roll call."""

    base: Version
    """The current version."""
    untrained: int | None = None
    """Number of a base that devices do not train on, but agree at: how long they take says nothing of later ones."""
    verdicts: Sequence[Verdict] = ()
    """The last verdict of every device, for the job's life."""
    counted: Sequence[str] | None = None
    """Devices in the sum that will make the next version; when not given, those whose last verdict is on the base."""
    attempt: Attempt | None = None
    """The round to resume, with the whole of its time."""
    last: Attempt | None = None
    """The last round that tried to leave this base."""
    left: Mapping[Version, Attempt] = {}
    """The last rounds of the bases before it."""
    renames: Mapping[Version, Version] = {}
    """Former names of versions to their present ones."""
    history: Sequence[Mapping[str, float]] = ({},)
    """The metrics of every version so far, version 0 first."""
    classes: Sequence[str] = ()
    """What the job calls its classes, for words."""
    ended: Literal["", "finished", "stopped"] = ""
    """Why the job is over, if it is."""
    paused: str = ""
    """By whom the job is paused, and since when, in words; "" where it is not."""
    serves_best: bool = True
    """Whether a job that ends by its patience makes its best version the last one again."""
