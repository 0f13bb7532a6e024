"""The fleet as it looks from outside: takes what is said and what is stored, gives views. Pure; nothing here raises.

    hear(message) ──▶ known.py   a device ──┐
                  ──▶ course.py  a job    ──┼──▶ view(now) ──▶ View
    read(facts)   ──▶ the same            ──┘

1. Whatever comes, in whatever order, by whoever: it changes how one device or one job looks, or nothing.
2. What has not changed since the last view is the same object in the next one; where nothing has, the view is.
3. A view renews AT_ONCE devices at most, those first that have waited longest: where a whole large fleet has changed at
   once it takes several views, and `is_behind` says so meanwhile.
4. It remembers MOST_DEVICES devices and MOST_JOBS jobs, and of what devices say so many bytes (words.py); what is said
   of more is passed over.
5. Times are the caller's, in seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from msgspec import structs

from broker.messages import Beacon, Cleared, Job, Message, Offer, Presence, Round, Status, Verdict, Vitals
from broker.wire import levels
from fleet.sight.course import Course, Open
from fleet.sight.doing import doing_of
from fleet.sight.facts import Facts, JobFacts
from fleet.sight.known import LEAVE_S, NO_LABELS, Known
from fleet.sight.view import AggregatorView, DeviceState, DeviceView, JobView, View
from fleet.sight.words import Words
from runtime.words import clean

MOST_DEVICES = 100_000
MOST_JOBS = 1000
AT_ONCE = 3000
"""Devices that one view renews: some 12 ms."""
MOST_SHARED = 8
"""Labels of a device that shares them with others: a site, a model."""
RETAINED_S = 10.0
"""Over a new connection, what lies at the broker of a device has come after this long."""
NO_FACTS = Facts()


class Sight:
    """Everything that is seen of one fleet. software: the version of fedge that looks on."""

    def __init__(self, fleet: str, *, software: str = "", most_devices: int = MOST_DEVICES) -> None:
        self._most = most_devices
        self._devices: dict[str, Known] = {}
        self._words = Words()
        self._courses: dict[str, Course] = {}
        self._facts = NO_FACTS
        self._labels: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = {}
        """Labels that several devices share are kept once."""
        self._leaving: dict[str, float] = {}
        """Device to when it was said to be gone."""
        self._silent: set[str] = set()
        self._link = 0
        self._beacon_link = 0
        """The connection on which who leads was heard last."""
        self._sweep_at: float | None = None
        self._dirty: dict[str, None] = {}
        """Devices that look otherwise than in the last view, in the order in which they came to."""
        self._dirty_jobs: set[str] = set()
        self._changed = True
        self._connected, self._trouble = False, ""
        self._aggregator = AggregatorView(software=software)
        self._devices_seen: dict[str, DeviceView] = {}
        self._jobs_seen: dict[str, JobView] = {}
        self._view = View(fleet, 0.0, aggregator=self._aggregator)

    # What is told.

    def connect(self, connected: bool, now: float) -> None:
        """Note that the connection to the broker is there, or is not."""
        if connected:
            self._link += 1
            self._sweep_at = now + RETAINED_S
        self._changed |= connected != self._connected
        self._connected = connected

    def complain(self, trouble: str) -> None:
        """Note why the store cannot be read; "" where it can."""
        self._changed |= trouble != self._trouble
        self._trouble = trouble

    def confirm(self, there: Mapping[str, bool], now: float) -> None:
        """Take the aggregator's word on which devices are there, of those that only retained words tell of."""
        for device, is_there in there.items():
            known = self._devices.get(device)
            if known is not None and known.state == "silent":
                known.live = is_there
                known.move("online" if is_there else "offline", now)
                self._touch(known)

    def hear(self, message: Message, now: float, *, retained: bool = False) -> None:
        """Take what somebody has said. retained: it lay at the broker before it was listened for."""
        match message:
            case Presence():
                self._hear_presence(message, now, retained=retained)
            case Vitals():
                self._hear_vitals(message, now, retained=retained)
            case Offer():
                self._hear_offer(message, now)
            case Verdict():
                self._hear_verdict(message)
            case Round() | Status() | Job():
                self._hear_of_job(message, now, retained=retained)
            case Beacon():
                self._hear_beacon(message, now, retained=retained)
            case Cleared():
                self._hear_cleared(message, now)

    def _hear_presence(self, said: Presence, now: float, *, retained: bool) -> None:
        known = self._known(said.device, now)
        if known is None or known.is_stale(said, retained=retained):
            return
        if said.online:
            self._leaving.pop(said.device, None)
            known.take(said, now, retained=retained, link=self._link)
            known.labels = self._shared(known.labels)
            self._words.keep(known)
        elif retained or known.state not in ("online", "silent"):
            known.take(said, now, retained=retained, link=self._link)
            known.move("offline", now)
        else:
            self._leaving.setdefault(said.device, now)
        self._touch(known)

    def _hear_vitals(self, said: Vitals, now: float, *, retained: bool) -> None:
        known = self._known(said.device, now)
        if known is not None:
            known.take_vitals(said, now, retained=retained)
            self._words.keep(known)
            self._touch(known)

    def _hear_offer(self, said: Offer, now: float) -> None:
        known, course = self._devices.get(said.device), self._courses.get(said.job)
        if known is not None:
            known.heard_at = now
            if known.state == "silent":
                known.live = True
                known.move("online", now)
            self._touch(known)
        round_ = course.round if course is not None else None
        if round_ is not None and said.base in round_.names and round_.offer(said.device):
            self._dirty_jobs.add(said.job)
            self._dirty[said.device] = None

    def _hear_verdict(self, said: Verdict) -> None:
        course = self._courses.get(said.job)
        if course is not None and course.judge(said):
            self._dirty_jobs.add(said.job)
            self._dirty[said.device] = None

    def _hear_of_job(self, said: Round | Status | Job, now: float, *, retained: bool) -> None:
        course = self._course(said.job)
        if course is None:
            return
        before = course.round
        match said:
            case Job(spec=None):
                course.announced = False
                self._forget_unless_stored(course)
            case Job():
                if course.specify(said.spec or {}):
                    course.draw_all()
                    course.apply()
                    self._dirty_drawn(course.round)
            case Status():
                course.come_to(said.version, None if retained else now)
                course.describe(said)
                if course.state in ("finished", "stopped", "resting"):
                    course.round = None
            case Round():
                course.open(said, now)
        self._after(course, before)

    def _hear_beacon(self, said: Beacon, now: float, *, retained: bool) -> None:
        last, nonce = self._aggregator, clean(said.nonce, 80)
        if last.online and (said.term < last.term or (not said.online and nonce != last.nonce)):
            return  # of who leads no more
        self._beacon_link = self._link
        if (said.online, said.term, nonce) != (last.online, last.term, last.nonce):
            since = None if retained else now
            self._aggregator = AggregatorView(said.online, said.term, nonce, since, last.software)
            self._changed = True

    def _hear_cleared(self, said: Cleared, now: float) -> None:
        match levels(said.topic):
            case ["device", device] if (known := self._devices.get(device)) is not None:
                known.announced, known.live = False, False
                self._leaving.pop(device, None)
                known.move("unknown", now)
                self._touch(known)
            case ["vitals", device] if (known := self._devices.get(device)) is not None:
                known.vitals = known.vitals_at = known.offset_s = None
                self._touch(known)
            case ["round", job] if (course := self._courses.get(job)) is not None:
                before, course.round = course.round, None
                self._after(course, before)
            case ["job", job] if (course := self._courses.get(job)) is not None:
                course.announced = False
                self._forget_unless_stored(course)

    # What is read.

    def read(self, facts: Facts, now: float) -> None:
        """Take what the store says."""
        last, self._facts = self._facts, facts
        for device in {*facts.quarantined, *last.quarantined} if facts.quarantined != last.quarantined else ():
            if self._known(device, now) is not None:
                self._dirty[device] = None
        if facts.devices is not last.devices:
            changed = facts.devices ^ last.devices
            self._dirty.update((device, None) for device in changed if self._known(device, now) is not None)
        for job, found in facts.jobs.items():
            if last.jobs.get(job) is not found and (course := self._course(job)) is not None:
                self._read_job(course, found)
        for job in last.jobs.keys() - facts.jobs.keys():
            if (course := self._courses.get(job)) is not None:
                course.facts = None
                self._forget_unless_stored(course)

    def _read_job(self, course: Course, facts: JobFacts) -> None:
        before, course.facts = course.round, facts
        told = () if before is None else (before.counted.copy(), set(before.refused), before.drawn)
        course.name = course.name or clean(facts.name, 80)
        course.come_to(facts.version, None)
        if facts.ended:
            course.round = None
        course.apply()
        self._after(course, before)
        if before is not None and course.round is before and told:
            counted, refused, drawn = told
            otherwise = (before.counted ^ counted) | (before.refused.keys() ^ refused) | (before.drawn ^ drawn)
            self._dirty.update(dict.fromkeys(otherwise))

    # What is known.

    def _known(self, device: str, now: float) -> Known | None:
        """Return what is known of a device, which may be new; None where there is no room for it."""
        known = self._devices.get(device)
        if known is None and len(self._devices) < self._most:
            known = self._devices[device] = Known(device, "unknown", now)
        return known

    def _course(self, job: str) -> Course | None:
        course = self._courses.get(job)
        if course is None and len(self._courses) < MOST_JOBS:
            course = self._courses[job] = Course(job)
            course.able = {device for device, known in self._devices.items() if job in known.able}
        return course

    def _forget_unless_stored(self, course: Course) -> None:
        self._dirty_drawn(course.round)
        self._dirty_jobs.add(course.job)
        if course.facts is None and not course.announced:
            self._courses.pop(course.job, None)

    def _shared(self, labels: Mapping[str, str]) -> Mapping[str, str]:
        if not labels:
            return NO_LABELS
        if len(labels) > MOST_SHARED:
            return labels
        if len(self._labels) > len(self._devices) + MOST_SHARED:  # those that nobody has any more are among them
            self._labels.clear()
        return self._labels.setdefault(tuple(labels.items()), labels)

    def _touch(self, known: Known) -> None:
        """Note that a device looks otherwise; and whether it can take part in which jobs."""
        self._dirty[known.device] = None
        (self._silent.add if known.state == "silent" else self._silent.discard)(known.device)
        able = known.able_for()
        if able == known.able:
            return
        for job in known.able - able:
            if (course := self._courses.get(job)) is not None:
                course.able.discard(known.device)
                self._dirty_jobs.add(job)
        for job in able - known.able:
            if (course := self._courses.get(job)) is not None:
                course.join(known.device)
                self._dirty_jobs.add(job)
        known.able = able

    def _after(self, course: Course, before: Open | None) -> None:
        self._dirty_jobs.add(course.job)
        if course.round is not before:
            self._dirty_drawn(before)
            self._dirty_drawn(course.round)

    def _dirty_drawn(self, round_: Open | None) -> None:
        if round_ is not None:
            self._dirty.update(dict.fromkeys(round_.drawn | round_.offered | round_.refused.keys()))

    # What is seen.

    @property
    def has_silent(self) -> bool:
        """Whether retained words alone tell of some device."""
        return bool(self._silent)

    @property
    def is_led(self) -> bool:
        """Whether an aggregator is there, that may be asked."""
        return self._aggregator.online

    @property
    def is_behind(self) -> bool:
        """Whether more has changed than the last view shows."""
        return bool(self._dirty)

    def view(self, now: float) -> View:
        """Return how the fleet looks: the same object as before where nothing has changed."""
        self._pass_time(now)
        if not (self._dirty or self._dirty_jobs or self._changed):
            return self._view
        if self._dirty:
            self._see_devices()
        if self._dirty_jobs:
            self._see_jobs()
        last = self._view
        self._view = View(
            *(last.fleet, now, last.n + 1, self._connected, self._trouble, self._aggregator),
            *(self._devices_seen, self._jobs_seen),
        )
        self._changed = False
        return self._view

    def _pass_time(self, now: float) -> None:
        for device in [device for device, at in self._leaving.items() if now >= at + LEAVE_S or now < at]:
            at = self._leaving.pop(device)
            known = self._devices[device]
            known.live = False
            known.move("offline", at)
            self._touch(known)
        if self._sweep_at is not None and now >= self._sweep_at:
            self._sweep_at = None
            if self._aggregator.online and self._beacon_link != self._link:
                self._aggregator = structs.replace(self._aggregator, online=False, since=now)
                self._changed = True
            for known in self._devices.values():
                if known.state == "online" and known.link != self._link and known.heard_at != now:
                    known.live = False
                    known.move("silent", now)
                    self._touch(known)

    def _see_devices(self) -> None:
        seen, is_sorted = dict(self._devices_seen), True
        rounds = [(job, course.round) for job, course in self._courses.items() if course.round is not None]
        for device in list(islice(self._dirty, AT_ONCE)):
            del self._dirty[device]
            known = self._devices.get(device)
            if known is None:
                continue
            state = self._state(known)
            if state == "unknown" and device not in self._facts.devices:
                seen.pop(device, None)
                if known.vitals is None:
                    del self._devices[device]
                    self._words.leave(device)
                continue
            is_sorted &= device in seen
            seen[device] = self._see(known, state, rounds)
        self._devices_seen = seen if is_sorted else dict(sorted(seen.items()))

    def _state(self, known: Known) -> DeviceState:
        return "quarantined" if known.device in self._facts.quarantined else known.state

    def _see(self, known: Known, state: DeviceState, rounds: list[tuple[str, Open]]) -> DeviceView:
        doing, job, progress, why = doing_of(known, rounds)
        vitals = known.vitals
        return DeviceView(
            *(known.device, state, known.since, known.heard_at, doing, job, progress, why, known.labels, known.parts),
            *(known.software, vitals.serves if vitals is not None else {}, vitals, known.vitals_at, known.offset_s),
            *(known.alarm, self._facts.quarantined.get(known.device, "")),
        )

    def _see_jobs(self) -> None:
        seen, is_sorted = dict(self._jobs_seen), True
        for job in self._dirty_jobs:
            course = self._courses.get(job)
            if course is None or not (course.announced or course.facts is not None):
                seen.pop(job, None)
                continue
            is_sorted &= job in seen
            seen[job] = course.view()
        self._dirty_jobs.clear()
        self._jobs_seen = seen if is_sorted else dict(sorted(seen.items()))
