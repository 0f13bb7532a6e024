"""The MQTT client: the law of broker/transport.py kept over a real network. The only file that knows paho.

    owner's thread                          network thread
    publish ──> outbound, bounded ──window──> paho ──> broker
    take  <── inbox, bounded <───────────── paho <── broker
      └───────> acks ───────────────────────> paho ──> broker

1. One daemon thread per transport drives paho by hand; paho starts none. Owner and network thread meet in queues
   under one lock, plus one SimpleQueue for events, whose `put` even a signal handler may call.
2. One connection is one paho client, thrown away with it. So nothing stale is ever sent again, and what an old
   connection left (acknowledgements, subscriptions under way) cannot leak into the next.
3. Clean start, no persistent session, QoS 1. At most `window` publishes are without PUBACK, never more than
   the broker's Receive Maximum, and paho is handed the next one only when the last is in the kernel: control
   and pings never queue behind megabytes.
4. Packets are acknowledged when the owner takes them. On MQTT 5 we announce how many may be open (Receive
   Maximum); floods beyond the inbox (QoS 0, or a 3.1.1 broker without a window) are dropped and counted.
5. Alive means that bytes move, in either direction, within one and a half keepalive intervals. (paho's own
   check wants a PINGRESP within one, and would cut a slow link that is busy with a large body.)
6. `Usurped` and `Denied` (but for subscriptions) need MQTT 5. 3.1.1 cannot say why a connection was closed, nor
   does mosquitto 2.0.11 where a name was taken over: two clients of one id then take it from each other for ever,
   though ever more slowly, because a connection that did not last counts as a failure. And on 3.1.1 a publish that
   the broker forbids looks like one that arrived.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import select
import socket
import ssl
import struct
import threading
import time
from collections import deque
from typing import Any, NamedTuple

import paho.mqtt.client as mqtt
from paho.mqtt import MQTTException
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from broker import reasons
from broker.aliases import ALIAS_BYTES, Aliases
from broker.backoff import backoff_s
from broker.connection import BrokerSettings
from broker.credentials import read_password, tls_context
from broker.mailbox import Change, Limits, Mailbox, Receipt
from broker.transport import Denied, Event, Packet, Usurped, check_filter, check_topic

logger = logging.getLogger(__name__)

FILTERS_PER_SUBSCRIBE = 8
"""AWS IoT Core takes no more in one packet."""

_STEADY_S = 30.0  # a connection that lasted this long ends a series of failures
_UNSENT_BYTES = 131_072  # what the kernel may hold unsent: at 20 kbit/s, under a keepalive interval
_AUTO_ANSWER_S = 4.0  # with "auto": a broker that leaves an MQTT 5 CONNECT unanswered (amqtt) may know 3.1.1
_GOODBYE_S = (0.05, 0.5)  # how long the broker may take to hang up after our DISCONNECT, in a hurry and not
_GARBAGE = (ValueError, LookupError, struct.error, MQTTException)  # what paho's parser lets through, by version


class _Ended(NamedTuple):
    """Why a connection is over. `older`: an older MQTT version may do better. `usurped`: stop for good."""

    reason: str
    older: bool = False
    usurped: bool = False


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
        limits: Limits = Limits(),  # noqa: B008 -- a tuple never changes
        first_retry_s: float = 1.0,
        last_retry_s: float = 120.0,
    ) -> None:
        if will is not None:
            check_topic(will.topic)
        self.broker, self.client_id, self.will = broker, client_id, will
        self._retry_s = (first_retry_s, last_retry_s)
        self._mailbox = Mailbox(limits)
        self.counters = self._mailbox.counters
        self._closing_at: float | None = None  # until when `close` lets us flush
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Start connecting. Returns at once; `Online` or `Offline` follow from `take`."""
        if self._thread is None and self._closing_at is None:
            self._thread = threading.Thread(target=self._run, name=f"mqtt-{self.client_id}", daemon=True)
            self._thread.start()

    def subscribe(self, *filters: str) -> None:
        """Remember these topic filters. Raises ValueError for a filter that MQTT does not allow."""
        for name in filters:
            check_filter(name)
        self._mailbox.subscribe(filters)

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

    def take(self, timeout_s: float | None = 0.0) -> Event | None:
        """Give the next event, waiting at most timeout_s (None: for ever), else None."""
        return self._mailbox.take(timeout_s)

    def wake(self) -> None:
        """Make a waiting `take` return None now. Any thread and any signal handler may call this."""
        self._mailbox.wake()

    def close(self, timeout_s: float = 2.0) -> None:
        """Send what was taken, say a clean DISCONNECT and end the thread.

        What the broker has not acknowledged after timeout_s is given up. A TCP or TLS handshake in progress cannot
        be interrupted; it ends, and with it the thread, within `connect_timeout_s`.
        """
        if self._closing_at is None:
            self._closing_at = time.monotonic() + timeout_s
        self._mailbox.shut()
        self._mailbox.bell.ring()
        if self._thread is None:
            self._mailbox.bell.close()
        else:
            self._thread.join(timeout_s + 2 * _GOODBYE_S[1])

    # From here on: the network thread.

    def _run(self) -> None:
        failures = 0
        while self._closing_at is None:
            started = time.monotonic()
            ended = self._connect()
            self._mailbox.go_offline()
            logger.info("mqtt=offline client=%s reason=%r", self.client_id, ended.reason)
            if ended.usurped:
                self._mailbox.tell(Usurped())
                break
            if self._closing_at is None:
                self._mailbox.complain(ended.reason)
            failures = 1 if time.monotonic() - started > _STEADY_S else failures + 1
            self._rest(backoff_s(failures, *self._retry_s, random.random()))  # noqa: S311 -- jitter is no secret
        self._mailbox.bell.close()

    def _connect(self) -> _Ended:
        """Make one connection and keep it to its end; with "auto", try the older MQTT where the newer fails."""
        newer, older = MQTTProtocolVersion.MQTTv5, MQTTProtocolVersion.MQTTv311
        ended = self._link(older if self.broker.protocol == "3.1.1" else newer)
        if ended.older and self.broker.protocol == "auto" and self._closing_at is None:
            logger.info("mqtt=fallback client=%s version=3.1.1 reason=%r", self.client_id, ended.reason)
            ended = self._link(older)
        return ended

    def _link(self, version: MQTTProtocolVersion) -> _Ended:
        return _Link(self, self._mailbox, version).run()

    def _rest(self, wait_s: float) -> None:
        until = time.monotonic() + wait_s
        while self._closing_at is None and (left := until - time.monotonic()) > 0:
            self._mailbox.bell.wait(left)


class _Link:
    """One connection, from CONNECT to its end. Lives in the network thread."""

    def __init__(self, owner: MqttTransport, mailbox: Mailbox, version: MQTTProtocolVersion) -> None:
        self._owner, self._mailbox = owner, mailbox
        self._five = version == MQTTProtocolVersion.MQTTv5
        self._where = (owner.broker.host, owner.broker.port)
        patient = owner.broker.protocol != "auto" or not self._five
        self._answer_s = min(owner.broker.connect_timeout_s, math.inf if patient else _AUTO_ANSWER_S)
        self._ended: _Ended | None = None
        self._welcome = self._online = False
        self._window = mailbox.limits.window
        self._keepalive_s = owner.broker.keepalive_s
        self._open: dict[int, Packet] = {}  # published, without PUBACK
        self._aliases = Aliases(0)
        self._asked: dict[int, list[str]] = {}  # SUBSCRIBEs without SUBACK
        self._early: list[Packet] = []  # received before we said Online
        self._dialled_at = self._heard_at = self._pinged_at = time.monotonic()
        self._client = self._make_client(version)

    def _make_client(self, version: MQTTProtocolVersion) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self._owner.client_id,
            clean_session=None if self._five else True,
            protocol=version,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.max_inflight_messages = 0  # no limit: the window is kept here
        client.connect_timeout = self._owner.broker.connect_timeout_s
        client.on_connect, client.on_disconnect = self._on_connect, self._on_disconnect
        client.on_subscribe, client.on_publish = self._on_subscribe, self._on_publish
        client.on_message, client.on_socket_close = self._on_message, self._on_socket_close
        if (will := self._owner.will) is not None:
            client.will_set(will.topic, will.payload, 1, will.retain, self._expiry(will, PacketTypes.WILLMESSAGE))
        return client

    def run(self) -> _Ended:
        """Connect and carry packets until the connection ends; give the reason."""
        try:
            self._dial()
            poller = select.poll()  # not select.select, which fails beyond descriptor 1023
            poller.register(self._mailbox.bell, select.POLLIN)
            while self._ended is None:
                self._step(poller)
        except OSError as error:
            self._end(_Ended(reasons.unreachable(error, *self._where)))
        except _GARBAGE as error:
            logger.debug("mqtt=garbage client=%s error=%r", self._owner.client_id, error)
            self._end(_Ended(reasons.not_mqtt(*self._where), older=not self._welcome))
        finally:
            self._hang_up()
        return self._ended or _Ended("closed")

    def _dial(self) -> None:
        broker = self._owner.broker
        if broker.username is not None:
            self._client.username_pw_set(broker.username, read_password(broker))
        if (context := tls_context(broker)) is not None:
            self._client.tls_set_context(context)
        self._client.connect(broker.host, broker.port, broker.keepalive_s, **self._connect_options())
        self._dialled_at = self._heard_at = time.monotonic()
        if (sock := self._client.socket()) is not None:
            _tune(sock)

    def _connect_options(self) -> dict[str, Any]:
        if not self._five:
            return {}
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho's own gap
        properties.ReceiveMaximum = self._mailbox.limits.receive_maximum
        properties.MaximumPacketSize = self._mailbox.limits.packet_bytes
        return {"clean_start": True, "properties": properties}

    def _step(self, poller: select.poll) -> None:
        """Wait for the network, the owner or the clock, and do what there is to do."""
        sock = self._client.socket()
        if sock is None:
            self._end(_Ended("the connection was lost"))
            return
        poller.register(sock, select.POLLIN | (select.POLLOUT if self._client.want_write() else 0))
        pending = isinstance(sock, ssl.SSLSocket) and sock.pending() > 0
        ready = dict(poller.poll(0 if pending else self._patience_s() * 1000))
        poller.unregister(sock)
        network = ready.get(sock.fileno(), 0)
        if network or pending:
            self._heard_at = time.monotonic()
        if pending or network & ~select.POLLOUT:
            self._client.loop_read()
        if network & select.POLLOUT:
            self._client.loop_write()
        self._mailbox.bell.hush()
        if self._ended is None and self._welcome:
            self._pump()
        if self._ended is None:
            self._watch(time.monotonic())

    def _patience_s(self) -> float:
        """Give the seconds until `_watch` must look at the clock again."""
        now = time.monotonic()
        deadlines = [self._pinged_at + self._keepalive_s, self._heard_at + 1.5 * self._keepalive_s]
        if not self._welcome:
            deadlines.append(self._dialled_at + self._answer_s)
        if self._owner._closing_at is not None:
            deadlines.append(self._owner._closing_at)
        return max(0.0, min(deadlines) - now) + 0.001

    def _watch(self, now: float) -> None:
        """Do what is due by the clock: ping, give up on silence, say goodbye."""
        if self._may_leave(now):
            self._ended = _Ended("closed")
            self._client.disconnect()
        elif not self._welcome and now - self._dialled_at >= self._answer_s:
            self._end(_Ended(reasons.silent(*self._where, self._answer_s), older=True))
        elif now - self._heard_at >= 1.5 * self._keepalive_s:
            self._end(_Ended(f"nothing was heard from the broker for {now - self._heard_at:.0f} s"))
        elif self._welcome and now - self._pinged_at >= self._keepalive_s:
            self._pinged_at = now
            self._client._send_pingreq()  # paho has no public ping without its own check; see law 5

    def _may_leave(self, now: float) -> bool:
        closing_at = self._owner._closing_at
        if closing_at is None:
            return False
        busy = self._online and (self._mailbox.n_held > 0 or self._client.want_write())
        return not busy or now >= closing_at

    def _pump(self) -> None:
        """Hand to paho what the owner left for it: acknowledgements, filters, packets, in this order."""
        box = self._mailbox
        while box.acks:
            receipt = box.acks.popleft()
            if receipt.link is self:
                self._client.ack(receipt.mid, 1)
        while box.changes:
            self._send_changes(box.changes)
        while box.outbound and len(self._open) < self._window and not self._client.want_write():
            self._send(box.outbound.popleft())

    def _send_changes(self, changes: deque[Change]) -> None:
        """Send the next SUBSCRIBE or UNSUBSCRIBE: a run of changes of one kind, of at most eight filters."""
        wanted, name = changes.popleft()
        names = [name]
        while changes and changes[0].wanted == wanted and len(names) < FILTERS_PER_SUBSCRIBE:
            names.append(changes.popleft().name)
        if wanted:
            self._ask(names)
        else:
            self._client.unsubscribe(names)

    def _ask(self, names: list[str]) -> None:
        mid = self._client.subscribe([(name, 1) for name in names])[1]
        if mid is not None:
            self._asked[mid] = names

    def _send(self, packet: Packet) -> None:
        self._mailbox.note_sent(packet)  # first: who sees it arrive finds it counted
        fits = self._mailbox.excess(packet, ALIAS_BYTES) is None
        topic, alias = self._aliases.name(packet.topic) if fits else (packet.topic, None)
        properties = self._expiry(packet, PacketTypes.PUBLISH)
        if alias is not None:
            properties = properties or Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho's own gap
            properties.TopicAlias = alias
        info = self._client.publish(topic, packet.payload, 1, packet.retain, properties)
        self._open[info.mid] = packet

    def _expiry(self, packet: Packet, kind: int) -> Properties | None:
        if not self._five or packet.expiry_s is None:
            return None
        properties = Properties(kind)  # type: ignore[no-untyped-call]  # paho's own gap
        properties.MessageExpiryInterval = packet.expiry_s
        return properties

    def _on_connect(self, _c: object, _u: object, _f: object, code: ReasonCode, stated: Properties | None) -> None:
        if code.is_failure:
            older = code.value == reasons.UNSUPPORTED_VERSION
            self._end(_Ended(reasons.refused(code.value, code.getName()), older))
            return
        self._welcome = True
        self._pinged_at = time.monotonic()
        self._keepalive_s = getattr(stated, "ServerKeepAlive", 0) or self._keepalive_s  # 0: it never looks
        self._window = min(self._window, getattr(stated, "ReceiveMaximum", self._window))
        self._aliases = Aliases(getattr(stated, "TopicAliasMaximum", 0))
        names = self._mailbox.link_up(getattr(stated, "MaximumPacketSize", None))
        for start in range(0, len(names), FILTERS_PER_SUBSCRIBE):
            self._ask(names[start : start + FILTERS_PER_SUBSCRIBE])
        self._settle()

    def _on_subscribe(self, _c: object, _u: object, mid: int, codes: list[ReasonCode], _p: object) -> None:
        for name, code in zip(self._asked.pop(mid, []), codes, strict=False):
            if code.is_failure:
                self._mailbox.tell(Denied(name, f"the broker refused to subscribe: {code.getName()}"))
        self._settle()

    def _settle(self) -> None:
        """Say Online once every subscription is acknowledged, then give out what came before."""
        if self._online or self._asked:
            return
        self._online = True
        logger.info("mqtt=online client=%s version=%s", self._owner.client_id, "5" if self._five else "3.1.1")
        self._mailbox.go_online()
        for packet in self._early:
            self._mailbox.tell(packet)
        self._early.clear()

    def _on_message(self, client: mqtt.Client, _u: object, message: mqtt.MQTTMessage) -> None:
        expiry_s = getattr(message.properties, "MessageExpiryInterval", None)
        packet = Packet(message.topic, bytes(message.payload), message.retain, expiry_s)
        if not self._mailbox.reserve(packet):
            client.ack(message.mid, message.qos)
            return
        if self._online:
            self._mailbox.tell(packet, Receipt(self, message.mid) if message.qos else None)
        else:  # acknowledged at once: amqtt sends no further SUBACK while one of these is open
            client.ack(message.mid, message.qos)
            self._early.append(packet)

    def _on_publish(self, _c: object, _u: object, mid: int, code: ReasonCode, _p: object) -> None:
        packet = self._open.pop(mid, None)
        if packet is None:
            return
        self._mailbox.release(packet)
        if code.is_failure:
            reason = f"the broker refused to publish: {code.getName()}"
            self._mailbox.tell(Denied(packet.topic, reason))

    def _on_disconnect(self, _c: object, _u: object, flags: mqtt.DisconnectFlags, code: ReasonCode, _p: object) -> None:
        if flags.is_disconnect_packet_from_server:
            reason = reasons.dismissed(code.value, code.getName())
            self._end(_Ended(reason, usurped=code.value == reasons.TAKEN_OVER))
        elif self._welcome:
            self._end(_Ended("the connection was lost"))
        else:
            self._end(_Ended(reasons.hung_up(*self._where), older=True))

    def _end(self, ended: _Ended) -> None:
        self._ended = self._ended or ended  # the first reason is the true one

    def _hang_up(self) -> None:
        """Close the socket and forget what never reached the owner."""
        for packet in self._early:
            self._mailbox.give_back(packet)
        if (sock := self._client.socket()) is not None:
            sock.close()

    def _on_socket_close(self, _c: object, _u: object, sock: Any) -> None:
        """After a goodbye, let the broker hang up first.

        Closing with bytes unread would reset the connection, the broker might never see our DISCONNECT, and a will
        would be published for a clean departure.
        """
        closing_at = self._owner._closing_at
        if closing_at is None or not self._welcome:
            return
        now = time.monotonic()
        until = min(max(closing_at, now + _GOODBYE_S[0]), now + _GOODBYE_S[1])
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
            sock.settimeout(until - now)
            while time.monotonic() < until and sock.recv(65_536):
                pass


def _tune(sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # Linux
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
