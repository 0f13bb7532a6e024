"""The MQTT client: the law of broker/transport.py kept over a real network. The only file that knows paho.

    owner's thread                          network thread
    publish ──> outbound, bounded ──window──> framing ─┐
    take  <── inbox, bounded <────────────── framing <─┤
      └───────> acks ───────────────────────> framing ─┼─> splice ──> broker
    subscribe, goodbye ──> changes ──────────> paho <──┘

1. One daemon thread per transport drives paho by hand; paho starts none. Owner and network thread meet in queues
   under one lock, plus one SimpleQueue for events, whose `put` even a signal handler may call. PUBLISH and PUBACK, as
   nearly all that a connection carries, go past paho (framing.py, splice.py), which connects, subscribes and leaves.
2. One connection is one paho client, thrown away with it. So nothing stale is ever sent again, and what an old
   connection left (acknowledgements, subscriptions under way) cannot leak into the next.
3. Clean start, no persistent session, QoS 1. At most `window` publishes are without PUBACK, never more than
   the broker's Receive Maximum, and the next one is written only when the last is in the kernel: control
   and pings never queue behind megabytes.
4. Packets are acknowledged when the owner takes them, or up to 50 ms later, with others. On MQTT 5 we announce how
   many may be open (Receive Maximum); floods beyond the inbox (QoS 0, or a 3.1.1 broker without a window) are dropped
   and counted, and so is, as it comes in, a packet that is longer than we take.
5. What is decided elsewhere: when to connect again, broker/reconnection.py; in which version, broker/version.py; how
   large a packet may be, broker/packet_limit.py; whether a connection lives, broker/keepalive.py; how it is left,
   broker/goodbye.py; what a broker may say when, broker/turns.py; what acknowledgements wait for,
   broker/ackwait.py and, of the broker's, broker/answerwait.py.
6. `SessionTakenOver`, and `Denied` for what the broker forbids to publish, need MQTT 5. 3.1.1 cannot say why a
   connection was closed, nor does mosquitto 2.0.11 where a name was taken over: two clients of one id then take it
   from each other for ever, though ever more slowly, because a connection that did not last counts as a failure. And
   on 3.1.1 a publish that the broker forbids looks like one that arrived.
"""

from __future__ import annotations

import logging
import select
import ssl
import struct
import threading
import time
from typing import Any

from broker import framing, reasons
from broker.ackwait import AckWait
from broker.aliases import ALIAS_BYTES, Aliases
from broker.answerwait import AnswerWait
from broker.connection import BrokerSettings
from broker.credentials import Context, read_password, tls_context, validity
from broker.framing import Answer, Delivery, Framing, TooLong
from broker.goodbye import Departure, Goodbye
from broker.keepalive import Keepalive
from broker.mailbox import ClientLimits, Mailbox, Receipt
from broker.packet_limit import PacketLimit
from broker.properties import share_tables
from broker.reconnection import Ended, Reconnection
from broker.sockets import tune
from broker.splice import Splice
from broker.transport import Denied, Packet, TransportEvent, check_filter, check_topic
from broker.turns import may_come
from broker.version import Connect, ConnectAnswer, answer_of
from runtime.deferred import deferred

# It is for proxies, which need PySocks; with HTTP and mail behind it, two megabytes of an agent.
with deferred("urllib.request"):
    import paho.mqtt.client as mqtt
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

logger = logging.getLogger(__name__)

share_tables(Properties)

_FAILURE = 128
_MIDS, _PAHOS, _OURS = 65_535, 32_767, 8_192  # packet identifiers: all, the first for paho, and so many behind for us
_END_S = 1.0  # how long a thread that was told to end may take for that
_GARBAGE = (ValueError, LookupError, struct.error, MQTTException)  # what paho's parser lets through, by version


class MqttTransport:
    """A client of a real broker; see broker/transport.py for what it promises.

    will: published by the broker when the connection is lost without a goodbye.
    first_retry_s, last_retry_s: the exponential backoff starts and ends there (full jitter).
    """

    def __init__(
        self,
        broker: BrokerSettings,
        client_id: str,
        will: Packet | None = None,
        *,
        limits: ClientLimits = ClientLimits(),  # noqa: B008 -- a tuple never changes
        first_retry_s: float = 1.0,
        last_retry_s: float = 120.0,
    ) -> None:
        if will is not None:
            check_topic(will.topic)
        self.broker, self.client_id = broker, client_id
        self._mailbox = Mailbox(limits, PacketLimit(broker.max_packet_bytes))
        self.counters = self._mailbox.counters
        self._goodbye = Goodbye(will)
        riddle = threading.Event()
        self._reconnection = Reconnection(
            lambda how: _Link(broker, client_id, self._mailbox, self._goodbye, how, riddle).run(),
            self._mailbox,
            self._goodbye,
            protocol=broker.protocol,
            retry_s=(first_retry_s, last_retry_s),
            name=client_id,
        )
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Start connecting. Returns at once; `Online` or `Offline` follow from `take`."""
        if self._thread is None and not self._goodbye.closing:
            self._thread = threading.Thread(target=self._reconnection.run, name=f"mqtt-{self.client_id}", daemon=True)
            self._thread.start()

    def subscribe(self, *filters: str, as_published: bool = False, again: bool = False) -> None:
        """Remember these topic filters. Raises ValueError for a filter that MQTT does not allow.

        again: ask for known ones as well.
        """
        for name in filters:
            check_filter(name)
        self._mailbox.subscribe(filters, as_published=as_published, again=again)

    def unsubscribe(self, *filters: str) -> None:
        """Forget these filters."""
        self._mailbox.unsubscribe(filters)

    def publish(self, packet: Packet) -> bool:
        """Take a packet for sending; False: not now. Raises ValueError for a topic with wildcards."""
        check_topic(packet.topic)
        return self._mailbox.post(packet)

    @property
    def room(self) -> int:
        """How many packets `publish` would still take; 0 when offline, or when bytes fill the queue."""
        return self._mailbox.room

    def take(self, timeout_s: float | None = 0.0) -> TransportEvent | None:
        """Return the next event, waiting at most timeout_s (None: for ever), else None."""
        return self._mailbox.take(timeout_s)

    def wake(self) -> None:
        """Make a waiting `take` return None now. Any thread and any signal handler may call this."""
        self._mailbox.wake()

    def renew(self, will: Packet | None, *, hurry: bool = False) -> None:
        """From now on have the broker publish this when the connection is lost. Returns at once.

        A connection that stands sends what was taken (for 2 s at most) and ends with a clean DISCONNECT, and another
        one is made; `publish` takes nothing in between. hurry: nothing more is sent, and nobody waits long for
        the broker to hang up. Raises ValueError for a topic with wildcards.
        """
        if will is not None:
            check_topic(will.topic)
        self._mailbox.shut()  # first: afterwards it could hit the next connection
        self._goodbye.renew(will, time.monotonic(), hurry=hurry)
        self._mailbox.waker.wake()

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what was taken, say a clean DISCONNECT and end the thread.

        What the broker has not acknowledged after timeout_s is given up. A TCP or TLS handshake in progress cannot
        be interrupted; it ends, and with it the thread, within `connect_timeout_s`.
        """
        self._goodbye.close(time.monotonic() + timeout_s)
        self._mailbox.shut()
        self._mailbox.waker.wake()
        if self._thread is None:
            self._mailbox.waker.close()
        else:
            self._thread.join(timeout_s + _END_S)


class _SplicedClient(mqtt.Client):
    """A client of paho that reads and writes by way of a splice, and numbers packets, in its own methods."""

    splice: Splice

    def _mid_generate(self) -> int:
        self._last_mid = self._last_mid % _PAHOS + 1
        return self._last_mid

    def _sock_recv(self, bufsize: int) -> bytes:
        return self.splice.recv(bufsize)

    def _sock_send(self, buf: bytes | bytearray) -> int:
        return self.splice.send(buf)


class _Link:
    """One connection, from CONNECT to its end. Lives in the network thread.

    riddle: set where a broker ended TLS and nobody knows why: the next connection listens before it speaks.
    """

    def __init__(
        self,
        broker: BrokerSettings,
        client_id: str,
        mailbox: Mailbox,
        goodbye: Goodbye,
        how: Connect,
        riddle: threading.Event,
    ) -> None:
        self._riddle = riddle
        self._broker, self._client_id, self._mailbox = broker, client_id, mailbox
        self._five, self._bare = how is not Connect.OLDER, how is Connect.BARE
        self._where = (broker.host, broker.port)
        self._departure = Departure(goodbye, bare=self._bare)
        self._ended: Ended | None = None
        self._welcome = self._online = False
        self._window = mailbox.limits.window
        self._open: dict[int, Packet] = {}  # published, without PUBACK
        self._n_sent = 0
        self._splice: Splice | None = None
        self._polled: int | None = None
        """What its socket is waited for."""
        self._framing = Framing(five=self._five, most_bytes=mailbox.limits.packet_bytes)
        self._receipts = object()
        """Whose receipts are ours. Not this link: they wait in the inbox, and would keep all that it has."""
        self._n_unsaid = 0
        """Acknowledgements that may wait to be written."""
        self._has_passed_over = False
        self._aliases = Aliases(0)
        self._asked: dict[int, list[str]] = {}  # SUBSCRIBEs without SUBACK
        self._ack_wait = AckWait()
        self._answer_wait = AnswerWait()
        self._alive = Keepalive(broker.keepalive_s, broker.connect_timeout_s, time.monotonic())
        self._tls: Context | None = None
        self._client = self._make_client()

    def _make_client(self) -> _SplicedClient:
        client = _SplicedClient(
            CallbackAPIVersion.VERSION2,
            client_id=self._client_id,
            clean_session=None if self._five else True,
            protocol=MQTTProtocolVersion.MQTTv5 if self._five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.max_inflight_messages = 0  # no limit: the window is kept here
        client.connect_timeout = self._broker.connect_timeout_s
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_message = self._on_subscribe, self._on_message
        client.on_socket_open, client.on_socket_close = self._on_socket_open, self._on_socket_close
        if (will := self._departure.will) is not None:
            client.will_set(will.topic, will.payload, 1, will.retain, self._expiry(will, PacketTypes.WILLMESSAGE))
        return client

    def run(self) -> Ended:
        """Connect and carry packets until the connection ends; give the reason."""
        try:
            self._dial()
            poller = select.poll()  # not select.select, which fails beyond descriptor 1023
            poller.register(self._mailbox.waker, select.POLLIN)
            while self._ended is None:
                self._step(poller)
        except OSError as error:
            self._end(self._turned_away(error) or reasons.unreachable(error, *self._where))
        except _GARBAGE as error:
            logger.debug("mqtt=garbage client=%s error=%r", self._client_id, error)
            self._end(reasons.not_mqtt(*self._where), ConnectAnswer.GARBAGE)
        except Exception as error:  # a fault of ours: the thread must outlive it, or nobody would ever hear of it
            logger.exception("mqtt=fault client=%s", self._client_id)
            self._end(f"a fault of this program: {type(error).__name__}: {error}")
        finally:
            if (sock := self._client.socket()) is not None:
                sock.close()
        return self._ended or Ended("closed", ConnectAnswer.NONE)

    def _dial(self) -> None:
        broker = self._broker
        if broker.username is not None and not self._bare:
            self._client.username_pw_set(broker.username, read_password(broker))
        if (context := tls_context(broker)) is not None:
            self._client.tls_set_context(context)
            context.listens = self._riddle.is_set()
        self._tls = context
        self._client.connect(broker.host, broker.port, broker.keepalive_s, **self._connect_options())
        self._alive = Keepalive(broker.keepalive_s, broker.connect_timeout_s, time.monotonic())

    def _connect_options(self) -> dict[str, Any]:
        if not self._five:
            return {}
        if self._bare:
            return {"clean_start": True}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's own gap
        properties.ReceiveMaximum = self._mailbox.limits.receive_maximum
        properties.MaximumPacketSize = self._mailbox.limits.packet_bytes
        return {"clean_start": True, "properties": properties}

    def _step(self, poller: select.poll) -> None:
        """Wait for the network, the owner or the clock, and do what there is to do."""
        splice = self._splice
        if splice is None or self._client.socket() is None:
            self._end("the connection was lost")
            return
        reading = self._mailbox.wants_more() or splice.is_failing
        wanted = (select.POLLIN if reading else 0) | (select.POLLOUT if self._is_half_written else 0)
        if wanted != self._polled:
            poller.register(splice.descriptor, wanted)
            self._polled = wanted
        pending = reading and (self._framing.has_next or splice.has_pending)
        if self._answer_wait.by is not None:
            splice.wake_at(self._answer_wait.least(time.monotonic(), goes_on=self._misses_answers_only))
        network = dict(poller.poll(0 if pending else self._patience_s() * 1000)).get(splice.descriptor, 0)
        if network or pending or not reading:  # then the silence is ours
            self._alive.heard(time.monotonic())
        if pending or network & ~select.POLLOUT:
            self._read(splice)
        if network & select.POLLOUT and self._client.socket() is not None:
            splice.flush()
            self._client.loop_write()
            splice.flush()
        self._mailbox.waker.clear()
        if self._ack_wait.by is not None and self._ack_wait.end(time.monotonic(), len(self._mailbox.acks)):
            self._mailbox.acks_wait = False  # first: one that comes now wakes us
        if self._ended is None and self._welcome:
            self._pump(splice)
        if self._ended is None and splice.ended and not self._framing.has_next:
            self._client.loop_read()  # which finds that out
        if self._ended is None:
            self._watch(time.monotonic())

    @property
    def _misses_answers_only(self) -> bool:
        """Whether nothing is missed but the broker's answers to what was published."""
        return bool(self._open) and not self._asked and not self._framing.has_part

    @property
    def _is_half_written(self) -> bool:
        return self._client.want_write() or (self._splice is not None and self._splice.is_writing)

    def _read(self, splice: Splice) -> None:
        """Take what has come: PUBLISH and PUBACK here, and paho the rest."""
        if not self._framing.has_next:
            self._framing.feed(splice.read())
        while self._ended is None and (packet := self._framing.next()) is not None:
            if not may_come(packet, welcome=self._welcome):
                self._end(reasons.not_mqtt(*self._where), ConnectAnswer.GARBAGE)
            elif isinstance(packet, Delivery):
                self._deliver(packet)
                if not self._mailbox.wants_more():
                    return
            elif isinstance(packet, Answer):
                self._answered(packet)
            elif isinstance(packet, TooLong):
                self._pass_over(packet)
            else:
                splice.hand_on(packet)
                self._client.loop_read()

    def _pass_over(self, packet: TooLong) -> None:
        self._mailbox.counters.dropped_packets += 1
        if packet.mid:
            self._mailbox.acks.append(Receipt(self._receipts, packet.mid))
        if not self._has_passed_over:
            self._has_passed_over = True
            most = self._mailbox.limits.packet_bytes
            logger.warning("mqtt=passed-over client=%s bytes=%d most=%d", self._client_id, packet.n_bytes, most)

    def _patience_s(self) -> float:
        """Return the seconds until `_watch` must look at the clock again."""
        now, until, leave_by = time.monotonic(), self._alive.due_at, self._departure.by(welcome=self._welcome)
        if leave_by is not None and leave_by > now:
            until = min(until, leave_by)
        if (changes_at := self._mailbox.changes_at) is not None:
            until = min(until, changes_at)
        if self._ack_wait.by is not None:
            until = min(until, self._ack_wait.by)
        if self._answer_wait.by is not None:
            until = min(until, self._answer_wait.by)
        return max(0.0, until - now) + 0.001

    def _watch(self, now: float) -> None:
        """Do what is due by the clock: ping, give up on silence, say goodbye."""
        if self._may_leave(now):
            renewed = self._departure.renews
            self._end(reasons.RENEWED if renewed else "closed", renewed=renewed)
            self._client.disconnect()
            return
        match self._alive.due(now):
            case "unanswered":
                self._end(reasons.silent(*self._where, self._alive.answer_s), ConnectAnswer.SILENCE)
            case "silent":
                self._end(f"nothing was heard from the broker for {self._alive.silence_s(now):.0f} s")
            case "ping":
                self._client._send_pingreq()  # paho has no public ping without its own check; see broker/keepalive.py

    def _may_leave(self, now: float) -> bool:
        by = self._departure.by(welcome=self._welcome)
        if by is None:
            return False
        if now >= by:
            self._mailbox.outbound.clear()
        waiting = self._online and self._mailbox.n_held > 0
        half_written = self._welcome and self._is_half_written
        return self._departure.may_leave(now, by, waiting=waiting, half_written=half_written)

    def _pump(self, splice: Splice) -> None:
        """Send what the owner left: acknowledgements, filters, packets, in this order."""
        box = self._mailbox
        acks = []
        while box.acks:
            receipt = box.acks.popleft()
            if receipt.link is self._receipts:
                acks.append(framing.puback(receipt.mid))
        if acks:
            self._n_unsaid = len(acks) + (self._n_unsaid if splice.is_writing else 0)
            if self._n_unsaid > _MIDS:  # more than can be open: whoever sends on and reads nothing fills memory
                self._end(reasons.deaf(*self._where))
                return
            splice.write(b"".join(acks))
            self._ack_wait.said(len(acks))
        self._ask()
        if not box.outbound:
            return
        while box.outbound and len(self._open) < self._window and not self._is_half_written:
            splice.write(self._published(box.outbound.popleft()))
        self._answer_wait.sent(time.monotonic(), len(self._open))

    def _ask(self) -> None:
        while self._mailbox.changes and (change := self._mailbox.next_changes())[1]:
            wanted, names = change
            mid = self._subscribe(names) if wanted else self._client.unsubscribe(names)[1]
            if mid is not None and wanted:
                self._asked[mid] = names

    def _subscribe(self, names: list[str]) -> int | None:
        if not self._five:
            return self._client.subscribe([(name, 1) for name in names])[1]
        flagged = self._mailbox.is_as_published
        return self._client.subscribe([(name, SubscribeOptions(1, retainAsPublished=flagged(name))) for name in names])[
            1
        ]

    def _published(self, packet: Packet) -> bytes:
        self._mailbox.note_sent(packet)  # first: who sees it arrive finds it counted
        fits = self._mailbox.packet_limit.allows(packet, ALIAS_BYTES)
        topic, alias = self._aliases.name(packet.topic) if fits else (packet.topic, None)
        mid = self._next_mid()
        while mid in self._open:
            mid = self._next_mid()
        self._open[mid] = packet
        return framing.publish(
            *(topic, packet.payload, mid),
            retain=packet.retain,
            five=self._five,
            expiry_s=packet.expiry_s,
            alias=alias or 0,
        )

    def _next_mid(self) -> int:
        """Return a packet identifier that paho gives no SUBSCRIBE (MQTT 5, section 2.2.1)."""
        self._n_sent += 1
        return _PAHOS + 1 + self._n_sent % _OURS

    def _expiry(self, packet: Packet, kind: int) -> Properties | None:
        if not self._five or packet.expiry_s is None:
            return None
        properties = Properties(kind)  # type: ignore[no-untyped-call]  # paho's own gap
        properties.MessageExpiryInterval = packet.expiry_s
        return properties

    def _on_connect(self, _c: object, _u: object, _f: object, code: ReasonCode, stated: Properties | None) -> None:
        if code.is_failure:
            self._end(reasons.refused(code.value, code.getName()), answer_of(code.value))
            return
        self._welcome = True
        self._riddle.clear()
        if self._departure.by(welcome=True) is not None:
            return
        self._alive.answered(getattr(stated, "ServerKeepAlive", None), time.monotonic())
        self._window = min(self._window, getattr(stated, "ReceiveMaximum", 0) or self._window)
        self._aliases = Aliases(getattr(stated, "TopicAliasMaximum", 0))
        self._mailbox.link_up(getattr(stated, "MaximumPacketSize", None))
        self._ask()
        self._settle()

    def _on_subscribe(self, _c: object, _u: object, mid: int, codes: list[ReasonCode], _p: object) -> None:
        for name, code in zip(self._asked.pop(mid, []), codes, strict=False):
            if code.is_failure:
                self._mailbox.tell(Denied(name, f"the broker refused to subscribe: {code.getName()}"))
        self._settle()

    def _settle(self) -> None:
        """Say Online once every subscription is acknowledged."""
        if self._online or self._asked:
            return
        self._online = True
        logger.info("mqtt=online client=%s version=%s", self._client_id, "5" if self._five else "3.1.1")
        self._mailbox.go_online()

    def _on_message(self, _c: object, _u: object, message: mqtt.MQTTMessage) -> None:
        """Take a PUBLISH that is not as ours are, as one with properties of its own."""
        expiry_s = getattr(message.properties, "MessageExpiryInterval", None)
        mid = message.mid if message.qos else 0
        self._deliver(Delivery(message.topic, bytes(message.payload), message.retain, mid, expiry_s))

    def _deliver(self, came: Delivery) -> None:
        packet = Packet(came.topic, came.payload, came.retain, came.expiry_s)
        receipt = Receipt(self._receipts, came.mid)
        if not self._mailbox.arrive(packet, receipt if came.mid else None) and came.mid:
            self._mailbox.acks.append(receipt)
        elif came.mid:
            self._ack_wait.came(time.monotonic())
            self._mailbox.acks_at_once, self._mailbox.acks_wait = self._ack_wait.at_once, True

    def _answered(self, answer: Answer) -> None:
        packet = self._open.pop(answer.mid, None)
        if packet is None:
            return
        self._mailbox.release(packet)
        self._mailbox.packet_limit.acknowledged(packet)
        if answer.code >= _FAILURE:
            why = ReasonCode(PacketTypes.PUBACK, identifier=answer.code).getName()
            self._mailbox.tell(Denied(packet.topic, f"the broker refused to publish: {why}"))

    def _on_disconnect(self, _c: object, _u: object, flags: mqtt.DisconnectFlags, code: ReasonCode, _p: object) -> None:
        if self._ended is not None:
            return  # by us
        said = code.value if flags.is_disconnect_packet_from_server else None
        if said is not None:
            taken_over = said == reasons.TAKEN_OVER
            self._end(reasons.dismissed(said, code.getName()), answer_of(said), taken_over=taken_over)
        elif code.value == reasons.PROTOCOL_ERROR:  # paho's word for bytes that it does not understand
            self._end(reasons.not_mqtt(*self._where), ConnectAnswer.GARBAGE)
            return
        elif not self._welcome:
            self._hung_up()
            return
        else:
            self._end("the connection was lost")
        for denied in self._mailbox.packet_limit.hung_up(self._open.values(), said):
            self._mailbox.tell(denied)

    def _hung_up(self) -> None:
        if self._tls is None:
            self._end(reasons.hung_up(*self._where), ConnectAnswer.CLOSED)
        elif why := self._turned_away(self._tls.alert):
            self._end(why)
        else:
            self._riddle.set()
            self._end(reasons.hung_up_on_tls(*self._where, self._broker.certificate_file), ConnectAnswer.CLOSED)

    def _turned_away(self, error: OSError | None) -> str:
        """Return why the broker has ended TLS; "" where it was not the broker."""
        alert = reasons.alert_of(error) if isinstance(error, ssl.SSLError) else ""
        file = self._broker.certificate_file
        return reasons.turned_away(alert, *self._where, file, validity(self._broker)) if alert else ""

    def _end(
        self,
        reason: str,
        answer: ConnectAnswer = ConnectAnswer.NONE,
        *,
        taken_over: bool = False,
        renewed: bool = False,
    ) -> None:
        """Note that this connection is over. answer: to CONNECT, if that was not a welcome."""
        if self._ended is None:  # the first reason is the true one
            self._ended = Ended(reason, ConnectAnswer.ACCEPTED if self._welcome else answer, taken_over, renewed)

    def _on_socket_open(self, _c: object, _u: object, sock: Any) -> None:
        tune(sock)
        self._splice = self._client.splice = Splice(sock, self._mailbox.counters)

    def _on_socket_close(self, _c: object, _u: object, sock: Any) -> None:
        if self._welcome and self._departure.by(welcome=True) is not None:
            self._departure.linger(sock)
