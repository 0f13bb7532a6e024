from broker.answerwait import ANSWERS_WAIT_S, MOST_BYTES, AnswerWait


def test_the_answers_to_several_packets_wait_for_each_other_a_little_while() -> None:
    wait = AnswerWait()
    assert wait.least(0.0, goes_on=True) == 1
    wait.sent(1.0, 3)
    assert wait.by == 1.0 + ANSWERS_WAIT_S
    assert wait.least(1.0, goes_on=True) == 12
    assert wait.least(1.0 + ANSWERS_WAIT_S, goes_on=True) == 1
    assert wait.by is None
    assert wait.least(1.0, goes_on=True) == 1, "it is over"


def test_where_something_else_is_missed_nothing_waits() -> None:
    wait = AnswerWait()
    wait.sent(1.0, 3)
    assert wait.least(1.0, goes_on=False) == 1
    assert wait.least(1.0, goes_on=True) == 1


def test_one_answer_waits_for_nobody() -> None:
    wait = AnswerWait()
    wait.sent(1.0, 1)
    assert wait.by is None


def test_many_answers_wait_for_no_more_than_a_message_has() -> None:
    wait = AnswerWait()
    wait.sent(1.0, 1000)
    assert wait.least(1.0, goes_on=True) == MOST_BYTES
