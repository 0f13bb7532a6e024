from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.live import decoding
from edge_agent.live.decoding import Decoder, Rubbish
from edge_agent.live.joining import Reading
from edge_agent.live.settings import TopicSettings


def of_numbers() -> Decoder:
    return Decoder(TopicSettings(topics={"t": "hall/t", "v": "hall/v"}, period_s=1.0))


def of_json(**more: object) -> Decoder:
    return Decoder(TopicSettings(topics=("hall/+/state",), fields={"t": "t", "x": "acc.x"}, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("payload", "value"),
    [(b"21.5", 21.5), (b" -3\n", -3.0), (b"1e3", 1000.0), (b'"7"', 7.0), (b"true", 1.0), (b"false", 0.0)],
)
def test_a_number_is_one_as_sensors_write_it(payload: bytes, value: float) -> None:
    assert of_numbers().read("hall/t", "", payload) == Reading("", {"t": value})


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", decoding.NO_NUMBER),
        (b"warm", decoding.NO_NUMBER),
        (b"21,5", decoding.NO_NUMBER),
        (b"1_000", decoding.NO_NUMBER),
        (b"\xff\xfe", decoding.NO_NUMBER),
        (b"[" * 50_000, decoding.NO_NUMBER),
        (b"9" * 5000, decoding.NO_NUMBER),
        (b"nan", decoding.NOT_FINITE),
        (b"-inf", decoding.NOT_FINITE),
        (b"1e39", decoding.NOT_FINITE),
        (b"1" * 70_000, decoding.LARGE),
    ],
)
def test_what_is_no_number_is_rubbish_of_a_kind(payload: bytes, why: str) -> None:
    assert of_numbers().read("hall/t", "", payload) == Rubbish(why)


def test_fields_are_taken_out_of_json_by_name_or_from_within_and_null_is_missing() -> None:
    payload = json.dumps({"t": 1, "acc": {"x": 2.5, "y": [1]}, "more": "x"}).encode()
    assert of_json().read("hall/+/state", "3", payload) == Reading("3", {"t": 1.0, "x": 2.5})
    assert of_json().read("hall/+/state", "3", b'{"t": null, "acc.x": true}') == Reading("3", {"x": True})


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"no json", decoding.NO_JSON),
        (b"[1]", decoding.NO_JSON),
        (b'{"t": NaN}', decoding.NO_JSON),
        (b'{"t":' * 10_000, decoding.NO_JSON),
        (b'{"u": 1}', decoding.NO_FIELD),
        (b'{"t": 1e300}', decoding.NOT_FINITE),
        (b'{"t": {"t": 1}}', decoding.NO_VALUE),
        (b'{"t": ""}', decoding.NO_VALUE),
        (json.dumps({"t": "x" * 201}).encode(), decoding.NO_VALUE),
        (b'{"t": "' + b"x" * 70_000 + b'"}', decoding.LARGE),
    ],
)
def test_json_that_says_nothing_of_use_is_rubbish_of_a_kind(payload: bytes, why: str) -> None:
    assert of_json().read("hall/+/state", "3", payload) == Rubbish(why)


def test_a_wildcard_names_a_group() -> None:
    assert of_json().routes("hall/3/state") == [("hall/+/state", "3")]
    assert of_json().routes("hall/3/4/state") == []
    below = Decoder(TopicSettings(topics=("hall/#",), fields=("t",)))
    assert [below.routes(topic) for topic in ("hall", "hall/1", "hall/1/2", "halls")] == [
        [("hall/#", "")],
        [("hall/#", "1")],
        [("hall/#", "1/2")],
        [],
    ]
    assert Decoder(TopicSettings(topics=("#",), fields=("t",))).routes("a/b") == [("#", "a/b")]


@pytest.mark.parametrize(
    ("payload", "label"),
    [(b"3", 3.0), (b"run", "run"), (b'"run"', "run"), (b"true", True), (b" idle \n", "idle"), (b"2 high", "2 high")],
)
def test_a_label_is_a_number_or_a_short_text(payload: bytes, label: float | str) -> None:
    assert of_json(label_topic="mode").label(payload) == label


@pytest.mark.parametrize("payload", [b"", b"\xff", b"x" * 300, b"{}", b"[1]", b"1e999", b"x" * 70_000])
def test_other_labels_are_rubbish(payload: bytes) -> None:
    assert isinstance(of_json(label_topic="mode").label(payload), Rubbish)


def test_a_label_may_be_a_field() -> None:
    decoder = of_json(label_topic="mode", label_field="is")
    assert decoder.label(b'{"is": "run"}') == "run"
    assert isinstance(decoder.label(b"run"), Rubbish)
    assert isinstance(decoder.label(b'{"was": "run"}'), Rubbish)


hostile = st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(["t", "acc", "x"]), below, max_size=3),
).map(lambda value: json.dumps(value).encode())


@given(hostile)
def test_whatever_comes_only_finite_numbers_and_short_texts_are_believed(payload: bytes) -> None:
    for found in (of_json().read("hall/+/state", "3", payload), of_numbers().read("hall/t", "", payload)):
        for value in {} if isinstance(found, Rubbish) else found.values.values():
            if isinstance(value, float):
                assert abs(value) <= decoding.FLOAT32
            elif not isinstance(value, bool):
                assert 0 < len(value) <= decoding.MOST_TEXT
    of_json(label_topic="mode").label(payload)
