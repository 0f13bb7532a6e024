"""`fedge ca serve`: the authority at the broker. It answers tokens and devices that ask for certificates.

Its law:
1. What is heard is hostile until its proof holds: lengths first, then the token's MAC (a microsecond), then a
   signature; what fails is counted and not answered, and so is who asks more than MOST_HEARD times in PRUNE_S.
   Nothing is kept but one request a token, on disk.
2. The directory is open, and locked, for one change at a time. Between changes only files are looked at, which are
   replaced whole: an operator's command is seen by the time of tokens.json.
3. An answer follows from what is on disk. Whoever asks again is told the same: a message that was lost, or a death at
   any point, costs one question more. What was approved and not finished, here or by a command, is finished.
4. Its clock alone says what has expired, and its own directory who may be enrolled.
5. Nothing stays retained where it is asked: what is found there is cleared, and a token's topic at its end.
"""

from __future__ import annotations

import argparse
import datetime as dt
import logging
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from msgspec import structs

from broker import issuing as topics
from broker.client import MqttTransport
from broker.transport import Denied, Offline, Online, Packet, SessionTakenOver, Transport
from fleet.authority import issuing
from fleet.authority.said import inner, now
from fleet.authority.tokens import published
from identity import asking
from identity.asking import Answer, AskingError, Request
from identity.authority import Authority
from identity.directory import AuthorityError
from identity.keys import key_of
from identity.tokens import Token, TokenError, Tokens, parse_tokens, refusal
from runtime.tally import Tally

log = logging.getLogger(__name__)

PRUNE_S = 10.0
"""How often tokens that have ended are taken from the broker."""
MOST_HEARD = 10
"""Messages of one token or device in that time: a device that is not answered asks three times."""


class Server:
    """One authority at one broker. folder: of the authority. transport: opened by `start`. wall: the time of day.

    Raises AuthorityError, OSError.
    """

    def __init__(
        self,
        folder: Path,
        transport: Transport,
        *,
        wall: Callable[[], dt.datetime] = now,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._transport, self._wall, self._clock = folder, transport, wall, clock
        self._tally = Tally()
        self._heard: Counter[str] = Counter()
        self._seen = 0
        self._prune_at = 0.0
        with Authority(folder) as authority:
            self.fleet = authority.record.fleet
            self._signer = authority.signer()
            self._tokens: Tokens = authority.tokens
            self._finish(authority)

    def start(self) -> None:
        """Start connecting."""
        self._transport.subscribe(topics.asks(self.fleet, "enroll"), topics.asks(self.fleet, "renew"))
        self._transport.open()

    def step(self, timeout_s: float = 1.0) -> None:
        """Take one event, or let time pass. Raises AuthorityError, OSError."""
        match self._transport.take(min(timeout_s, 0.5)):
            case Packet() as packet:
                self._hear(packet)
            case Online():
                log.info("online")
            case Offline(reason):
                log.warning("offline: %s", reason)
            case Denied(topic, reason):
                log.error("the broker refuses topic=%s: %s: does its list know the user authority?", topic, reason)
            case SessionTakenOver():
                raise AuthorityError("another `fedge ca serve` has connected under this name")
        self._look()
        if self._clock() >= self._prune_at:
            self._prune_at = self._clock() + PRUNE_S
            self._heard.clear()
            try:
                self._prune()
            except AuthorityError as error:
                log.error("%s", error)

    def stop(self) -> None:
        """Leave the broker. Everything is on disk."""
        self._transport.close()

    # What is heard.

    def _hear(self, packet: Packet) -> None:
        asker = topics.asker(packet.topic, self.fleet)
        if not packet.payload:
            return  # what was cleared
        if asker is None or packet.retain:
            self._pass_over(packet.topic, "a topic that nobody asks on, or a retained message")
            return
        self._heard[asker.who] += 1
        if self._heard[asker.who] > MOST_HEARD:
            if self._tally.count("flood"):
                log.warning("passed over: more than %d messages in %g s from %s", MOST_HEARD, PRUNE_S, asker.who)
            return
        try:
            if asker.errand == "enroll":
                self._enroll(asker.who, packet)
            else:
                self._renew(asker.who, packet)
        except AskingError as error:
            self._pass_over(packet.topic, str(error))
        except AuthorityError as error:
            log.error("topic=%s: %s", packet.topic, error)

    def _pass_over(self, topic: str, why: str) -> None:
        if self._tally.count("garbage"):
            log.warning("passed over topic=%r: %s", topic[:120], why)
        self._clear(topic)

    def _clear(self, topic: str) -> None:
        """Clear what may be retained there: the broker cannot forbid it, and nobody else would."""
        self._transport.publish(Packet(topic, b"", retain=True))

    def _enroll(self, name: str, packet: Packet) -> None:
        self._look()
        token = self._tokens.tokens.get(name)
        if token is None:
            raise AskingError("there is no such token any more")
        request = asking.asked(packet.topic, packet.payload, proof_key=key_of(token.proof))
        why = refusal(token, request, self._wall())
        if not why and request.done:
            self._end(name, token)
            return
        if not why and token.asked is None:
            why = self._note(name, request)
        token = self._tokens.tokens.get(name)
        if token is not None:
            answer = Answer(request.digest, "refused", why) if why else self._answer(token, request)
            self._say(name, token, answer)

    def _note(self, name: str, request: Request) -> str:
        """Take a request down, and grant it where a window is open; return why not."""
        request = structs.replace(request, done=False)
        with Authority(self._folder) as authority:
            token = authority.tokens.tokens.get(name)
            if token is None or (why := refusal(token, request, self._wall())):
                return "there is no such token any more" if token is None else why
            if token.asked is None:
                try:
                    issuing.check(authority, token, request)
                except (AuthorityError, AskingError) as error:
                    return str(error)
                token = structs.replace(token, state="waiting", asked=request, since=self._wall())
                issuing.change(authority, name, token)
                log.info("asked device=%s fingerprint=%s token=%s", request.device, request.fingerprint, name)
            if authority.tokens.is_open_window(self._wall()) and token.state == "waiting":
                self._approve(authority, name)
            self._tokens = authority.tokens
        return ""

    def _approve(self, authority: Authority, name: str) -> None:
        for failed in issuing.approve(authority, name, self._wall()):
            log.error("token=%s: not done: %s", name, failed)

    def _finish(self, authority: Authority) -> None:
        """Go on with what was approved, and then a process died."""
        for name, token in authority.tokens.tokens.items():
            if token.state == "issuing":
                try:
                    self._approve(authority, name)
                except (AuthorityError, AskingError) as error:
                    log.error("token=%s: %s", name, error)
        self._tokens = authority.tokens

    def _answer(self, token: Token, request: Request) -> Answer:
        match token.state:
            case "waiting" | "issuing" | "open":
                return Answer(request.digest, "waiting", f"an operator has to approve {request.fingerprint}")
            case "rejected":
                return Answer(request.digest, "refused", "an operator has rejected this request")
            case "issued":
                try:
                    with Authority(self._folder) as authority:
                        return Answer(request.digest, "granted", granted=issuing.granted(authority, request.device))
                except AuthorityError as error:
                    return Answer(request.digest, "refused", str(error))

    def _say(self, name: str, token: Token, answer: Answer) -> None:
        topic = topics.answers(self.fleet, "enroll", name)
        self._transport.publish(Packet(topic, asking.answer(topic, answer, key_of(token.proof))))

    def _end(self, name: str, token: Token) -> None:
        """The device has what it was told, so its token is over."""
        if token.state not in ("issued", "rejected"):
            return
        with Authority(self._folder) as authority:
            issuing.change(authority, name, None)
            self._tokens = authority.tokens
            self._publish(authority)
        self._clear(topics.asks(self.fleet, "enroll", name))
        log.info("over token=%s device=%s state=%s", name, token.asked and token.asked.device, token.state)

    # Renewal.

    def _renew(self, device: str, packet: Packet) -> None:
        if len(packet.payload) > asking.MOST_ASKED:
            raise AskingError("a request that is too long")
        with Authority(self._folder) as authority:
            known = authority.record.devices.get(device)
            if known is None:
                raise AskingError(f"{device} is not enrolled")
            request = asking.asked(packet.topic, packet.payload, key=known.key)
            if request.device != device or request.key != known.key:
                raise AskingError(f"{device} asks for another, or with another message key")
            try:
                for failed in issuing.renew(authority, request, self._wall()):
                    log.error("device=%s: not done: %s", device, failed)
                answer = Answer(request.digest, "granted", granted=issuing.granted(authority, device))
            except AuthorityError as error:
                answer = Answer(request.digest, "refused", str(error))
        log.info("renew device=%s state=%s %s", device, answer.state, answer.text)
        topic = topics.answers(self.fleet, "renew", device)
        self._transport.publish(Packet(topic, asking.answer(topic, answer, self._signer)))

    # What operators and the time do.

    def _look(self) -> None:
        """See what commands have changed, and tell the tokens whose requests were decided."""
        file = self._folder / "tokens.json"
        try:
            if (seen := file.stat().st_mtime_ns) == self._seen:
                return
            before, self._tokens = self._tokens, parse_tokens(file.read_bytes(), str(file))
        except FileNotFoundError:
            return
        except TokenError as error:
            raise AuthorityError(str(error)) from error
        self._seen, self._prune_at = seen, 0.0
        for name, token in self._tokens.tokens.items():
            older = before.tokens.get(name)
            decided = token.state in ("issued", "rejected") and (older is None or older.state != token.state)
            if decided and token.asked is not None:
                self._say(name, token, self._answer(token, token.asked))

    def _prune(self) -> None:
        """Take what has ended from the broker, too; go on with what others left, and with what a window lets in."""
        at = self._wall()
        waiting = any(t.state == "waiting" and t.until > at for t in self._tokens.tokens.values())
        gone = len(self._tokens.without_gone(at).tokens) < len(self._tokens.tokens)
        unfinished = any(t.state == "issuing" for t in self._tokens.tokens.values())
        if not gone and not unfinished and not (waiting and self._tokens.is_open_window(at)):
            return
        for name in self._tokens.tokens.keys() - self._tokens.without_gone(at).tokens.keys():
            self._clear(topics.asks(self.fleet, "enroll", name))
        with Authority(self._folder) as authority:
            if authority.keep_tokens(authority.tokens.without_gone(at)):
                self._publish(authority)
            self._finish(authority)
            if authority.tokens.is_open_window(at):
                for name, token in authority.tokens.tokens.items():
                    if token.state == "waiting":
                        try:
                            self._approve(authority, name)
                        except (AuthorityError, AskingError) as error:
                            log.warning("token=%s: %s", name, error)

    def _publish(self, authority: Authority) -> None:
        for failed in published(authority, self._wall()):
            log.error("not done: %s", failed)


def serve(arguments: argparse.Namespace) -> int:
    """Answer until SIGTERM or SIGINT."""
    with Authority(arguments.folder) as authority:
        settings, fleet = inner(authority), authority.record.fleet
    transport = MqttTransport(settings, f"{fleet}-issuing-{secrets.token_hex(4)}", last_retry_s=10.0)
    server, stopping = Server(arguments.folder, transport), False

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        transport.wake()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    log.info("issuing fleet=%s broker=%s:%d", fleet, settings.host, settings.port)
    server.start()
    try:
        while not stopping:
            server.step()
    finally:
        server.stop()
    return 0
