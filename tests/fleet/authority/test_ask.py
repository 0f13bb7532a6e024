"""A device that asks, at a broker that is not there or says that somebody else has its token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest

from broker.transport import Offline, Online, Packet, SessionTakenOver, TransportEvent
from fleet.authority import ask
from fleet.authority.ask import prepare
from identity import asking
from identity.asking import Answer, Secret
from identity.tokens import Line, TokenError

LINE = Line("broker.example", 8886, "barn", None, "token." + "a" * 16, "a" * 32, "0" * 64)
KEY = Secret(LINE.secret).proof_key
ANSWERS = f"fedge-ca/1/barn/issued/{LINE.token}"
Conversation = Callable[..., ask._Conversation]


class Transport:
    """What the network says, connection by connection."""

    script: ClassVar[list[list[TransportEvent]]] = []
    published: ClassVar[list[Packet]] = []

    def __init__(self, *_: object, **__: object) -> None:
        self._events = self.script.pop(0)

    def subscribe(self, *filters: str) -> None:
        assert filters == (ANSWERS,)

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def publish(self, packet: Packet) -> bool:
        self.published.append(packet)
        return True

    def take(self, timeout_s: float) -> TransportEvent | None:  # noqa: ARG002 -- as a transport has it
        return self._events.pop(0)


@pytest.fixture
def conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Conversation:
    """Begin one over connections that hear these events; "granted" and "refused" stand for such an answer."""
    monkeypatch.setattr(ask, "MqttTransport", Transport)

    def begun(*connections: list[TransportEvent | str]) -> ask._Conversation:
        folder = tmp_path / ask.DRAFT
        request = prepare(folder, LINE, "pi-1")

        def heard(event: TransportEvent | str) -> TransportEvent:
            if not isinstance(event, str):
                return event
            answer = Answer(request.digest, event, "no reason")  # type: ignore[arg-type]
            return Packet(ANSWERS, asking.answer(ANSWERS, answer, KEY))

        Transport.script = [[heard(event) for event in events] for events in connections]
        Transport.published = []
        return ask._Conversation(LINE, folder, request, b"")

    return begun


def test_whose_token_is_taken_over_goes_on(conversation: Conversation, capsys: pytest.CaptureFixture[str]) -> None:
    talk = conversation([Online(None), SessionTakenOver()], [Online(None), "granted"])
    assert talk.run().state == "granted"
    assert "somebody else has connected with this token" in capsys.readouterr().err
    assert len(Transport.published) == 2, "asked in each connection"


def test_what_is_refused_leaves_nothing(conversation: Conversation, tmp_path: Path) -> None:
    talk = conversation([Online(None), "waiting", "refused"])
    with pytest.raises(TokenError, match="the authority refuses: no reason"):
        talk.run()
    assert not list(tmp_path.iterdir())


def test_a_broker_that_is_away_is_waited_for(conversation: Conversation, capsys: pytest.CaptureFixture[str]) -> None:
    talk = conversation([Offline("nobody listens"), Online(None), Packet(ANSWERS, b"x" * 100), "granted"])
    assert talk.run().state == "granted"
    said = capsys.readouterr().err
    assert "nobody listens; trying on" in said
    assert "passed over: an answer that this fleet's authority has not given" in said


def test_for_another_token_or_name_the_keys_are_others(tmp_path: Path) -> None:
    first = prepare(tmp_path / "d", LINE, "pi-1")
    assert prepare(tmp_path / "d", LINE, "pi-1") == first
    second = prepare(tmp_path / "d", LINE, "pi-2")
    third = prepare(tmp_path / "d", LINE._replace(token="token." + "b" * 16), "pi-2")
    assert len({first.digest, second.digest, third.digest}) == 3
    assert len({first.key, second.key, third.key}) == 3
    (tmp_path / "d" / "draft.json").write_text("{")
    assert prepare(tmp_path / "d", LINE, "pi-2").key != third.key
