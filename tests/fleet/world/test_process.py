"""How a supervised process lives and dies, with a service that does what the test says."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from broker.transport import Packet
from fleet.world.agenda import Agenda
from fleet.world.disk import Disk
from fleet.world.network import WorldBroker
from fleet.world.process import Process
from fleet.world.record import DeviceRecord


class Somewhere:
    """A world with a broker and nothing else."""

    def __init__(self) -> None:
        self.seed = 1
        self.agenda = Agenda()
        self.broker = WorldBroker(self.agenda, lambda _packet: None)
        self.acting: Process | None = None
        self.lives: list[str] = []

    def stepping(self, process: Process | None) -> Process | None:
        before, self.acting = self.acting, process
        return before

    def started(self, _process: Process) -> None:
        self.lives.append(f"{self.agenda.now:.0f} up")

    def stopped(self, _process: Process, _error: Exception | None, why: str) -> None:
        self.lives.append(f"{self.agenda.now:.0f} {why}")

    def acted(self, _process: Process) -> None: ...


class Toy(Process):
    """A process whose step is a function."""

    def __init__(self, folder: Path, act: Callable[[Toy], None] = lambda _toy: None) -> None:
        self.somewhere = Somewhere()
        super().__init__(self.somewhere, "toy", Disk(folder / "toy", DeviceRecord()), 5.0)
        self.act = act
        self.heard: list[object] = []
        self.stepped_at: list[float] = []
        self.due = math.inf
        self.left = self.released = 0

    def build(self) -> None:
        self.disk.folder.mkdir(exist_ok=True)
        transport = self.somewhere.broker.transport("toy", Packet("will", b"gone"))
        transport.subscribe("in")
        self.connect(transport)
        transport.open()

    def step(self) -> None:
        self.stepped_at.append(self.somewhere.agenda.now)
        if self.transport is not None and (event := self.transport.take()) is not None:
            self.heard.append(event)
        self.act(self)

    def leave(self) -> None:
        self.left += 1
        if self.transport is not None:
            self.transport.close()

    def release(self) -> None:
        self.released += 1

    @property
    def busy(self) -> bool:
        return False

    @property
    def deadline(self) -> float:
        return self.due

    def run(self, until: float) -> list[str]:
        self.somewhere.agenda.run(until)
        return self.somewhere.lives


def say(toy: Toy, text: bytes) -> None:
    other = toy.somewhere.broker.transport("other")
    other.open()
    other.publish(Packet("in", text))


def test_it_acts_soon_after_it_has_something_to_take(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.start()
    toy.run(10.0)
    say(toy, b"hello")
    toy.run(10.1)
    assert toy.heard[-1] == Packet("in", b"hello")


def test_a_slow_machine_acts_late_and_then_in_time_again(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.start()
    toy.run(10.0)
    n = len(toy.stepped_at)
    toy.slow_down(1e6, 30.0)
    say(toy, b"hello")
    toy._wake_at = math.inf  # what was planned before is a thing of the past
    toy.run(39.0)
    assert len(toy.stepped_at) == n
    toy.run(41.0)
    assert toy.heard[-1] == Packet("in", b"hello")
    assert toy.excused_until == 40.0


def test_it_acts_when_its_deadline_is_due_on_its_own_clock(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.start()
    toy.due = toy.clock() + 3.5
    toy._plan()
    toy.run(3.4)
    assert not any(3.2 < at < 3.5 for at in toy.stepped_at)
    toy.run(3.6)
    assert toy.stepped_at[-1] >= 3.5


def test_it_is_stepped_now_and_then_anyway_and_ever_less_often(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.start()
    toy.run(3600.0)
    assert 50 < len(toy.stepped_at) < 100


def test_whatever_leaves_a_step_ends_it_with_a_goodbye_and_it_comes_back(tmp_path: Path) -> None:
    def fail_once(toy: Toy) -> None:
        if toy.life == 1:
            raise ValueError("no")

    toy = Toy(tmp_path, fail_once)
    toy.start()
    lives = toy.run(30.0)
    assert [life.split(" ", 1)[1] for life in lives] == ["up", "ValueError: no", "up"]
    assert 5 <= int(lives[2].split()[0]) <= 7
    assert (toy.left, toy.released, toy.exits[0][1]) == (1, 1, "ValueError: no")


def test_a_kill_says_no_goodbye_and_leaves_what_was_on_the_disk(tmp_path: Path) -> None:
    def die(toy: Toy) -> None:
        if toy.life == 1:
            (toy.disk.folder / "state").write_text("before")
            death = toy.die_here()
            try:
                raise death
            finally:
                (toy.disk.folder / "state").write_text("on the way out")
                assert toy.transport is not None
                assert not toy.transport.publish(Packet("out", b"on the way out"))

    toy = Toy(tmp_path, die)
    toy.start()
    toy.run(2.0)
    assert (toy.up, toy.left, toy.released) == (False, 0, 1)
    assert (toy.disk.folder / "state").read_text() == "before"
    assert not toy.exits, "it did not end by itself"
    toy.run(10.0)
    assert (toy.up, toy.life) == (True, 2)


def test_the_broker_learns_of_a_death_now_late_or_never(tmp_path: Path) -> None:
    for will, after_s, said in (("now", 0.0, 1), ("late", 0.0, 0), ("late", 91.0, 1), ("never", 91.0, 0)):
        toy = Toy(tmp_path)
        heard: list[Packet] = []
        toy.somewhere.broker.heard = heard.append
        toy.start()
        toy.switch_off(will)  # type: ignore[arg-type]  # one of its words
        toy.run(after_s)
        assert len(heard) == said


def test_every_start_has_a_clock_of_its_own(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.start()
    first = toy.clock()
    toy.kill()
    toy.run(10.0)
    assert toy.life == 2
    assert abs(toy.clock() - first) > 100.0


def test_who_is_switched_off_stays_off(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.start()
    toy.switch_off()
    toy.run(1000.0)
    assert not toy.up
    toy.switch_on()
    assert toy.up


def test_a_process_that_is_asked_to_stop_says_goodbye(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.start()
    toy.stop()
    assert (toy.up, toy.left) == (False, 1)
    toy.run(10.0)
    assert toy.up


def test_a_machine_without_a_network_starts_offline(tmp_path: Path) -> None:
    toy = Toy(tmp_path)
    toy.start()
    toy.unplug("now", knows=True)
    toy.kill()
    toy.run(10.0)
    assert toy.up
    assert not toy.connected
    toy.plug_in()
    assert toy.connected


def test_who_cannot_write_may_end_as_often_as_he_likes(tmp_path: Path) -> None:
    def fail(_toy: Toy) -> None:
        raise OSError("full")

    toy = Toy(tmp_path, fail)
    toy.fill_disk(100.0)
    toy.start()
    toy.run(90.0)
    assert toy.life > 5
    assert not toy.exits
