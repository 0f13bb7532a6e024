"""Planted faults: the fix of a line taken out, to see that the laws find it.

A plant is a patch of the running code, in force for the length of `planted`. law: the one that is to catch it; kind:
in which way; profile: the weather in which it shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from fleet.world import faults_of_devices as devices
from fleet.world import faults_of_quarantine as bars
from fleet.world import faults_of_servers as servers
from fleet.world.laws import Violation
from fleet.world.patches import Patches, patching


class Plant(NamedTuple):
    """A fault, how it is planted, and who should find it."""

    name: str
    law: int
    kind: str
    """How the violation's kind begins."""
    profile: str | None
    plant: Callable[[Patches], None]
    quarantine: bool = False
    """Whether it shows where devices are put in quarantine."""

    def is_found_by(self, violation: Violation) -> bool:
        """Return whether this is the violation that the plant is to cause."""
        return violation.law == self.law and violation.kind.startswith(self.kind)


@contextmanager
def planted(plant: Plant) -> Iterator[None]:
    """Have a fault for the length of a block."""
    with patching() as patches:
        plant.plant(patches)
        yield


PLANTS: dict[str, Plant] = {
    plant.name: plant
    for plant in (
        Plant("fold-twice", 1, "a version is not what", "drills", servers.fold_twice),
        Plant("ledger-forgotten", 1, "a second verdict", "drills", servers.forget_the_ledger),
        Plant("place-given-twice", 1, "an update that was counted is damaged", "drills", servers.give_a_place_twice),
        Plant("ended-while-judging", 1, "", None, servers.end_while_judging),
        Plant("collected-while-making", 1, "", None, servers.collect_while_making),
        Plant("stale-base-counted", 1, "a stale update", "drills", servers.count_stale_updates),
        Plant("accepted-dropped", 1, "", "drills", servers.drop_what_was_accepted),
        Plant("member-kept-for-the-next", 1, "", "drills", servers.forget_versions),
        Plant("generation-kept", 1, "a number was given out twice", "backups", servers.keep_the_generation),
        Plant("beyond-max-rounds", 2, "a version beyond", "drills", servers.forget_max_rounds),
        Plant("no-deadline", 3, "a round did not end", "drills", servers.have_no_deadline),
        Plant("deadline-doubles", 3, "a deadline was learned", "devices", servers.double_the_deadline),
        Plant("outbox-in-memory", 4, "", "drills", devices.keep_the_outbox_in_memory),
        Plant("checkpoint-forgotten", 4, "an epoch", "drills", devices.forget_checkpoints),
        Plant("resumed-by-one-name", 4, "an epoch was trained again", "backups", devices.resume_by_one_name),
        Plant("state-directory-shared", 4, "a state directory serves", "clones", devices.share_state_directories),
        Plant("verdict-before-durable", 5, "a verdict is sent", "drills", servers.write_verdicts_later),
        Plant("settled-by-any-verdict", 5, "settled by a verdict on another", "drills", devices.settle_by_any_verdict),
        Plant("version-before-durable", 5, "a version is announced", "drills", servers.write_versions_later),
        Plant("let-go-once-sent", 5, "an update was let go though nothing", "drills", devices.let_go_once_sent),
        Plant("let-go-at-an-alias", 5, "an update was let go at another", "backups", devices.let_go_at_an_alias),
        Plant("names-forgotten", 5, "an update was let go at another", "two-aggregators", devices.forget_names),
        Plant(
            "unknown-base-refused", 5, "an update is refused by", "two-aggregators", servers.refuse_for_unknown_bases
        ),
        Plant("unknown-job-refused", 5, "a job's update is refused", "backups", servers.refuse_for_unknown_jobs),
        Plant("late-will-unanswered", 6, "the beacon", "storms", servers.answer_nobody),
        Plant("leading-at-once", 6, "two aggregators lead", "two-aggregators", servers.lead_at_once),
        Plant("listening-for-ever", 7, "subscriptions", "drills", devices.listen_for_ever),
        Plant("queued-while-offline", 7, "packets pile up", "offline-day", devices.queue_while_offline),
        Plant("deleted-jobs-kept", 7, "a deleted job is still on a disk", "operators", devices.keep_deleted_jobs),
        Plant("deleted-rows-kept", 7, "a deleted job still has rows", "operators", servers.keep_rows_of_deleted_jobs),
        Plant("litter-forgotten", 7, "bodies that no store knows", "offline-day", servers.forget_litter),
        Plant("no-boundary", 8, "a process ended", "poisoned-jobs", devices.have_no_boundary),
        Plant("no-marks", 8, "a job kills", "poisoned-jobs", devices.have_no_marks),
        Plant("marks-wiped-out", 8, "a job kills", "poisoned-jobs", devices.mark_a_job_by_its_id_alone),
        Plant("offered-once", 9, "an update comes to no end", "drills", devices.offer_once),
        Plant("answered-once", 9, "who asks again", "drills", servers.answer_once),
        Plant("hello-said-once", 9, "a job makes no version", "broker-restarts", devices.say_hello_once),
        Plant("devices-not-believed", 9, "a job makes no version", "backups", servers.believe_no_device),
        Plant("nobody-dropped", 9, "a job makes no version", "departures", servers.drop_nobody),
        Plant("failure-lasts", 9, "a job makes no version", "devices", servers.hold_a_failure_for_lasting),
        Plant("halt-frees-nobody", 9, "a device idles", "devices", devices.halt_and_wait),
        Plant("hint-for-ever", 9, "a job makes no version", "devices", servers.take_hints_for_facts),
        Plant("asked-once", 9, "a job makes no version", "two-aggregators", servers.ask_once),
        Plant("presence-believed", 9, "a device is starved", None, servers.believe_presences),
        Plant("new-card-ignored", 9, "", "clones", servers.ignore_new_cards),
        Plant("clone-unseen", 9, "a clone is not named", "clones", servers.see_no_clone),
        Plant("first-job-first", 9, "", "operators", devices.starve_other_jobs),
        Plant("quarantine-before-durable", 10, "a quarantine is answered", "drills", bars.write_later, True),
        Plant("quarantine-counted", 10, "an update of a device in", "drills", bars.count_all_the_same, True),
        Plant("quarantine-awaited", 10, "a round waits", "drills", bars.wait_all_the_same, True),
        Plant("release-untold", 10, "an update was refused for", "drills", bars.release_silently, True),
    )
}
