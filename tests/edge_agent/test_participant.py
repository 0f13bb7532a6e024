from __future__ import annotations

import pickle
import random
from collections.abc import Sequence
from typing import Any, get_args

import pytest
from msgspec import structs

from broker.messages import Head, Offer, Round, Verdict, Version, Want, echo
from edge_agent import participant
from edge_agent.deployment import FIRST_REDEPLOY_S, LAST_REDEPLOY_S
from edge_agent.effects import (
    Connected,
    Deploy,
    Deployed,
    DeployFailed,
    Disconnected,
    Drop,
    Effect,
    FetchFailed,
    FetchVersion,
    Halt,
    Installed,
    JobEnded,
    ParticipantEvent,
    Ready,
    RequestHead,
    Send,
    Settle,
    Setup,
    Tick,
    Train,
    Trained,
    TrainingFailed,
    UpdateLost,
    Upload,
)
from edge_agent.participant import TABLE, Participant, State, without_body
from edge_agent.resend import FIRST_RESEND_S, LAST_RESEND_S, WAITS
from edge_agent.versions import FIRST_LOOK_S, REFETCH_S
from models import draw
from models.job import JobSpec, ModelSpec, RoundsSpec
from runtime.states import IllegalEventError

V0, V1, V2 = Version(1, 0), Version(1, 1), Version(1, 2)
SPEC = JobSpec("j", ModelSpec(), deploy="never")
FOLDS = JobSpec("j", ModelSpec(), deploy="never", rounds=RoundsSpec(late="fold"))


def head(version: Version = V0, state: Any = "running", term: int = 1) -> Head:
    return Head("j-1", term, version, "0" * 32, state=state)


def round_(base: Version = V0, seconds_left: float = 60.0, threshold: int = draw.MAX_TICKET, term: int = 1) -> Round:
    return Round("j-1", term, base, seconds_left, threshold=threshold)


def carrying(base: Version) -> Round:
    """A round that carries the way from the version before."""
    return Round("j-1", 1, base, 60.0, along=b"12345678way")


def fetch(source: Head | Round) -> FetchVersion:
    return FetchVersion(source.base if isinstance(source, Round) else source.version, source)


def offer(base: Version = V0, body: bytes = b"body") -> Offer:
    return Offer("j-1", "d", base, 10, f"{base.number:08x}" + "0" * 24, len(body) or 9, body=body)


def verdict(base: Version = V0, refused: str = "") -> Verdict:
    return Verdict("d", "j-1", base, echo(offer(base)), refused)


def settle(base: Version = V0, refused: str = "", renamed: Version | None = None) -> Settle:
    """Return what a verdict comes to."""
    return Settle("j-1", base, verdict(base, refused), renamed)


def let_go(later: Version, base: Version = V0) -> Settle:
    """Return what the announcement of a later version, or of the job's end, comes to."""
    return Settle("j-1", base, later=later)


def device(spec: JobSpec = SPEC, ready: bool = True, **state: Any) -> Participant:
    one = Participant(Setup(device="d", job="j-1", spec=spec, **state), random.Random(1))  # noqa: S311 -- jitter
    if ready:
        one.receive(Ready(), 0.0)
    return one


def feed(one: Participant, *events: Any, now: float = 0.0) -> list[Effect]:
    return [effect for event in events for effect in one.receive(event, now)]


def having(version: Version) -> Participant:
    """Return a device on which a version has come that was not needed any more."""
    one = device()
    assert feed(one, head(version), round_(version), round_(version, threshold=0)) == [fetch(head(version)), Drop()]
    assert feed(one, Installed(version)) == []
    return one


def training(base: Version = V0, spec: JobSpec = SPEC) -> Participant:
    one = device(spec)
    assert feed(one, head(base), round_(base), Installed(base)) == [fetch(head(base)), Train(base, (0, 32, 0))]
    return one


def offering(body: bytes = b"body", spec: JobSpec = SPEC) -> Participant:
    one = training(spec=spec)
    assert feed(one, Trained(offer(body=body))) == [Send(offer(body=body), with_body=True)]
    return one


def of(kind: type, effects: Sequence[Effect]) -> list[Any]:
    return [effect for effect in effects if isinstance(effect, kind)]


# What cannot be.


def fetching() -> Participant:
    one = device()
    assert feed(one, head(), round_()) == [fetch(head())]
    return one


STATES = {State.IDLE: device, State.FETCHING: fetching, State.TRAINING: training, State.OFFERING: offering}

SAID: dict[type, ParticipantEvent] = {
    Head: head(V1),
    Round: round_(V1),
    JobEnded: JobEnded(V1, 1),
    Want: Want("d", "j-1", offer().digest, "01"),
    Verdict: verdict(),
    Connected: Connected(2.0),
    Disconnected: Disconnected(),
    Ready: Ready("no data"),
    Installed: Installed(V0),
    FetchFailed: FetchFailed(V0),
    Trained: Trained(offer()),
    TrainingFailed: TrainingFailed(V0, "it diverged"),
    UpdateLost: UpdateLost(None),
    Deployed: Deployed(V0),
    DeployFailed: DeployFailed(V0, "the disk is full"),
}
FETCHES = (Installed, FetchFailed)
SLOT = (Deployed, DeployFailed)


def refuses(one: Participant, event: ParticipantEvent, why: str = "") -> bool:
    """Return whether an event raises and changes nothing."""
    before = pickle.dumps(one)
    with pytest.raises(IllegalEventError, match=rf"^{type(event).__name__} came while .+: .*{why}.*; .+ nothing has"):
        one.receive(event, 2.0)
    return pickle.dumps(one) == before


def test_the_table_has_a_row_for_every_event() -> None:
    assert TABLE.rows.keys() == {*get_args(ParticipantEvent), Tick}
    assert SAID.keys() == {*get_args(ParticipantEvent)}


@pytest.mark.parametrize("kind", SAID, ids=[kind.__name__ for kind in SAID])
@pytest.mark.parametrize("state", STATES, ids=[state.name for state in STATES])
def test_an_event_leads_where_the_table_says_or_raises_and_changes_nothing(state: State, kind: type) -> None:
    one, follow = STATES[state](), TABLE.rows[kind][state]
    one.check()
    if not follow or (kind in FETCHES and state is State.IDLE) or kind in SLOT:
        assert refuses(one, SAID[kind])
        return
    one.receive(SAID[kind], 2.0)
    assert one._state in follow
    one.check()


def test_only_the_training_that_is_under_way_ends() -> None:
    one = training()
    for base in (V1, Version(0, 0)):
        assert refuses(one, Trained(offer(base)), "it is version 1.0 that is trained on here, for j-1")
        assert refuses(one, TrainingFailed(base, "it diverged"), "it is version 1.0 that is trained on")
    for foreign in ({"job": "j-2"}, {"device": "e"}):
        assert refuses(one, Trained(structs.replace(offer(), **foreign)))
    feed(one, head(V1))
    assert one.doing == "", "halted"
    assert refuses(one, Trained(offer()), "nothing is trained")
    assert one.done is None


def test_only_an_update_that_is_offered_is_lost() -> None:
    one = offering()
    feed(one, verdict())
    assert refuses(one, UpdateLost(None), "no update is offered")
    assert one.done == V0, "it is not trained on again"


def test_only_what_was_fetched_is_there_or_fails_and_that_may_come_late() -> None:
    one = fetching()
    for event in (Installed(V1), FetchFailed(V1)):
        assert refuses(one, event, "version 1.1 was not fetched")
    assert feed(one, round_(V1), head(V1)) == [RequestHead(), Drop(), fetch(head(V1))]
    assert feed(one, FetchFailed(V0)) == []
    assert one.doing == "fetching version 1.1"


def test_the_slot_may_speak_at_any_time_of_a_job_of_which_this_device_deploys_something() -> None:
    always = JobSpec("j", ModelSpec(), deploy="every 1")
    for event in (Deployed(V2), DeployFailed(V2, "the disk is full")):
        assert feed(device(always), event) in ([], [RequestHead()]), "it was begun before this process"
        assert refuses(device(), event, "this device deploys nothing of this job")
        assert refuses(device(always, has_slot=False), event, "this device deploys nothing of this job")


@pytest.mark.parametrize("state", STATES, ids=[state.name for state in STATES])
def test_what_the_wire_brings_is_never_illegal(state: State) -> None:
    words = [head(V1), head(V0), round_(V2), round_(V0, threshold=0), head(Version(9, 0), "stopped", term=7)]
    others = [JobEnded(V2, 1), JobEnded(V0, 9), SAID[Want], Want("d", "j-1", "f" * 32, "ff"), verdict(), verdict(V2)]
    links = [Connected(), Disconnected(), Disconnected(), Ready(), Ready("no data")]
    for event in (*words, *others, *links):
        one = STATES[state]()
        for again in (event, *words, event, *others, event, *links, event):
            one.receive(again, 1e4)
            one.check()


def test_a_state_that_the_table_does_not_know_stops_before_anything_is_carried_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = fetching()
    monkeypatch.setattr(participant, "TABLE", TABLE.but(Installed, State.FETCHING, State.IDLE))
    with pytest.raises(AssertionError, match=r"^Installed\(.+ led to State.TRAINING"):
        one.receive(Installed(V0), 0.0)


@pytest.mark.parametrize(("name", "value"), [("_training", V1), ("trained", None)])
def test_a_participant_that_contradicts_itself_is_found(name: str, value: Version | None) -> None:
    one = offering()
    setattr(one, name, value)
    with pytest.raises(AssertionError):
        one.check()


# From the round to the training.


def test_a_round_that_carries_the_way_from_here_needs_no_head() -> None:
    one = training(V1)
    feed(one, Trained(offer(V1)), verdict(V1))
    assert feed(one, carrying(V2)) == [fetch(carrying(V2))]
    assert feed(one, Installed(V2)) == [Train(V2, (0, 32, 0))]
    assert one.deadline is None


@pytest.mark.parametrize("here", [None, V0, Version(0, 1), V2])
def test_a_way_from_elsewhere_does_not_help(here: Version | None) -> None:
    one = device() if here is None else having(here)
    feed(one, head(V0))
    effects = feed(one, carrying(V2))
    assert effects == ([Train(V2, (0, 32, 0))] if here == V2 else [RequestHead()])


def test_heads_are_followed_where_every_version_is_deployed_and_rounds_draw_few() -> None:
    always = JobSpec("j", ModelSpec(), deploy="every 1")
    one, other, idle = device(always), device(always), device(always, has_slot=False)
    seldom = device(JobSpec("j", ModelSpec(), deploy="every 2"))
    for each in (one, seldom):
        feed(each, round_(threshold=draw.MAX_TICKET // 10))
    feed(other, round_())
    assert (one.follows, other.follows, idle.follows, seldom.follows) == (True, False, False, False)


def test_a_way_that_led_elsewhere_is_not_tried_again() -> None:
    one = having(V1)
    assert feed(one, carrying(V2)) == [fetch(carrying(V2))]
    assert feed(one, FetchFailed(V2), now=1.0) == [RequestHead()]
    assert feed(one, carrying(V2), now=2.0) == []
    assert feed(one, head(V2), now=3.0) == [fetch(head(V2))]


def test_a_heartbeat_without_the_way_changes_nothing_for_whoever_is_there() -> None:
    one = training(V1)
    feed(one, Trained(offer(V1)), carrying(V2), round_(V2, seconds_left=0.0))
    assert feed(one, Installed(V2)) == []
    assert feed(one, round_(V2)) == [Train(V2, (0, 32, 0))]


def test_a_drawn_device_fetches_the_base_and_trains_on_it() -> None:
    one = device()
    assert feed(one, head()) == []
    assert feed(one, round_()) == [fetch(head())]
    assert one.doing == "fetching version 1.0"
    assert feed(one, Installed(V0)) == [Train(V0, (0, 32, 0))]
    assert one.doing == "training on version 1.0"


def test_the_round_may_come_before_the_head() -> None:
    one = device()
    assert feed(one, round_()) == [RequestHead()]
    assert feed(one, head()) == [fetch(head())]


def test_version_0_needs_no_head_where_the_round_proves_it() -> None:
    one, proving = device(), Round("j-1", 1, V0, 60.0, along=b"12345678")
    assert feed(one, proving) == [fetch(proving)]
    assert feed(one, Installed(V0)) == [Train(V0, (0, 32, 0))]


@pytest.mark.parametrize(("deploy", "asks"), [("never", False), ("final", False), ("every 2", True)])
def test_a_head_is_read_at_the_start_only_where_versions_are_deployed_on_the_way(deploy: str, asks: bool) -> None:
    one = device(JobSpec("j", ModelSpec(), deploy=deploy), ready=False)
    assert one.tick(0.0) == ([RequestHead()] if asks else [])


def test_a_device_that_is_not_drawn_fetches_nothing() -> None:
    assert feed(device(), head(), round_(threshold=0)) == []


def test_widening_draws_a_device_later() -> None:
    one = device()
    feed(one, head(), round_(threshold=0))
    assert feed(one, round_(threshold=draw.MAX_TICKET)) == [fetch(head())]


def test_a_device_without_data_takes_no_part_until_it_has_them() -> None:
    one = device(ready=False)
    assert feed(one, head(), round_()) == []
    assert feed(one, Ready(why="no such file")) == []
    assert feed(one, Ready()) == [fetch(head())]


def test_the_terms_of_the_round_go_along() -> None:
    one = having(V0)
    assert feed(one, Round("j-1", 1, V0, 60.0, terms=(256, 1, -3))) == [Train(V0, (256, 1, -3))]


def test_a_round_that_has_expired_starts_nothing() -> None:
    one = device()
    feed(one, round_(seconds_left=10.0))
    assert feed(one, head(), now=10.0) == []
    assert feed(one, round_(seconds_left=10.0), now=11.0) == [fetch(head())]


def test_a_round_on_a_base_that_has_been_left_starts_nothing() -> None:
    assert feed(device(), head(V1), round_(V0)) == []


@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_a_job_that_has_ended_starts_nothing(state: str) -> None:
    assert feed(device(), head(state=state), round_()) == []


def test_a_training_halts_when_its_base_is_left() -> None:
    one = training()
    assert feed(one, head(V1)) == [Halt(V0)]
    assert one.doing == ""


def test_a_training_halts_when_the_job_ends() -> None:
    assert feed(training(), head(state="stopped")) == [Halt(V0)]


def test_a_training_halts_when_its_base_is_left_under_another_name_though_late_updates_are_folded() -> None:
    """A backup was restored: the base that this one trains on is none of those that the sum is made of."""
    one = device(JobSpec("j", ModelSpec(), deploy="never", rounds=RoundsSpec(late="fold")))
    feed(one, head(), round_(), Installed(V0))
    assert feed(one, round_(Version(9, 1), threshold=0)) == [Halt(V0)]


def test_a_training_halts_when_the_job_ends_though_late_updates_are_folded() -> None:
    one = device(JobSpec("j", ModelSpec(), deploy="never", rounds=RoundsSpec(late="fold")))
    feed(one, head(), round_(), Installed(V0))
    assert feed(one, JobEnded(V1, 1)) == [Halt(V0)]


def test_a_training_goes_on_when_late_updates_are_folded() -> None:
    rounds = RoundsSpec(late="fold", max_staleness=1)
    one = device(JobSpec("j", ModelSpec(), deploy="never", rounds=rounds))
    feed(one, head(), round_(), Installed(V0))
    assert feed(one, head(V1)) == []
    assert feed(one, head(V2)) == [Halt(V0)]


def test_a_base_is_trained_once() -> None:
    one = offering()
    feed(one, verdict())
    assert feed(one, round_(), head(), now=1.0) == []


def test_a_base_that_cannot_be_trained_is_not_tried_again() -> None:
    one = training()
    assert feed(one, TrainingFailed(V0, "it diverged"), round_()) == []
    assert feed(one, head(V1), round_(V1)) == [fetch(head(V1))]


def test_a_base_that_was_trained_before_the_start_is_not_trained_again() -> None:
    assert feed(device(trained=V0), head(), round_()) == []


def test_what_is_older_than_the_last_base_trained_is_not_trained() -> None:
    assert feed(device(trained=V1), head(), round_()) == []


# Heads and terms.


def test_a_lower_term_is_of_an_aggregator_that_was_replaced() -> None:
    one = device()
    feed(one, head(term=2))
    assert feed(one, round_(term=1)) == []
    assert feed(one, head(V1, term=1), round_(term=2)) == [fetch(head(term=2))]


def test_a_head_of_a_lower_term_than_the_round_is_ignored() -> None:
    one = device()
    assert feed(one, round_(term=2)) == [RequestHead()]
    assert feed(one, head(V1, term=1), head(term=1)) == []
    assert one.ahead is None, "nor is it anything to tell of"
    assert feed(one, head(term=2)) == [fetch(head(term=2))]


def test_a_higher_term_may_go_back_to_an_older_version() -> None:
    one = device()
    feed(one, head(V1, term=1))
    assert feed(one, head(V0, term=2), round_(V0, term=2)) == [fetch(head(V0, term=2))]


def test_a_head_that_was_overtaken_on_the_way_does_not_lead_back() -> None:
    one = training(V1)
    assert feed(one, head(V0)) == []
    assert one.doing == "training on version 1.1"


@pytest.mark.parametrize(
    "again",
    [round_(V1, term=2), round_(Version(9, 1))],
    ids=["by an aggregator that came after", "under a name that came after"],
)
@pytest.mark.parametrize("ends", [head(V1, "finished"), JobEnded(V1, 1)], ids=["head", "job"])
def test_a_job_that_had_ended_goes_on_where_a_backup_has_brought_it_back(ends: Any, again: Round) -> None:
    one = device()
    feed(one, ends)
    assert feed(one, round_(V1)) == [], "it is over"
    feed(one, again, head(again.base, term=again.term))
    assert feed(one, Installed(again.base)) == [Train(again.base, (0, 32, 0))]


def test_a_training_that_was_begun_anew_does_not_halt_for_the_end_before_it() -> None:
    one = device()
    feed(one, head(V2, "finished"), round_(V1, term=2), head(V1, term=2), Installed(V1))
    assert one.doing == "training on version 1.1"
    assert feed(one, round_(V1, term=2)) == []
    assert feed(one, JobEnded(V1, 2)) == [Halt(V1)]


def test_a_device_says_what_it_is_done_with() -> None:
    one = training()
    assert one.done is None
    feed(one, Trained(offer()))
    assert one.done is None, "its offer says so"
    feed(one, verdict())
    assert one.done == V0
    failing = training(V1)
    feed(failing, TrainingFailed(V1, "it diverged"))
    assert failing.done == V1


@pytest.mark.parametrize(("late", "now"), [(round_(V1), round_(V2)), (head(V1), head(V2))], ids=["round", "head"])
def test_a_device_says_that_it_knows_a_later_version_than_the_one_that_is_spoken_of(late: Any, now: Any) -> None:
    """It may have been overtaken on the way; or a backup was restored that knows nothing of the later one."""
    one = device(trained=V0)
    feed(one, now)
    assert one.ahead is None
    assert feed(one, late) == []
    assert one.ahead == V2
    feed(one, round_(V2))
    assert one.ahead is None, "it is spoken of again"


def test_a_round_on_a_base_that_no_head_has_named_asks_for_the_head() -> None:
    one = device()
    feed(one, head(V0), round_(V1))
    assert one.deadline == FIRST_LOOK_S
    assert one.tick(FIRST_LOOK_S) == [RequestHead()]
    assert one.deadline == 3 * FIRST_LOOK_S
    assert feed(one, head(V1), now=6.0) == [fetch(head(V1))]
    assert one.deadline is None


def test_a_head_is_not_asked_for_when_the_round_has_expired() -> None:
    one = device()
    feed(one, round_(V1, seconds_left=3.0))
    assert one.tick(FIRST_LOOK_S) == []
    assert one.deadline is None


# Fetching.


def test_a_newer_head_replaces_the_fetch() -> None:
    one = device()
    feed(one, head(), round_())
    assert feed(one, head(V1), round_(V1)) == [Drop(), fetch(head(V1))]


def test_what_nobody_needs_any_more_is_not_fetched_on() -> None:
    one = device()
    feed(one, head(), round_())
    assert feed(one, JobEnded(V1, 1)) == [Drop()]
    assert one.deadline is None
    assert feed(one, FetchFailed(V0)) == []


def test_what_is_needed_is_fetched_on_when_the_head_that_led_to_it_is_replaced() -> None:
    one = device()
    feed(one, head(V1), round_(V1))
    assert feed(one, head(V0, term=2)) == [RequestHead()]
    assert one.doing == "fetching version 1.1"


def test_what_is_needed_again_is_fetched_again() -> None:
    one = device()
    feed(one, head(), round_())
    assert feed(one, JobEnded(V0, 1)) == [Drop()]
    assert feed(one, head(term=2), round_(term=2)) == [fetch(head(term=2))]


def test_a_head_is_not_asked_for_while_offline() -> None:
    one = device()
    feed(one, Disconnected())
    assert feed(one, round_(V1)) == []
    assert one.deadline is None
    assert feed(one, Connected(), now=1.0) == [RequestHead()]


def test_a_failed_fetch_is_tried_again_after_a_while() -> None:
    one = device()
    feed(one, head(), round_())
    assert feed(one, FetchFailed(V0), now=1.0) == []
    assert one.deadline == 1.0 + REFETCH_S
    assert one.tick(1.0 + REFETCH_S) == [RequestHead()]
    finer = Head("j-1", 1, V0, "0" * 32, chunk_bytes=1000)
    assert feed(one, finer, now=2.0 + REFETCH_S) == [fetch(finer)]
    assert one.deadline is None


def test_a_failed_fetch_that_went_by_its_round_is_tried_again_after_a_while() -> None:
    one, proof = device(), Round("j-1", 1, V0, 60.0, along=b"12345678")
    assert feed(one, proof) == [fetch(proof)]
    assert feed(one, FetchFailed(V0), now=1.0) == []
    assert feed(one, proof, now=2.0) == []
    assert one.tick(1.0 + REFETCH_S) == [fetch(proof)]


def test_a_round_says_nothing_of_the_way_to_a_later_version() -> None:
    one = deploying("every 1")
    feed(one, head(V1), Installed(V1), Deployed(V1), carrying(V1))
    assert feed(one, head(V2))[-1:] == [fetch(head(V2))]


def test_the_failure_of_a_fetch_that_was_replaced_says_nothing() -> None:
    one = device()
    feed(one, head(), round_(), head(V1), round_(V1), FetchFailed(V0))
    assert one.doing == "fetching version 1.1"


def test_a_failed_fetch_that_is_not_needed_any_more_is_forgotten() -> None:
    one = device()
    feed(one, head(), round_(seconds_left=5.0), FetchFailed(V0))
    assert one.tick(REFETCH_S) == []
    assert one.deadline is None


# The update that is offered.


def test_where_every_offer_is_answered_one_is_sent_again_with_growing_pauses() -> None:
    one = offering(spec=FOLDS)
    pauses, now = [], 0.0
    for _ in range(8):
        at = one.deadline
        assert at is not None
        assert one.tick(at - 0.001) == []
        assert of(Send, one.tick(at))
        pauses.append(at - now)
        now = at
    doublings = [min(FIRST_RESEND_S * 2**n, LAST_RESEND_S) for n in range(8)]
    assert all(0.75 * base <= pause <= 1.25 * base for base, pause in zip(doublings, pauses, strict=True))


def live(one: Participant, now: float, *lasted_s: float, first: int = 1) -> float:
    """Have a device hear rounds through that last so long from its offer on; give when it has offered to the next."""
    for number, seconds in enumerate(lasted_s, start=first):
        now += seconds
        base = Version(1, number)
        feed(one, round_(base, seconds_left=100.0), head(base), Installed(base), Trained(offer(base)), now=now)
        assert one.offer == offer(base)
    return now


def test_before_it_knows_how_long_rounds_last_a_device_waits_for_half_of_the_first() -> None:
    one = offering()
    assert one.deadline is not None
    assert 0.75 * 30.0 <= one.deadline <= 1.25 * 30.0
    late = training()
    feed(late, round_(seconds_left=6.0), Trained(offer()), now=1.0)
    assert late.deadline is not None
    assert 0.75 * FIRST_RESEND_S <= late.deadline - 1.0 <= 1.25 * FIRST_RESEND_S
    long = training()
    feed(long, round_(seconds_left=7200.0), Trained(offer()))
    assert long.deadline is not None
    assert 0.75 * LAST_RESEND_S <= long.deadline <= 1.25 * LAST_RESEND_S


def test_nothing_is_offered_again_in_a_round_that_lasts_as_long_as_rounds_do() -> None:
    one = offering()
    now = live(one, 0.0, 8.0, 20.0, 12.0)
    assert one.deadline is not None
    assert 1.125 * 20.0 <= one.deadline - now <= 1.875 * 20.0
    assert one.tick(one.deadline - 0.001) == []
    assert of(Send, one.tick(one.deadline))


def test_what_was_usual_long_ago_is_forgotten() -> None:
    one = offering()
    now = live(one, 0.0, 50.0, *[10.0] * WAITS)
    assert one.deadline is not None
    assert one.deadline - now <= 1.875 * 10.0


@pytest.mark.parametrize(("left_s", "most_s"), [(60.0, LAST_RESEND_S), (600.0, 600.0), (0.0, LAST_RESEND_S)])
def test_no_offer_waits_for_longer_than_its_round_or_the_longest_pause(left_s: float, most_s: float) -> None:
    one = offering()
    now = 5000.0
    feed(one, round_(V1, seconds_left=left_s + 1.0), head(V1), Installed(V1), now=now)
    feed(one, Trained(offer(V1)), now=now + 1.0)
    assert one.deadline is not None
    assert 0.75 * most_s <= one.deadline - now - 1.0 <= 1.25 * most_s


def test_an_outage_says_nothing_of_how_long_rounds_last() -> None:
    one = offering()
    now = live(one, 0.0, 8.0)
    feed(one, Disconnected(), now=now + 1.0)
    feed(one, Connected(), now=now + 90_000.0)
    now = live(one, now + 90_000.0, 0.0, 9.0, first=2)
    assert one.deadline is not None
    assert one.deadline - now <= 1.875 * 9.0


def test_a_verdict_that_was_asked_for_says_nothing_of_how_long_rounds_last() -> None:
    one = offering()
    feed(one, verdict(), now=3.0)
    now = live(one, 0.0, 40.0)
    assert one.deadline is not None
    assert one.deadline - now >= 1.125 * 40.0


def test_after_the_first_pause_they_double() -> None:
    one = offering()
    now = live(one, 0.0, 20.0)
    pauses = []
    for _ in range(5):
        assert one.deadline is not None
        pauses.append(one.deadline - now)
        now = one.deadline
        assert of(Send, one.tick(now))
    doublings = [30.0, 60.0, 120.0, 120.0, 120.0]
    assert all(0.75 * base <= pause <= 1.25 * base for base, pause in zip(doublings, pauses, strict=True))


def test_a_new_update_and_a_new_connection_begin_with_the_first_pause() -> None:
    one = offering(spec=FOLDS)
    for _ in range(6):
        assert one.deadline is not None
        one.tick(one.deadline)
    feed(one, Connected(), now=1000.0)
    one.tick(1000.0)
    assert one.deadline is not None
    assert one.deadline <= 1000.0 + 1.25 * FIRST_RESEND_S
    for _ in range(6):
        assert one.deadline is not None
        one.tick(one.deadline)
    feed(one, verdict(), head(V1), round_(V1, seconds_left=1e5), Installed(V1), Trained(offer(V1)), now=5000.0)
    assert one.deadline is not None
    assert one.deadline <= 5000.0 + 1.25 * FIRST_RESEND_S


def test_a_further_attempt_that_draws_the_device_has_it_offer_again_soon() -> None:
    one = offering()
    heartbeat = structs.replace(round_(), seconds_left=50.0)
    for same in (heartbeat, structs.replace(round_(), threshold=0, attempt=2)):  # the latter draws others
        assert feed(one, same, now=10.0) == []
        assert one.deadline is not None
        assert one.deadline > 10.0 + FIRST_RESEND_S
    assert feed(one, structs.replace(round_(), attempt=3), now=20.0) == []
    assert one.deadline is not None
    assert 20.0 <= one.deadline <= 20.0 + FIRST_RESEND_S
    assert of(Send, one.tick(one.deadline)) == [Send(offer(), with_body=True)]
    at = one.deadline
    assert feed(one, structs.replace(round_(), attempt=3, seconds_left=40.0), now=25.0) == []  # its heartbeat
    assert one.deadline == at


def test_a_further_attempt_under_another_name_of_the_base_is_one_too() -> None:
    renamed = Version(7, 0)
    one = offering()
    feed(one, Round("j-1", 2, renamed, 60.0, attempt=2, aliases=(V0,)), now=20.0)
    assert one.deadline is not None
    assert one.deadline <= 20.0 + FIRST_RESEND_S


def test_a_small_body_goes_along_every_time_and_a_large_one_only_first() -> None:
    for body, again in ((b"x" * 2048, True), (b"x" * 2049, False)):
        one = offering(body)
        assert one.deadline is not None
        (send,) = one.tick(one.deadline)
        assert isinstance(send, Send)
        assert send.with_body is again


def test_a_large_body_goes_along_first_also_with_the_second_update() -> None:
    one = offering(b"x" * 2049)
    feed(one, Verdict("d", "j-1", V0, echo(offer(body=b"x" * 2049))), head(V1), round_(V1), Installed(V1))
    second = offer(V1, b"y" * 2049)
    assert feed(one, Trained(second)) == [Send(second, with_body=True)]


def test_a_connection_offers_anew_within_its_window() -> None:
    one = offering()
    for _ in range(6):
        assert one.deadline is not None
        one.tick(one.deadline)
    feed(one, Connected(spread_s=2.0), now=1000.0)
    assert one.deadline is not None
    assert 1000.0 <= one.deadline <= 1002.0


def test_an_update_is_over_when_a_later_base_is_announced_and_the_next_training_begins() -> None:
    one = offering()
    assert feed(one, carrying(V1)) == [let_go(V1), fetch(carrying(V1))]
    assert (one.offer, one.trained, one.done) == (None, V0, V0)
    assert feed(offering(), head(V1)) == [let_go(V1)]


@pytest.mark.parametrize("end", [JobEnded(V0, 1), JobEnded(V1, 1), head(V0, "stopped"), head(V1, "finished")])
def test_an_update_is_over_when_the_job_is(end: Any) -> None:
    last = end.last if isinstance(end, JobEnded) else end.version
    assert feed(offering(), end) == [let_go(last)]


@pytest.mark.parametrize(
    "word",
    [head(V0), round_(V0), head(V2, term=0), round_(V2, term=0), JobEnded(V2, 0)],
    ids=["its head", "its round", "a head of before", "a round of before", "an end of before"],
)
def test_an_update_is_offered_on_while_nobody_who_leads_has_left_its_base(word: Any) -> None:
    one = offering()
    assert feed(one, word) == []
    assert one.offer == offer()


def test_the_end_of_a_job_that_a_backup_has_brought_back_ends_no_later_update() -> None:
    again = Version(9, 0)
    one = device(offer=offer(again), trained=again, ready=False)
    assert feed(one, JobEnded(V1, 1), Ready()) == [Send(offer(again), with_body=True)]
    assert feed(one, JobEnded(again, 2)) == [let_go(again, again)]


def test_an_update_on_disk_whose_base_was_left_meanwhile_is_over_at_the_first_word() -> None:
    one = device(offer=offer(), trained=V0, ready=False, online=False)
    assert feed(one, Ready(), Connected(spread_s=2.0), round_(V1)) == [let_go(V1), RequestHead()]
    assert of(Send, one.tick(1e3)) == []


def test_where_late_updates_are_folded_the_next_training_waits_for_the_verdict() -> None:
    one = offering(spec=FOLDS)
    assert feed(one, head(V1), round_(V1)) == []
    assert feed(one, verdict()) == [settle(), fetch(head(V1))]
    ending = offering(spec=FOLDS)
    assert feed(ending, JobEnded(V1, 1)) == []
    assert ending.offer == offer()


@pytest.mark.parametrize("refused", ["", "stale"])
def test_a_verdict_settles_the_update(refused: str) -> None:
    one = offering()
    assert feed(one, verdict(refused=refused)) == [settle(refused=refused)]
    assert one.offer is None
    assert one.deadline is None
    assert feed(one, verdict(refused=refused)) == []


@pytest.mark.parametrize(
    "other", [verdict(V1), Verdict("d", "j-1", V0, "ffffffff"), Verdict("d", "j-1", V1, echo(offer()))]
)
def test_a_verdict_on_another_update_settles_nothing(other: Verdict) -> None:
    assert feed(offering(), other) == []


def test_what_is_wanted_of_the_update_is_uploaded() -> None:
    one = offering()
    want = Want("d", "j-1", offer().digest, "01")
    assert feed(one, want) == [Upload(want)]
    assert feed(one, Want("d", "j-1", "f" * 32, "01")) == []
    feed(one, verdict())
    assert feed(one, want) == []


def test_an_upload_has_time_before_the_offer_is_repeated() -> None:
    one = offering()
    feed(one, Want("d", "j-1", offer().digest, "01"), now=20.0)
    assert one.deadline is not None
    assert one.deadline >= 20.0 + 0.75 * (60.0 - 20.0) / 2


def test_an_update_on_disk_is_offered_after_a_start() -> None:
    one = device(offer=offer(), trained=V0, ready=False)
    assert feed(one, Ready()) == [Send(offer(), with_body=True)]
    assert one.doing == "offering an update to version 1.0"


def test_an_offer_goes_without_its_body_when_it_is_asked_to() -> None:
    assert without_body(offer()).body == b""
    assert without_body(offer()).digest == offer().digest


# Deployment.


def deploying(policy: str, **state: Any) -> Participant:
    return device(JobSpec("j", ModelSpec(), deploy=policy), **state)


def test_the_final_version_is_fetched_and_deployed() -> None:
    one = deploying("final")
    assert feed(one, head(V1)) == []
    assert feed(one, head(V1, "finished")) == [fetch(head(V1, "finished"))]
    assert feed(one, Installed(V1)) == [Deploy(V1)]
    assert feed(one, head(V1, "finished")) == []


def test_every_second_version_is_deployed() -> None:
    one = deploying("every 2")
    assert feed(one, head(V0), head(V1)) == []
    assert feed(one, head(V2), Installed(V2)) == [fetch(head(V2)), Deploy(V2)]


def test_a_device_that_never_deploys_fetches_nothing() -> None:
    assert feed(deploying("never"), head(V2, "finished")) == []
    assert feed(deploying("final", has_slot=False), head(V2, "finished")) == []


def test_what_is_deployed_is_not_fetched_again_after_a_start() -> None:
    assert feed(deploying("final", deployed=V2), head(V2, "finished")) == []


def test_a_version_may_be_deployed_and_trained_on() -> None:
    one = deploying("every 1")
    feed(one, head(V1), round_(V1))
    assert feed(one, Installed(V1)) == [Deploy(V1), Train(V1, (0, 32, 0))]


# What is deployed is a mean.

V24, V25 = Version(1, 24), Version(1, 25)


def averaging(policy: str = "every 1", **state: Any) -> Participant:
    """A device that deploys version 24 as the mean of 22 to 24, and 25 as that of 23 to 25."""
    return device(JobSpec("j", ModelSpec(), deploy=policy, deploy_average=4), **state)


def asking(source: Head, since: int) -> FetchVersion:
    return FetchVersion(source.version, source, since)


def test_a_version_that_is_deployed_is_fetched_by_way_of_those_that_it_is_averaged_with() -> None:
    for one, source in ((averaging(), head(V24)), (averaging("final"), head(V24, "finished"))):
        assert feed(one, source) == [asking(source, 22)]
        assert feed(one, Installed(V24, 22)) == [Deploy(V24)]


def test_a_version_that_is_only_trained_on_is_fetched_the_shortest_way() -> None:
    one = averaging("final")
    assert feed(one, head(V24), round_(V24)) == [fetch(head(V24))]
    assert feed(one, Installed(V24)) == [Train(V24, (0, 32, 0))]


def test_the_way_along_with_a_round_is_enough_for_who_has_come_by_the_versions_before() -> None:
    one = averaging()
    feed(one, head(V24), Installed(V24, 22))
    assert feed(one, carrying(V25)) == [FetchVersion(V25, carrying(V25), 23)]
    assert feed(one, Installed(V25, 23)) == [Deploy(V25), Train(V25, (0, 32, 0))]


def test_the_way_along_with_a_round_is_not_enough_for_who_has_not() -> None:
    one = averaging("every 25")
    feed(one, head(V24), round_(V24))
    feed(one, Installed(V24), Trained(offer(V24)))
    assert feed(one, carrying(V25))[-1:] == [RequestHead()]
    assert feed(one, head(V25)) == [asking(head(V25), 23)]


def test_what_it_is_averaged_with_is_fetched_for_a_version_that_is_here_and_training_does_not_wait() -> None:
    one = averaging("final")
    feed(one, head(V24), round_(V24, threshold=draw.MAX_TICKET), Installed(V24))
    stopped = head(V24, "stopped")
    assert feed(one, stopped) == [Halt(V24), asking(stopped, 22)]
    assert feed(one, Installed(V24, 22)) == [Deploy(V24)]
    one = averaging("every 24")
    assert feed(one, head(V24), head(V25), Installed(V24)) == [asking(head(V24), 22), Drop()], (
        "it comes by itself, late"
    )
    again = head(V24, term=2)
    assert feed(one, again, round_(V24, term=2)) == [asking(again, 22), Train(V24, (0, 32, 0))]
    assert feed(one, Installed(V24, 22)) == [Deploy(V24)]


def test_where_they_cannot_be_had_the_version_is_deployed_by_itself_and_not_fetched_again() -> None:
    one = averaging()
    assert feed(one, head(V24)) == [asking(head(V24), 22)]
    assert feed(one, Installed(V24, 24)) == [Deploy(V24)]
    assert feed(one, DeployFailed(V24, "full"), head(V24)) == []
    assert one.tick(1e6) == [Deploy(V24)]
    assert feed(one, Deployed(V24), head(V24), now=1e6) == []
    assert feed(one, head(V25), now=1e6) == [asking(head(V25), 23)], "of the next one they are asked for again"


def test_a_fetch_that_fails_is_tried_again_without_them() -> None:
    one = averaging()
    feed(one, head(V24))
    for now in (0.0, REFETCH_S):
        assert feed(one, FetchFailed(V24), now=now) == []
        assert one.tick(now + REFETCH_S) == [RequestHead()]
        assert feed(one, head(V24), now=now + REFETCH_S) == [fetch(head(V24))]
    assert feed(one, Installed(V24)) == [Deploy(V24)]


def test_a_fetch_without_them_that_fails_says_nothing_of_them() -> None:
    one = averaging("final")
    assert feed(one, head(V24), round_(V24)) == [fetch(head(V24))]
    assert feed(one, FetchFailed(V24)) == []
    stopped = head(V24, "stopped")
    assert feed(one, stopped) == [asking(stopped, 22)]


# Offline, deployment that fails, and other names of a base.


def test_while_offline_nothing_is_sent_and_no_time_is_kept() -> None:
    one = offering()
    feed(one, Disconnected())
    assert one.deadline is None
    assert one.tick(1e6) == []
    assert one.tick(2e6) == []
    assert feed(one, Connected(), now=2e6) == [Send(offer(), with_body=True)]


def test_an_update_that_was_made_offline_goes_with_its_body_at_the_connect() -> None:
    one = training()
    feed(one, Disconnected())
    large = offer(body=b"x" * 5000)
    assert feed(one, Trained(large), now=5.0) == []
    assert feed(one, Connected(), now=9.0) == [Send(large, with_body=True)]


def test_a_device_that_halts_is_free_for_the_next_base_in_the_same_breath() -> None:
    one = training()
    feed(one, head(V1))
    one = training()
    assert feed(one, carrying(V1)) == [Halt(V0), fetch(carrying(V1))]
    assert feed(one, Installed(V1)) == [Train(V1, (0, 32, 0))]


def test_a_version_that_cannot_be_deployed_is_tried_again_with_growing_pauses() -> None:
    one = deploying("final")
    feed(one, head(V1, "finished"))
    assert feed(one, Installed(V1)) == [Deploy(V1)]
    now, pauses = 0.0, []
    for _ in range(9):
        assert feed(one, DeployFailed(V1, "No space left on device"), now=now) == []
        at = one.deadline
        assert at is not None
        assert one.tick(at - 0.001) == []
        assert one.tick(at) == [Deploy(V1)]
        pauses.append(at - now)
        now = at
    assert pauses[0] == FIRST_REDEPLOY_S
    assert pauses[-1] == LAST_REDEPLOY_S
    assert pauses == sorted(pauses)
    assert feed(one, Deployed(V1), now=now) == []
    assert one.deadline is None
    assert feed(one, head(V1, "finished"), now=now + 1e5) == []


def test_a_version_is_not_deployed_twice_while_it_is_being_put_in() -> None:
    one = deploying("every 1")
    assert feed(one, head(V1), Installed(V1)) == [fetch(head(V1)), Deploy(V1)]
    assert feed(one, head(V1), Connected()) == []
    assert feed(one, head(V2), Installed(V2)) == [fetch(head(V2)), Deploy(V2)]
    assert feed(one, Deployed(V1), head(V2)) == []
    assert feed(one, DeployFailed(V1, "late")) == []


def test_a_version_that_is_fetched_to_be_deployed_is_not_trained_on_by_who_is_not_drawn() -> None:
    one = deploying("every 1")
    assert feed(one, round_(V1, threshold=0), head(V1))[-1:] == [fetch(head(V1))]
    assert feed(one, Installed(V1)) == [Deploy(V1)]


def test_a_version_that_is_deployed_ends_the_growing_of_the_pauses() -> None:
    one = deploying("every 1")
    feed(one, head(V1), Connected(), Installed(V1))
    for now in (0.0, 1e4):
        feed(one, DeployFailed(V1, "No space left on device"), now=now)
        assert of(Deploy, one.tick(now + LAST_REDEPLOY_S))
    feed(one, Deployed(V1), head(V2), Installed(V2), DeployFailed(V2, "No space left on device"), now=1e5)
    assert of(Deploy, one.tick(1e5 + FIRST_REDEPLOY_S)) == [Deploy(V2)]


def test_an_update_to_a_former_name_of_the_base_is_settled_under_the_present_one() -> None:
    renamed = Version(9, 0)
    again = Round("j-1", 2, renamed, 60.0, aliases=(V0,))
    one = offering()
    assert feed(one, again, head(renamed, term=2)) == []
    assert feed(one, verdict()) == [settle(renamed=renamed)]
    assert feed(one, again, head(renamed, term=2), now=1.0) == []


def test_an_update_is_offered_on_until_a_round_says_that_another_name_is_of_another_base() -> None:
    """A head tells no former names; and only a version of the same number can be the very base."""
    renamed, again = Version(9, 0), Round("j-1", 2, Version(9, 0), 60.0, aliases=(V0,))
    one = offering()
    assert feed(one, head(renamed, term=2)) == []
    assert feed(one, again) == []
    assert one.offer == offer()
    assert feed(one, head(Version(9, 1), term=2)) == [let_go(Version(9, 1))]
    other = offering()
    assert feed(other, head(renamed, term=2), structs.replace(again, aliases=()))[0] == let_go(renamed)


def test_an_update_to_what_a_restored_backup_has_lost_is_over() -> None:
    one = training(V1)
    feed(one, Trained(offer(V1)))
    assert feed(one, Round("j-1", 2, Version(9, 0), 60.0, aliases=(V0,))) == [let_go(Version(9, 0), V1), RequestHead()]


def test_an_older_base_in_a_higher_term_ends_no_update_and_is_told_of_the_later_one() -> None:
    """Who leads from an older store that has not noticed hears of the later version by the offer."""
    one = training(V1)
    feed(one, Trained(offer(V1)))
    assert feed(one, Round("j-1", 2, V0, 60.0), head(V0, term=2)) == []
    assert one.offer == offer(V1)


def test_who_was_settled_under_a_former_name_of_the_base_trains_again_unless_the_round_says_that_it_counts() -> None:
    renamed = Version(9, 0)
    again = Round("j-1", 2, renamed, 60.0, aliases=(V0,))
    fetches = [RequestHead(), fetch(head(renamed, term=2))]
    assert feed(device(trained=V0), again, head(renamed, term=2)) == fetches
    assert feed(device(trained=V0), structs.replace(again, settled=("a", "d")), head(renamed, term=2)) == []
    assert feed(device(trained=V0), structs.replace(again, settled=("a",)), head(renamed, term=2)) == fetches
    assert feed(device(trained=Version(1, 7)), again, head(renamed, term=2)) == fetches


def test_a_training_on_a_former_name_of_the_base_goes_on() -> None:
    renamed = Version(9, 0)
    one = training()
    assert feed(one, Round("j-1", 2, renamed, 60.0, aliases=(V0,))) == []
    assert feed(one, Trained(offer())) == [Send(offer(), with_body=True)]
    assert feed(training(), Round("j-1", 2, renamed, 60.0))[0] == Halt(V0)


# Two stores that were one, and lead in turn.

COPYS, ORIGINALS = Version(588, 0), Version(700, 0)
"""Names that a copy and its original have given to version 0 of generation 1."""


def goes_on(base: Version, term: int, *aliases: Version) -> Round:
    return Round("j-1", term, base, 60.0, aliases=aliases)


def on_the_copys(spec: JobSpec = SPEC) -> Participant:
    """A device that trains on the copy's name of the version."""
    one = device(spec)
    began = feed(one, goes_on(COPYS, 2, V0), head(COPYS, term=2), Installed(COPYS))
    assert began[-1] == Train(COPYS, (0, 32, 0), (V0,))
    return one


@pytest.mark.parametrize("spec", [SPEC, FOLDS], ids=["refuse", "fold"])
@pytest.mark.parametrize("restarted", [False, True])
def test_an_update_is_offered_under_the_name_that_another_leader_has_for_its_base(
    restarted: bool, spec: JobSpec
) -> None:
    one = on_the_copys(spec)
    assert feed(one, Trained(offer(COPYS))) == [Send(offer(COPYS), with_body=True)]
    if restarted:
        one = device(spec, offer=offer(COPYS), names=(V0,), trained=COPYS)
        one.tick(0.0)
    assert feed(one, goes_on(ORIGINALS, 3, V0), now=1.0) == []
    assert one.tick(1.0 + FIRST_RESEND_S) == [Send(offer(ORIGINALS), with_body=True)]
    assert feed(one, verdict(COPYS), now=6.0) == []
    assert feed(one, verdict(ORIGINALS), now=6.0) == [settle(ORIGINALS)]
    assert (one.trained, one.doing) == (ORIGINALS, "")


def test_an_update_to_a_higher_name_than_the_leaders_is_offered_under_it_so_that_the_leader_hears_of_it() -> None:
    one = device()
    feed(one, Round("j-1", 2, COPYS, 60.0, aliases=(V0,), along=b"12345678"), Installed(COPYS), Trained(offer(COPYS)))
    assert feed(one, goes_on(V0, 3), Connected(), now=1.0) == [Send(offer(COPYS), with_body=True)]
    assert one.offer == offer(COPYS)


def test_an_update_to_another_version_of_the_same_number_is_over() -> None:
    one = on_the_copys()
    feed(one, Trained(offer(COPYS)))
    assert feed(one, goes_on(ORIGINALS, 3, Version(1, 1)))[0] == let_go(ORIGINALS, COPYS)


def test_an_update_that_cannot_come_late_in_another_history_is_over_though_late_ones_are_folded() -> None:
    for later, over in ((Version(9, 1), True), (Version(9, 0), True), (Version(9, 2), False), (Version(1, 2), False)):
        one = training(V1, FOLDS)
        feed(one, Trained(offer(V1)))
        assert of(Settle, feed(one, goes_on(later, 2))) == ([let_go(later, V1)] if over else [])


def test_a_training_goes_on_under_a_higher_name_that_another_leader_has_for_its_base() -> None:
    one = on_the_copys()
    assert feed(one, head(ORIGINALS, term=3), goes_on(ORIGINALS, 3, V0)) == []
    assert feed(one, Trained(offer(COPYS))) == [Send(offer(ORIGINALS), with_body=True)]


def test_a_training_is_begun_under_a_lower_name_that_another_leader_has_for_its_base_from_where_it_stands() -> None:
    one = device()
    assert feed(one, Round("j-1", 2, COPYS, 60.0, aliases=(V0,), along=b"12345678"), Installed(COPYS))
    again = Round("j-1", 3, V0, 60.0, along=b"12345678")
    assert feed(one, again, Installed(V0)) == [
        Halt(COPYS, goes_on=True),
        FetchVersion(V0, again),
        Train(V0, (0, 32, 0)),
    ]


def test_a_training_that_is_left_for_another_version_does_not_go_on() -> None:
    assert feed(on_the_copys(), goes_on(ORIGINALS, 3))[0] == Halt(COPYS)
    assert feed(on_the_copys(), goes_on(Version(588, 1), 3, V0))[0] == Halt(COPYS)


def test_an_update_that_is_lost_on_disk_is_trained_again() -> None:
    one = offering()
    assert feed(one, UpdateLost(None)) == [Train(V0, (0, 32, 0))]
    settled = offering()
    feed(settled, verdict(), head(V1), round_(V1), Installed(V1), Trained(offer(V1)))
    assert feed(settled, UpdateLost(V0)) == [Train(V1, (0, 32, 0))]


def test_a_training_that_failed_is_done_once_more_where_a_round_wants_its_update_coded_otherwise() -> None:
    one = device()
    feed(one, head(V0), structs.replace(round_(V0), terms=(2**20, 1, 0)), Installed(V0))
    assert one.receive(TrainingFailed(V0, "no update is coded in so many buckets"), 1.0) == []
    assert of(Train, feed(one, structs.replace(round_(V0), terms=(2**20, 1, 0), attempt=2))) == []
    (train,) = of(Train, feed(one, structs.replace(round_(V0), terms=(64, 1, 0), attempt=3)))
    assert (train.base, train.terms) == (V0, (64, 1, 0))
