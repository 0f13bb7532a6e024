"""What can befall a fleet, each by its name in weather.py; and how all of it is put right again.

Most misfortunes pass by themselves after a while; `put_right` ends the others. What stays as it is: a device that is
gone for good, one whose updates are absurd, and sometimes a second aggregator.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from fleet.world import insides
from fleet.world.agenda import Agenda
from fleet.world.disk import Disk
from fleet.world.jobs import Operator
from fleet.world.laws import Laws
from fleet.world.network import WillMode, WorldBroker
from fleet.world.nodes import Device, Server
from fleet.world.process import KEEPALIVE_S, Process
from fleet.world.record import DeviceRecord, ServerRecord
from models.job import JobSpec

ALWAYS = 10**9
NOBODY = "nobody"
"""A device that nobody has heard of."""
HERE = 0.7
"""How often a misfortune that waited for a moment befalls whose moment it is."""


class World(Protocol):
    """What misfortune needs of the world."""

    rng: random.Random
    agenda: Agenda
    broker: WorldBroker
    operator: Operator
    servers: list[Server]
    devices: list[Device]
    clones: list[Device]
    laws: Laws
    scale: float
    """How much longer everything takes than in a world of minutes."""

    def note(self, who: str, what: str) -> None:
        """Add a line to the trace."""

    def new_disk(self, name: str, record: ServerRecord | DeviceRecord) -> Disk:
        """Return an empty disk."""

    def new_server(self, disk: Disk) -> Server:
        """Return another aggregator, not started."""

    def new_clone(self, device: Device, disk: Disk, called: str = "") -> Device:
        """Return another device, not started; of the same id, or called otherwise."""

    def new_job(self, name: str | None) -> JobSpec:
        """Draw a job. name: of the one that it replaces; a new one when not given."""


class Misfortunes:
    """Whatever befalls one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.rng
        self._backups: list[tuple[Server, Disk]] = []
        self._old_cards: list[tuple[Device, Disk]] = []
        self._here: Process | None = None
        self._resumed: set[str] = set()
        """Jobs that the operator has resumed, once each."""
        self._wrong: tuple[Server, Server] | None = None
        """An aggregator in the wrong folder, and the one that it stands in for."""
        self._kinds: dict[str, Callable[[], str]] = {
            "kill": lambda: self._kill(self._anybody()),
            "kill soon": self._kill_soon,
            "kill server": lambda: self._kill(self._a_server()),
            "restart": self._restart,
            "partition": self._partition,
            "slow": lambda: self._slow(self._rng.choice((0.5, 3.0)), self._rng.uniform(5.0, 30.0)),
            "freeze": lambda: self._slow(30.0, 30.0),
            "stop broker": self._stop_broker,
            "fill": self._fill,
            "backup": self._backup,
            "restore": self._restore,
            "restore device": self._restore_device,
            "wrong folder": self._wrong_folder,
            "second": self._second,
            "end second": self._end_second,
            "take over": self._take_over,
            "clone": self._clone,
            "end clone": self._end_clone,
            "same folder": self._same_folder,
            "reimage": self._reimage,
            "off": self._off,
            "gone": self._gone,
            "diverge": self._diverge,
            "lie": self._lie,
            "sluggish": self._sluggish,
            "submit": self._submit,
            "stop job": self._stop_job,
            "replace": self._replace,
            "explain": self._explain,
            "quarantine": self._quarantine,
            "release": self._release,
        }

    def happen(self, kind: str, here: Process | None = None) -> None:
        """Let a misfortune happen. here: whose moment it is; more often than not it is his misfortune, too."""
        self._here = here if self._rng.random() < HERE else None
        self._world.note("misfortune", f"{kind}: {self._kinds[kind]()}")
        self._here = None

    def put_right(self) -> None:
        """End whatever has not passed by itself."""
        world = self._world
        for clone in list(world.clones):
            self._remove(clone)
        if self._wrong is not None:
            self._right_folder(*self._wrong)
        if len(world.servers) > 1 and self._rng.random() < 0.5:
            self._end_second()
        if not world.broker.running:
            self._start_broker()
        world.broker.bury()
        if world.operator.barred:
            self._release_all_but_some()
        for process in self._everybody():
            process.dies_in, process.will = None, "now"
            process.speed_up()
            process.free_disk()
            process.switch_on()
            if not process.cable:
                process.plug_in()
            world.agenda.later(self._rng.uniform(0.0, 5.0), self._reconnect, process)

    def mend(self) -> None:
        """Have the operator read the log: where all who are left have been replaced, one is told to lead; and jobs that
        processes died of which were killed by the weather are resumed.
        """
        servers = self._world.servers
        for name in sorted(insides.rest_for_deaths(servers) - self._resumed):
            self._resumed.add(name)
            self._world.note("operator", f"{name} shall go on")
            self._world.operator.resume(name)
        if servers and all(server.up and insides.stands_by_for_good(server) for server in servers):
            self._world.note("operator", f"{servers[0].name} shall take over")
            self._tell_to_lead(servers[0])

    def _tell_to_lead(self, server: Server) -> None:
        server.take_over = True
        server.stop()
        server.record.replaced = False

    # Who.

    def _everybody(self) -> list[Process]:
        return [*self._world.servers, *self._world.devices, *self._world.clones]

    def _anybody(self) -> Process:
        if self._here is not None:
            return self._here
        # Half of all misfortunes are the aggregator's: it has more to lose.
        return self._a_server() if self._rng.random() < 0.45 else self._a_device()

    def _a_server(self) -> Server:
        if isinstance(self._here, Server) and self._here in self._world.servers:
            return self._here
        return self._rng.choice(self._world.servers)

    def _a_device(self) -> Device:
        if isinstance(self._here, Device) and self._here in self._world.devices:
            return self._here
        return self._rng.choice([*self._world.devices, *self._world.clones])

    def _a_device_of_its_own(self) -> Device:
        """Return a device that is no clone."""
        device = self._a_device()
        return device if device in self._world.devices else self._rng.choice(self._world.devices)

    def _a_will(self, process: Process) -> WillMode:
        if isinstance(process, Server):  # nobody takes away its password: its will comes, if the broker stays
            return self._rng.choices(("now", "late"), (6, 2))[0]
        modes: tuple[WillMode, ...] = ("now", "late", "never")
        return self._rng.choices(modes, (6, 2, 1))[0]

    def _a_while(self, low: float, high: float) -> float:
        return float(low * (high / low) ** self._rng.random())

    # Processes.

    def _kill(self, process: Process) -> str:
        process.kill(self._a_will(process))
        return process.name

    def _kill_soon(self) -> str:
        process = self._anybody()
        process.will = self._a_will(process)
        process.dies_in = int(self._a_while(1.0, 150.0)) - 1
        return f"{process.name} at its {process.dies_in + 1}th point"

    def _restart(self) -> str:
        process = self._anybody()
        process.stop()
        return process.name

    def _slow(self, mean_s: float, for_s: float) -> str:
        process = self._anybody()
        process.slow_down(mean_s, for_s)
        return f"{process.name} by {mean_s} s for {for_s:.0f} s"

    def _off(self) -> str:
        device, for_s = self._a_device(), self._world.scale * self._a_while(20.0, 600.0)
        device.switch_off(self._a_will(device))
        self._world.agenda.later(for_s, self._switch_on, device)
        return f"{device.name} for {for_s:.0f} s"

    def _switch_on(self, device: Device) -> None:
        if device in (*self._world.devices, *self._world.clones):
            device.switch_on()

    def _gone(self) -> str:
        world = self._world
        if len(world.devices) < 2:
            return "nobody"
        device = self._a_device_of_its_own()
        device.switch_off(self._a_will(device))
        world.devices.remove(device)
        return f"{device.name} for good"

    # The network.

    def _partition(self) -> str:
        process, for_s = self._anybody(), self._world.scale * self._a_while(1.0, 200.0)
        knows = self._rng.random() < 0.5
        will: WillMode = self._rng.choice(("now", "late"))
        process.unplug(will, knows=knows)
        later = self._world.agenda.later
        if process.transport is not None and will == "late":
            wait_s = self._rng.uniform(0.2, 1.5) * KEEPALIVE_S
            later(wait_s, self._world.broker.lapse, process.transport.client_id)
        if not knows:
            later(self._rng.uniform(0.5, 1.5) * KEEPALIVE_S, process.notice)
        later(for_s, process.plug_in)
        return f"{process.name} for {for_s:.0f} s, will {will}, {'known' if knows else 'unknown'} to it"

    def _stop_broker(self) -> str:
        broker = self._world.broker
        if not broker.running:
            return "it is down already"
        keep, wills, for_s = self._rng.random() < 0.5, self._rng.random() < 0.4, self._a_while(0.1, 30.0)
        broker.halt(keep=keep, wills=wills)
        self._world.agenda.later(for_s, self._start_broker)
        return f"for {for_s:.1f} s, {keep=}, {wills=}"

    def _start_broker(self) -> None:
        self._world.broker.start()
        for process in self._everybody():
            self._world.agenda.later(self._rng.uniform(0.0, 5.0), self._reconnect, process)

    def _reconnect(self, process: Process) -> None:
        if process.cable:
            process.plug_in()

    # Disks.

    def _fill(self) -> str:
        process, for_s = self._anybody(), self._a_while(0.5, 60.0)
        process.fill_disk(for_s)
        return f"{process.name} for {for_s:.1f} s"

    def _backup(self) -> str:
        server = self._a_server()
        self._backups.append((server, server.disk.copy()))
        device = self._a_device()
        self._old_cards.append((device, device.disk.copy()))
        return f"of {server.name} and {device.name}"

    def _restore(self) -> str:
        if not self._backups:
            return self._backup()
        server, backup = self._rng.choice(self._backups)
        if server not in self._world.servers:
            return "of an aggregator that is no more"
        server.kill(self._a_will(server))
        lost = self._rng.random() < 0.5 and self._world.broker.running
        # Files that are written over are found out by what lies at the broker.
        in_place = not lost and self._world.broker.running and self._rng.random() < 0.3
        server.disk.restore(backup, in_place=in_place)
        if lost:
            self._world.broker.halt(keep=False, wills=False)
            self._world.agenda.later(self._a_while(0.5, 10.0), self._start_broker)
        return f"{server.name}, the broker {'loses' if lost else 'keeps'} what it has"

    def _restore_device(self) -> str:
        if not self._old_cards:
            return self._backup()
        device, card = self._rng.choice(self._old_cards)
        if device not in self._world.devices:
            return "of a device that is no more"
        self._halt(device)
        device.disk.restore(card)
        return device.name

    def _reimage(self) -> str:
        device = self._a_device_of_its_own()
        self._halt(device)
        device.disk.empty()
        return device.name

    def _halt(self, device: Device) -> None:
        """Kill whatever runs on a device's card."""
        for process in self._everybody():
            if process.disk is device.disk:
                process.kill(self._a_will(process))

    def _wrong_folder(self) -> str:
        """Have the aggregator started in an empty folder, with --take-over, until somebody notices."""
        world = self._world
        if self._wrong is not None or len(world.servers) > 1:
            return "no, there is a second one"
        right = world.servers[0]
        right.switch_off("now")
        wrong = world.new_server(world.new_disk("wrong", ServerRecord()))
        wrong.take_over = True
        wrong.start()
        self._wrong = wrong, right
        for_s = self._a_while(5.0, 40.0)
        world.agenda.later(for_s, self._right_folder, wrong, right)
        return f"for {for_s:.0f} s"

    def _right_folder(self, wrong: Server, right: Server) -> None:
        if self._wrong is None or self._wrong[0] is not wrong:
            return
        self._wrong = None
        self._remove(wrong)
        if right in self._world.servers and not right.switched_on:
            right.take_over = True
            right.record.replaced = False
            right.switch_on()

    # Second ones.

    def _second(self) -> str:
        world = self._world
        if len(world.servers) > 1:
            return "there is one already"
        copied = self._rng.random() < 0.5
        disk = world.servers[0].disk.copy() if copied else world.new_disk("second", ServerRecord())
        world.new_server(disk).start()
        return "with a copied disk" if copied else "with an empty disk"

    def _end_second(self) -> str:
        if len(self._world.servers) < 2:
            return "there is none"
        second = self._world.servers[-1]
        self._remove(second)
        return second.name

    def _take_over(self) -> str:
        server = self._a_server()
        self._tell_to_lead(server)
        return server.name

    def _clone(self) -> str:
        world = self._world
        if len(world.clones) > 1:
            return "there are enough"
        device = self._a_device_of_its_own()
        clone = world.new_clone(device, device.disk.copy())
        clone.start()
        return clone.name

    def _same_folder(self) -> str:
        """Have another device started in the state directory of one, as by the default of `state_dir`."""
        world = self._world
        if len(world.clones) > 1:
            return "there are enough"
        device = self._a_device_of_its_own()
        device.disk.shared = True
        other = world.new_clone(device, device.disk, f"{device.device}x")
        other.start()
        return f"{other.name} in that of {device.name}"

    def _end_clone(self) -> str:
        if not self._world.clones:
            return "there is none"
        clone = self._rng.choice(self._world.clones)
        self._remove(clone)
        return clone.name

    def _remove(self, process: Process) -> None:
        """Take a machine away for good."""
        process.switch_off("now")
        if isinstance(process, Server) and process in self._world.servers:
            self._world.servers.remove(process)
        if isinstance(process, Device) and process in self._world.clones:
            self._world.clones.remove(process)
            twin = next((device for device in self._world.devices if device.device == process.device), None)
            self._world.laws.was_cloned(process, twin)
            self._give_back(process)

    def _give_back(self, gone: Device) -> None:
        """Empty a state directory that a device had taken which is no more, and which was another's."""
        for device in self._world.devices:
            if device.disk is gone.disk and device.device != gone.device and insides.owner(device) == gone.device:
                self._halt(device)
                device.disk.empty()

    # Training.

    def _diverge(self) -> str:
        device = self._a_device_of_its_own()
        device.diverges = self._rng.choice((1, 1, 1, ALWAYS))
        return f"{device.name} {'once' if device.diverges == 1 else 'always'}"

    def _lie(self) -> str:
        device = self._a_device_of_its_own()
        device.lies = True
        return device.name

    def _sluggish(self) -> str:
        device = self._a_device_of_its_own()
        device.step_s = self._world.scale * self._a_while(0.5, 8.0)
        return f"{device.name}: {device.step_s:.1f} s a batch"

    # Operators.

    def _submit(self) -> str:
        spec = self._world.new_job(None)
        self._world.operator.submit(spec)
        return spec.name

    def _stop_job(self) -> str:
        name = self._a_job()
        self._world.operator.stop(name)
        return name

    def _replace(self) -> str:
        name = self._a_job()
        self._world.operator.replace(self._world.new_job(name))
        return name

    def _explain(self) -> str:
        name = self._a_job()
        self._world.operator.explain(name, self._rng.randint(1, 3))
        return name

    def _quarantine(self) -> str:
        """Put a device in quarantine, sometimes twice, or one that nobody knows."""
        ids = sorted({device.device for device in (*self._world.devices, *self._world.clones)})
        device = self._here.device if isinstance(self._here, Device) else self._rng.choice([*ids, *ids, NOBODY])
        why = self._rng.choice(("its sensor is loose", "nobody knows it"))
        for _ in range(self._rng.choice((1, 1, 1, 2))):
            self._world.operator.put_in_quarantine(device, why)
        return f"{device}: {why}"

    def _release(self) -> str:
        """Release a device, of those that were put in quarantine or any other."""
        barred = sorted(self._world.operator.barred)
        device = self._rng.choice(barred) if barred and self._rng.random() < 0.9 else self._a_device().device
        self._world.operator.release(device)
        return device

    def _release_all_but_some(self) -> None:
        stay = 0.0 if self._rng.random() < 0.6 else 0.5
        for device in sorted(self._world.operator.barred):
            if self._rng.random() >= stay:
                self._world.operator.release(device)

    def _a_job(self) -> str:
        return self._rng.choice(sorted(self._world.operator.submitted) or ["none"])
