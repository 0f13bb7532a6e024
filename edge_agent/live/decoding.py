"""What a message of a topic says, as values of columns; or why it says nothing that can be used.

Whoever may publish at the site's broker may send anything. Nothing of a message is believed but finite numbers within
float32, and texts of MOST_TEXT characters; why one is rubbish is a word of ours, and holds nothing of what was sent.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from edge_agent.live.joining import SHARED, Reading, Value
from edge_agent.live.settings import TopicSettings, has_wildcard

MOST_BYTES = 65_536
"""Of a message. A broker of MQTT 5 is told, and does not send more."""
MOST_TEXT = 200
"""Characters of a value that is text, and of the name of a group."""
FLOAT32 = 3.4028234663852886e38

LARGE = f"are larger than {MOST_BYTES:,} bytes"
NO_JSON = "are no JSON object"
NO_FIELD = "have none of the fields"
NO_NUMBER = "are no number"
NOT_FINITE = "have a number that is not finite, or beyond float32"
NO_VALUE = "have a field that is neither a number nor a short text"
MANY = "are of one group too many"
"""Kinds of rubbish, as they go on after "some messages of hall/t "."""


class Rubbish(NamedTuple):
    """A message that cannot be used."""

    why: str


class _Route(NamedTuple):
    topic: str
    """As the settings have it: what is told of."""
    columns: tuple[str, ...]
    """Of its numbers; none where it has JSON objects."""
    pattern: re.Pattern[str] | None
    """Finds what the wildcards stand for; None without one."""


class Decoder:
    """What the settings of a source make of messages."""

    def __init__(self, settings: TopicSettings) -> None:
        self._settings = settings
        self._paths = tuple(settings.paths.items())
        named = settings.topics if isinstance(settings.topics, Mapping) else {}
        routes = [
            _Route(topic, tuple(name for name, of in named.items() if of == topic), _pattern(topic))
            for topic in settings.filters
        ]
        self._exact = {route.topic: route for route in routes if route.pattern is None}
        self._wild = [route for route in routes if route.pattern is not None]

    def routes(self, topic: str) -> list[tuple[str, str]]:
        """Return the topics of the settings that a message's topic is one of, each with its group."""
        found = [(topic, SHARED)] if topic in self._exact else []
        matches = ((route.topic, route.pattern and route.pattern.fullmatch(topic)) for route in self._wild)
        return found + [
            (of, "/".join(part for part in match.groups() if part is not None)) for of, match in matches if match
        ]

    def read(self, of: str, group: str, payload: bytes) -> Reading | Rubbish:
        """Return what a message says. of: the topic of the settings that it came by."""
        if len(payload) > MOST_BYTES or len(group) > MOST_TEXT:
            return Rubbish(LARGE)
        route = self._exact.get(of) or next(route for route in self._wild if route.topic == of)
        if route.columns:
            of_topic = number(payload)
            return of_topic if isinstance(of_topic, Rubbish) else Reading(group, dict.fromkeys(route.columns, of_topic))
        found = _object(payload)
        if found is None:
            return Rubbish(NO_JSON)
        values: dict[str, Value] = {}
        for column, path in self._paths:
            value_of = _field(found, path)
            if value_of is None:
                continue
            value = scalar(value_of)
            if isinstance(value, Rubbish):
                return value
            values[column] = value
        return Reading(group, values) if values else Rubbish(NO_FIELD)

    def label(self, payload: bytes) -> Value | Rubbish:
        """Return the label that a message of the label topic says."""
        if len(payload) > MOST_BYTES:
            return Rubbish(LARGE)
        if self._settings.label_field is not None:
            found = _object(payload)
            if found is None:
                return Rubbish(NO_JSON)
            value = _field(found, self._settings.label_field)
            return Rubbish(NO_FIELD) if value is None else scalar(value)
        try:
            text = payload.decode("utf-8").strip()
        except UnicodeDecodeError:
            return Rubbish(NO_VALUE)
        try:
            return scalar(msgspec.json.decode(text))
        except (ValueError, RecursionError):
            return number(payload) if _is_number(text) else scalar(text)


def number(payload: bytes) -> float | Rubbish:
    """Return the number that a message is: as JSON has one, as Python writes one, or in quotes; true is 1."""
    text = payload.strip().strip(b'"')
    if text in (b"true", b"false"):
        return float(text == b"true")
    if len(text) > MOST_TEXT or b"_" in text:
        return Rubbish(NO_NUMBER)
    try:
        value = float(text)
    except ValueError:
        return Rubbish(NO_NUMBER)
    return value if abs(value) <= FLOAT32 else Rubbish(NOT_FINITE)


def scalar(value: object) -> Value | Rubbish:
    """Return a value of JSON as it is kept."""
    match value:
        case bool():
            return value
        case int() | float():
            try:
                found = float(value)
            except OverflowError:
                return Rubbish(NOT_FINITE)
            fits = math.isfinite(found) and abs(found) <= FLOAT32
            return found if fits else Rubbish(NOT_FINITE)
        case str() if 0 < len(value.strip()) <= MOST_TEXT:
            return value.strip()
    return Rubbish(NO_VALUE)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _object(payload: bytes) -> dict[str, object] | None:
    try:
        found = msgspec.json.decode(payload)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _field(found: Mapping[str, object], path: str) -> object:
    """Return a field by its name or, with dots, one within another; None for none, and for null."""
    if path in found:
        return found[path]
    value: object = found
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _pattern(topic: str) -> re.Pattern[str] | None:
    if not has_wildcard(topic):
        return None
    levels = ["([^/]*)" if level == "+" else re.escape(level) for level in topic.split("/") if level != "#"]
    text = "/".join(levels)
    if topic.split("/")[-1] == "#":  # which is the level above, too (MQTT 5, section 4.7.1.2)
        text = f"{text}(?:/(.*))?" if levels else "(.*)"
    return re.compile(text, re.DOTALL)
