"""[data.NAME.mqtt] of agent.toml: topics of the site's own broker as a data source. Words alone; nothing connects here.

    topics = {temperature = "hall/t", vibration = "hall/v"}      a plain number each
    topics = ["hall/+/state"], fields = ["temperature", "v.x"]   JSON objects, and what is taken out of them

A `+` or `#` that a topic matches in more than one way names a group: what `hall/3/state` says never comes into one row
with what `hall/4/state` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import Meta, Struct, structs

from broker.connection import BrokerSettings
from broker.transport import check_filter
from models.contract import Column
from models.data.ring_file import CRC, ENDING, TIME
from models.data.source import DataSource, FilePath

Topic = Annotated[str, Meta(min_length=1, max_length=1000)]
"""A topic filter: `+` is any level, `#` any levels at the end."""
MOST_TOPICS = 256
"""That a source listens to, and columns that it has."""
PROOF = "fedge/"
"""Where the topics of fleets begin."""


class TopicSettings(BrokerSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The site's broker, with credentials of its own, and what is taken from it."""

    topics: (
        Annotated[dict[Column, Topic], Meta(min_length=1, max_length=MOST_TOPICS)]
        | Annotated[tuple[Topic, ...], Meta(min_length=1, max_length=MOST_TOPICS)]
    )
    """Column to the topic of its numbers; or topics of JSON objects, which need `fields`."""
    fields: (
        Annotated[dict[Column, Column], Meta(max_length=MOST_TOPICS)]
        | Annotated[tuple[Column, ...], Meta(max_length=MOST_TOPICS)]
    ) = ()
    """What is taken of JSON objects: names of fields, "a.b" for one within another; or column to such a name."""
    label_topic: Topic | None = None
    """A topic whose last word is the label of the rows from then on: a number, a text, or a field of JSON. What is
    retained there counts, other than with readings."""
    label_field: Column | None = None
    """The field of the label, where `label_topic` has JSON objects."""
    group: Column = "group"
    """The column that names what a `+` or `#` stood for, where there is one."""
    period_s: Annotated[float, Meta(ge=0.01, le=86_400)] | None = None
    """Seconds of a row. Needed where several topics are joined; a row a message when not given."""
    tolerance_s: Annotated[float, Meta(ge=0, le=86_400)] | None = None
    """How long a value stands for rows in which its topic said nothing; twice period_s when not given."""
    stall_s: Annotated[float, Meta(ge=1, le=604_800)] = 600.0
    """Seconds without a reading after which a topic is reported."""
    max_per_s: Annotated[float, Meta(gt=0, le=10_000)] = 50.0
    """Messages a second of each topic beyond which it is thinned."""
    keep_bytes: Annotated[int, Meta(ge=2**18, le=2**34)] = 64 * 2**20
    """Most that the ring takes on disk; the oldest rows go first."""
    keep_s: Annotated[float, Meta(ge=60, le=3.2e9)] | None = None
    """Seconds after which rows go, too; by keep_bytes alone when not given."""
    sync_s: Annotated[float, Meta(ge=0, le=3600)] = 60.0
    """How often rows are put on disk: what a power cut, or a kill, may cost. Less wears the card more."""
    client_id: (
        Annotated[str, Meta(pattern=r"\A[^\x00-\x1f\x7f]{1,200}\Z", description="a client id is 1 to 200 characters")]
        | None
    ) = None
    """Who this device is at that broker; its fleet, its own name and the source's when not given."""

    def __post_init__(self) -> None:
        """Raise ValueError for keys that do not go together."""
        for key, filters in (("topics", self.filters), ("label_topic", self._label_filters)):
            for topic in filters:
                try:
                    check_filter(topic)
                except ValueError as error:
                    raise ValueError(f"{key}: {error}") from error
                if topic.startswith(PROOF):
                    raise ValueError(f"{key}: {topic!r} is a topic of fedge itself, not of a sensor")
        if isinstance(self.topics, Mapping) and self.fields:
            raise ValueError('fields are of JSON objects: write topics as a list, as in topics = ["hall/+/state"]')
        if not self.columns:
            raise ValueError(
                'topics of JSON objects need the key fields, as in fields = ["temperature"]; for plain numbers name '
                'the columns, as in topics = {temperature = "hall/t"}'
            )
        own = {TIME: "the time of a row", CRC: "the checksum of a row"}
        own |= {self.group: "what a wildcard stands for (group)"} if self.is_grouped else {}
        key = "topics" if isinstance(self.topics, Mapping) else "fields"
        for name in self.columns:
            if name in own:
                raise ValueError(f"{key}: {name!r} is the column of {own[name]}: give the reading another name")
        if self.period_s is None and len(self.filters) > 1:
            raise ValueError("several topics are joined by time, which needs the key period_s: the seconds of a row")
        if self.period_s is None and self.tolerance_s is not None:
            raise ValueError("tolerance_s is of rows that are joined by period_s, which is not given")
        if self.label_field is not None and self.label_topic is None:
            raise ValueError("label_field is of label_topic, which is not given; a label among fields needs neither")
        if self.label_topic is not None and self.label_topic in self.filters:
            raise ValueError("label_topic is among topics: name its column as the label of the source instead")
        if self.label_topic is not None and has_wildcard(self.label_topic):
            raise ValueError("label_topic has a wildcard: it is one topic")

    @property
    def filters(self) -> tuple[str, ...]:
        """Return the topics of readings, each once."""
        named = self.topics.values() if isinstance(self.topics, Mapping) else self.topics
        return tuple(dict.fromkeys(named))

    @property
    def _label_filters(self) -> tuple[str, ...]:
        return () if self.label_topic is None else (self.label_topic,)

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns of readings, in the order of the file."""
        if isinstance(self.topics, Mapping):
            return tuple(self.topics)
        return tuple(dict.fromkeys(self.fields))

    @property
    def paths(self) -> dict[str, str]:
        """Return column to the field of JSON objects that it is taken from; nothing where topics have numbers."""
        return dict(self.fields) if isinstance(self.fields, Mapping) else {name: name for name in self.fields}

    @property
    def is_grouped(self) -> bool:
        """Return whether one of the topics stands for several."""
        return any(map(has_wildcard, self.filters))


def has_wildcard(topic: str) -> bool:
    """Return whether a topic filter stands for several topics."""
    return any(level in ("+", "#") for level in topic.split("/"))


class DeviceSource(DataSource, frozen=True):
    """[data.NAME] of agent.toml: a file of rows, or with `mqtt` a ring that this device fills itself."""

    path: FilePath = ""
    """See `SourceSettings`; of a live source the folder of its ring, which need not be given."""
    mqtt: TopicSettings | None = None
    """Topics of the site's own broker, where the rows come from there."""

    def __post_init__(self) -> None:
        """Raise ValueError for keys that do not go together."""
        if self.mqtt is None:
            if not self.path:
                raise ValueError('needs the key "path", or a table [data.NAME.mqtt]')
        else:
            self._check_live(self.mqtt)
            structs.force_setattr(self, "time", self.time or self.rename.get(TIME, TIME))
            if self.mqtt.is_grouped:
                structs.force_setattr(self, "group", self.group or self.mqtt.group)
        super().__post_init__()

    def _check_live(self, mqtt: TopicSettings) -> None:
        if self.path and not self.path.endswith(ENDING):
            raise ValueError(f"path: the folder of a live source ends in {ENDING}, and may be left out")
        if mqtt.label_topic is not None and self.label in (*mqtt.columns, TIME, CRC, mqtt.group):
            raise ValueError(f"label: {self.label!r} is a column already, and label_topic would be one more")
        for name in self.columns:
            if name not in self.ring_columns and name not in self.rename.values():
                raise ValueError(f"features names {name!r}, which no topic of its mqtt gives")

    @property
    def ring_columns(self) -> tuple[str, ...]:
        """Return the columns of a live source's rows behind their time."""
        if self.mqtt is None:
            return ()
        group = (self.mqtt.group,) if self.mqtt.is_grouped else ()
        return (*group, *self.mqtt.columns, *(() if self.mqtt.label_topic is None else (self.label,)))


class LiveSettings(Struct, frozen=True):
    """One live source of a device, with its place. label: the column of `label_topic`; "" where there is none."""

    name: str
    folder: str
    mqtt: TopicSettings
    columns: tuple[str, ...]
    label: str = ""


def live_sources(data: Mapping[str, DeviceSource]) -> list[LiveSettings]:
    """Return those sources of a device that are live."""
    return [
        LiveSettings(
            name, source.path, source.mqtt, source.ring_columns, source.label if source.mqtt.label_topic else ""
        )
        for name, source in data.items()
        if isinstance(source, DeviceSource) and source.mqtt is not None
    ]
