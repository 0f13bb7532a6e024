from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.version import Connect, ConnectAnswer, VersionChoice

answers = st.sampled_from(ConnectAnswer)


def told(*answers: ConnectAnswer) -> VersionChoice:
    choice = VersionChoice("auto")
    for answer in answers:
        choice.note(answer)
    return choice


@given(st.lists(answers, max_size=20))
def test_a_version_that_was_set_is_kept_whatever_the_broker_answers(said: list[ConnectAnswer]) -> None:
    for setting, how in (("5", Connect.NEWER), ("3.1.1", Connect.OLDER)):
        choice = VersionChoice(setting)  # type: ignore[arg-type]  # mypy widens the literals
        for answer in said:
            assert choice.note(answer) is False
            assert choice.next is how


@given(st.lists(st.sampled_from([ConnectAnswer.NONE, ConnectAnswer.SILENCE, ConnectAnswer.ACCEPTED]), max_size=20))
def test_silence_however_often_is_no_sign_of_an_older_broker(said: list[ConnectAnswer]) -> None:
    assert told(*said).next is not Connect.OLDER


def test_after_two_silences_running_nothing_but_the_version_is_asked_and_at_once() -> None:
    choice = VersionChoice("auto")
    assert choice.note(ConnectAnswer.SILENCE) is False
    assert choice.next is Connect.NEWER
    assert choice.note(ConnectAnswer.SILENCE) is True
    assert choice.next is Connect.BARE


@pytest.mark.parametrize(
    ("answer", "at_once", "how"),
    [
        (ConnectAnswer.ACCEPTED, True, Connect.NEWER),  # it was busy
        (ConnectAnswer.VERSION_REFUSED, True, Connect.OLDER),  # amqtt
        (ConnectAnswer.GARBAGE, True, Connect.OLDER),
        (ConnectAnswer.SILENCE, False, Connect.NEWER),
        (ConnectAnswer.CLOSED, False, Connect.NEWER),
        (ConnectAnswer.NONE, False, Connect.NEWER),
    ],
)
def test_what_the_answer_to_a_bare_question_leads_to(answer: ConnectAnswer, at_once: bool, how: Connect) -> None:
    choice = told(ConnectAnswer.SILENCE, ConnectAnswer.SILENCE)
    assert choice.note(answer) is at_once
    assert choice.next is how


def test_a_refusal_in_words_is_remembered_even_if_the_older_version_finds_nobody() -> None:
    choice = VersionChoice("auto")
    assert choice.note(ConnectAnswer.VERSION_REFUSED) is True
    assert choice.next is Connect.OLDER
    for answer in (
        ConnectAnswer.NONE,
        ConnectAnswer.ACCEPTED,
        ConnectAnswer.SILENCE,
        ConnectAnswer.CLOSED,
        ConnectAnswer.CLOSED,
        ConnectAnswer.NONE,
    ):
        assert choice.note(answer) is False
        assert choice.next is Connect.OLDER


def test_a_broker_that_closes_unanswered_is_asked_for_5_twice_before_the_older_version_is_tried() -> None:
    choice = VersionChoice("auto")
    assert choice.note(ConnectAnswer.CLOSED) is False
    assert choice.next is Connect.NEWER
    assert choice.note(ConnectAnswer.CLOSED) is True
    assert choice.next is Connect.OLDER


@pytest.mark.parametrize("between", [ConnectAnswer.NONE, ConnectAnswer.SILENCE, ConnectAnswer.ACCEPTED])
def test_closings_with_something_else_between_are_not_running(between: ConnectAnswer) -> None:
    assert told(ConnectAnswer.CLOSED, between, ConnectAnswer.CLOSED).next is Connect.NEWER


@pytest.mark.parametrize("doubt", [[ConnectAnswer.GARBAGE], [ConnectAnswer.CLOSED, ConnectAnswer.CLOSED]])
def test_only_a_connack_to_the_older_version_proves_an_older_broker(doubt: list[ConnectAnswer]) -> None:
    for nothing in (ConnectAnswer.NONE, ConnectAnswer.SILENCE, ConnectAnswer.CLOSED, ConnectAnswer.GARBAGE):
        assert told(*doubt, nothing).next is Connect.NEWER
    assert told(*doubt, ConnectAnswer.ACCEPTED).next is Connect.OLDER
    assert (
        told(*doubt, ConnectAnswer.ACCEPTED, ConnectAnswer.NONE, ConnectAnswer.CLOSED, ConnectAnswer.CLOSED).next
        is Connect.OLDER
    )


def test_a_port_that_hangs_up_on_both_versions_ends_up_on_5_once_its_broker_is_there() -> None:
    choice = told(*[ConnectAnswer.CLOSED] * 20)
    while choice.next is not Connect.NEWER:
        choice.note(ConnectAnswer.CLOSED)
    assert choice.note(ConnectAnswer.ACCEPTED) is False
    assert choice.next is Connect.NEWER


@pytest.mark.parametrize("refusal", [ConnectAnswer.VERSION_REFUSED, ConnectAnswer.GARBAGE])
def test_a_broker_that_refuses_the_older_version_too_is_asked_for_5_again(refusal: ConnectAnswer) -> None:
    assert told(ConnectAnswer.VERSION_REFUSED, ConnectAnswer.ACCEPTED, refusal).next is Connect.NEWER


@given(st.lists(answers, max_size=30), answers)
def test_whatever_was_said_an_attempt_asks_three_times_at_most(said: list[ConnectAnswer], last: ConnectAnswer) -> None:
    for answer in ConnectAnswer:
        choice = told(*said)
        n_asked = 1
        while choice.note(answer if n_asked % 2 else last):
            n_asked += 1
        assert n_asked <= 3
