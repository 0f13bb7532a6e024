from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from aggregator.effects import Attempt, Collect, SendVerdict, Setup, StoreRefusal
from aggregator.ledger import Ledger
from broker.messages import Offer, Verdict, Version, echo
from models import draw
from models.job import RoundsSpec

V0, V1, V2 = (Version(1, n) for n in range(3))
OLD, NEW = Version(1, 1), Version(700, 1)


def offer(device: str = "a", base: Version = V1, digest: str = "ab" * 8, n: int = 10, n_bytes: int = 50) -> Offer:
    return Offer("j", device, base, n, digest, n_bytes)


def drawn(base: Version = V1, *cohort: str, threshold: int = draw.MAX_TICKET) -> Attempt:
    return Attempt(base, 1, draw.salt(7, base.number), threshold, None, cohort)


def ledger(rules: RoundsSpec | None = None, base: Version = V1, **state: Any) -> Ledger:
    return Ledger(Setup(rules=rules or RoundsSpec(), seed=7, base=base, max_examples=1000, max_body_bytes=100, **state))


def counted(one: Offer) -> Verdict:
    return Verdict(one.device, one.job, one.base, echo(one))


def refusal(effects: list[Any]) -> str:
    (answer,) = effects
    assert isinstance(answer, SendVerdict)
    return answer.verdict.refused


def test_an_update_of_who_was_drawn_is_collected() -> None:
    assert ledger().weigh(offer(), drawn(), "") == [Collect(offer(), 10)]


@pytest.mark.parametrize("last", [None, drawn(V1, threshold=0)])
def test_who_has_not_been_drawn_has_no_answer_yet(last: Attempt | None) -> None:
    assert ledger().weigh(offer(), last, "") == []


def test_where_all_are_waited_for_only_members_are_taken() -> None:
    book = ledger(RoundsSpec(wait="all"))
    assert book.weigh(offer("a"), drawn(V1, "a"), "") == [Collect(offer("a"), 10)]
    assert book.weigh(offer("b"), drawn(V1, "a"), "") == []


def test_what_is_offered_again_gets_the_verdict_that_it_got() -> None:
    book = ledger()
    book.note(counted(offer()))
    assert book.weigh(offer(), drawn(), "") == [SendVerdict(counted(offer()))]
    (answer,) = book.weigh(offer(digest="cd" * 8), drawn(), "")
    assert isinstance(answer, SendVerdict)
    assert not answer.verdict.counted
    assert book.counted == {"a"}
    assert book.settled == ["a"]
    assert book.verdict_on("a") == book.last_of("a") == counted(offer())


def test_an_update_to_another_base_and_to_a_job_that_is_over_is_turned_away() -> None:
    assert (
        refusal(ledger().weigh(offer(base=V0), drawn(), ""))
        == "stale: it is based on version 1.0, the current one is 1.1"
    )
    assert refusal(ledger().weigh(offer(base=V2), drawn(), "")).startswith("stale")
    assert refusal(ledger().weigh(offer(), drawn(), "stopped")) == "the job has ended"


COPY = {"base": Version(588, 3), "renames": {V1: Version(588, 1)}}
"""Of a store that was copied at version 1, and has made two more since."""


@pytest.mark.parametrize("base", [V2, Version(300, 1), Version(977, 1), Version(977, 9)], ids=str)
def test_an_update_to_a_base_that_was_never_here_is_left_to_the_store_that_has_it(base: Version) -> None:
    """The original may lead again, and may have counted it: a refusal from here would be another verdict."""
    assert ledger(**COPY).weigh(offer(base=base), drawn(Version(588, 3)), "") == []


@pytest.mark.parametrize("base", [V0, Version(588, 2), Version(588, 7)], ids=str)
def test_an_update_to_a_base_of_this_history_is_stale_though_it_went_by_other_names(base: Version) -> None:
    assert refusal(ledger(**COPY).weigh(offer(base=base), drawn(Version(588, 3)), "")).startswith("stale")


def test_an_update_to_a_base_that_was_never_here_is_refused_where_its_device_waits_for_nothing_else() -> None:
    """Where late ones are folded a later version says nothing of them; a base that is not older is never folded."""
    book, last = ledger(RoundsSpec(late="fold"), **COPY), drawn(Version(588, 3))
    assert refusal(book.weigh(offer(base=Version(977, 2)), last, "")).startswith("stale")
    assert book.weigh(offer(base=Version(977, 3)), last, "") == []
    assert refusal(book.weigh(offer(base=Version(977, 3)), last, "stopped")) == "the job has ended"


@pytest.mark.parametrize("more", [{"n": 1001}, {"n_bytes": 101}])
def test_an_envelope_that_claims_too_much_is_refused_for_good(more: dict[str, int]) -> None:
    (record,) = ledger().weigh(offer(**more), drawn(), "")
    assert isinstance(record, StoreRefusal)
    assert not record.verdict.counted


def test_a_late_update_counts_where_the_job_folds_them_and_its_round_had_drawn_it() -> None:
    rules = RoundsSpec(late="fold", max_staleness=3)
    book = ledger(rules, left={V0: drawn(V0)})
    assert book.weigh(offer(base=V0, n=100), drawn(), "") == [Collect(offer(base=V0, n=100), 70)]
    assert refusal(ledger(rules, left={V0: drawn(V0, threshold=0)}).weigh(offer(base=V0), drawn(), "")).startswith(
        "stale"
    )
    assert refusal(ledger(rules).weigh(offer(base=V0), drawn(), "")).startswith("stale")


def test_a_weight_is_shifted_as_the_attempt_says_and_a_larger_claim_counts_as_the_most() -> None:
    book = Ledger(Setup(rules=RoundsSpec(), seed=7, base=V1))
    for shift, n, weight in ((0, 10, 10), (3, 80, 10), (3, 1, 1), (0, 2**20 + 1, 2**20), (3, 2**32, 2**20)):
        one = offer(n=n)
        assert book.weigh(one, structs.replace(drawn(), shift=shift), "") == [Collect(one, weight)]


def test_a_late_update_has_the_shift_of_the_sum_that_it_goes_into() -> None:
    book = ledger(RoundsSpec(late="fold"), left={V0: structs.replace(drawn(V0), shift=2)})
    late = offer(base=V0, n=800)
    assert book.weigh(late, None, "") == [Collect(late, 565 >> 2)], "before there is an attempt that of the base before"
    assert book.shift(None) == 2
    assert book.weigh(late, drawn(V1), "") == [Collect(late, 565)]
    book.leave(V2, structs.replace(drawn(V1), shift=5))
    assert book.shift(None) == 5


def test_who_leaves_a_base_takes_nothing_but_the_verdicts_along() -> None:
    book = ledger(RoundsSpec(late="fold", max_staleness=1))
    book.note(counted(offer()))
    book.leave(V2, drawn(V1))
    assert (book.base, book.counted, book.settled) == (V2, set(), [])
    assert book.last_of("a") == counted(offer())
    assert book.weigh(offer("b", V1), drawn(V2), "")[0] == Collect(offer("b", V1), 7)
    book.leave(Version(1, 3), drawn(V2))
    assert refusal(book.weigh(offer("c", V1), drawn(Version(1, 3)), "")).startswith("stale")


def test_an_update_to_a_former_name_of_the_base_is_one_to_the_base_and_answered_under_the_name_it_has() -> None:
    book = ledger(base=NEW, renames={OLD: NEW})
    assert book.weigh(offer(base=OLD), drawn(NEW), "") == [Collect(offer(base=NEW), 10)]
    verdict = counted(offer(base=NEW))
    book.note(verdict)
    assert book.answer(verdict) == SendVerdict(counted(offer(base=OLD)))
    assert book.weigh(offer(base=OLD), drawn(NEW), "") == [SendVerdict(counted(offer(base=OLD)))]
    assert book.present(OLD) == book.present(NEW) == NEW


def test_a_device_that_is_in_the_sum_is_not_counted_again_under_another_name_of_the_base() -> None:
    known = counted(offer(base=NEW))
    book = ledger(base=NEW, verdicts=[known], renames={OLD: NEW})
    assert book.counted == {"a"}
    assert refusal(book.weigh(offer(base=OLD, digest="cd" * 8), drawn(NEW), "")).startswith("this device already has")
