from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.version import Answer, Connect, VersionChoice

answers = st.sampled_from(Answer)


def told(*answers: Answer) -> VersionChoice:
    choice = VersionChoice("auto")
    for answer in answers:
        choice.note(answer)
    return choice


@given(st.lists(answers, max_size=20))
def test_a_version_that_was_set_is_kept_whatever_the_broker_answers(said: list[Answer]) -> None:
    for setting, how in (("5", Connect.NEWER), ("3.1.1", Connect.OLDER)):
        choice = VersionChoice(setting)  # type: ignore[arg-type]  # mypy widens the literals
        for answer in said:
            assert choice.note(answer) is False
            assert choice.next is how


@given(st.lists(st.sampled_from([Answer.NONE, Answer.SILENCE, Answer.ACCEPTED]), max_size=20))
def test_silence_however_often_is_no_sign_of_an_older_broker(said: list[Answer]) -> None:
    assert told(*said).next is not Connect.OLDER


def test_after_two_silences_running_nothing_but_the_version_is_asked_and_at_once() -> None:
    choice = VersionChoice("auto")
    assert choice.note(Answer.SILENCE) is False
    assert choice.next is Connect.NEWER
    assert choice.note(Answer.SILENCE) is True
    assert choice.next is Connect.BARE


@pytest.mark.parametrize(
    ("answer", "at_once", "how"),
    [
        (Answer.ACCEPTED, True, Connect.NEWER),  # it was busy
        (Answer.VERSION_REFUSED, True, Connect.OLDER),  # amqtt
        (Answer.GARBAGE, True, Connect.OLDER),
        (Answer.SILENCE, False, Connect.NEWER),
        (Answer.CLOSED, False, Connect.NEWER),
        (Answer.NONE, False, Connect.NEWER),
    ],
)
def test_what_the_answer_to_a_bare_question_leads_to(answer: Answer, at_once: bool, how: Connect) -> None:
    choice = told(Answer.SILENCE, Answer.SILENCE)
    assert choice.note(answer) is at_once
    assert choice.next is how


def test_a_refusal_in_words_is_remembered_even_if_the_older_version_finds_nobody() -> None:
    choice = VersionChoice("auto")
    assert choice.note(Answer.VERSION_REFUSED) is True
    assert choice.next is Connect.OLDER
    for answer in (Answer.NONE, Answer.ACCEPTED, Answer.SILENCE, Answer.CLOSED, Answer.CLOSED, Answer.NONE):
        assert choice.note(answer) is False
        assert choice.next is Connect.OLDER


def test_a_broker_that_closes_unanswered_is_asked_for_5_twice_before_the_older_version_is_tried() -> None:
    choice = VersionChoice("auto")
    assert choice.note(Answer.CLOSED) is False
    assert choice.next is Connect.NEWER
    assert choice.note(Answer.CLOSED) is True
    assert choice.next is Connect.OLDER


@pytest.mark.parametrize("between", [Answer.NONE, Answer.SILENCE, Answer.ACCEPTED])
def test_closings_with_something_else_between_are_not_running(between: Answer) -> None:
    assert told(Answer.CLOSED, between, Answer.CLOSED).next is Connect.NEWER


@pytest.mark.parametrize("doubt", [[Answer.GARBAGE], [Answer.CLOSED, Answer.CLOSED]])
def test_only_a_connack_to_the_older_version_proves_an_older_broker(doubt: list[Answer]) -> None:
    for nothing in (Answer.NONE, Answer.SILENCE, Answer.CLOSED, Answer.GARBAGE):
        assert told(*doubt, nothing).next is Connect.NEWER
    assert told(*doubt, Answer.ACCEPTED).next is Connect.OLDER
    assert told(*doubt, Answer.ACCEPTED, Answer.NONE, Answer.CLOSED, Answer.CLOSED).next is Connect.OLDER


def test_a_port_that_hangs_up_on_both_versions_ends_up_on_5_once_its_broker_is_there() -> None:
    choice = told(*[Answer.CLOSED] * 20)
    while choice.next is not Connect.NEWER:
        choice.note(Answer.CLOSED)
    assert choice.note(Answer.ACCEPTED) is False
    assert choice.next is Connect.NEWER


@pytest.mark.parametrize("refusal", [Answer.VERSION_REFUSED, Answer.GARBAGE])
def test_a_broker_that_refuses_the_older_version_too_is_asked_for_5_again(refusal: Answer) -> None:
    assert told(Answer.VERSION_REFUSED, Answer.ACCEPTED, refusal).next is Connect.NEWER


@given(st.lists(answers, max_size=30), answers)
def test_whatever_was_said_an_attempt_asks_three_times_at_most(said: list[Answer], last: Answer) -> None:
    for answer in Answer:
        choice = told(*said)
        n_asked = 1
        while choice.note(answer if n_asked % 2 else last):
            n_asked += 1
        assert n_asked <= 3
