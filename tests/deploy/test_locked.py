"""What nobody can do at a broker with deploy/mosquitto/locked.conf: each act is tried, with a honest one beside it.

An act has come through when its mark is heard: by somebody who hears everything there is, or by who was curious. To
know that it never will be, nobody waits: the broker answers to whoever asked last, and it does one thing after another.
The honest act differs from the other in who does it or to what, and comes through; so each row could fail.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

import pytest

from identity.asking import Secret
from tests.deploy.locked import TOKENS, Site, hearing_everything, mark
from tests.deploy.raw import Raw, Refused

HOME = "fedge/1/home"
AGGREGATOR_ID = "home-aggregator-b6e30f5d"


class Somebody(NamedTuple):
    """Whose certificate, at which listener, over which version of MQTT and TLS, and what the CONNECT claims."""

    who: str | None
    at: str = "devices"
    version: int = 5
    tls: ssl.TLSVersion | None = None
    client_id: str = "some-id"
    user: str | None = None
    password: str | None = None
    plain: bool = False

    def connect(self, site: Site, will: tuple[str, bytes] | None = None) -> Raw:
        context = None if self.plain else site.context(self.who, version=self.tls)
        raw = Raw(site.ports[self.at], context, version=self.version)
        try:
            raw.connect(self.client_id, user=self.user, password=self.password, will=will)
        except BaseException:
            raw.die()
            raise
        return raw


class Act(NamedTuple):
    """Something to try. by: who does it. does: how; it returns whether it came through."""

    by: Somebody
    does: Callable[[Site, Somebody], bool]


def says(topic: str, *, retain: bool = False) -> Callable[[Site, Somebody], bool]:
    """Publish, also if the broker hangs up on it."""

    def do(site: Site, by: Somebody) -> bool:
        said = mark()
        with hearing_everything(site) as witness:
            with suppress(Refused), by.connect(site) as raw:
                raw.publish(topic, said, retain=retain)
            _forget(site, topic, retain)
            return came(witness, said)

    return do


def leaves(topic: str) -> Callable[[Site, Somebody], bool]:
    """Die with a last will. The broker is done with who has died once it lets the same name in again."""

    def do(site: Site, by: Somebody) -> bool:
        said = mark()
        with hearing_everything(site) as witness:
            with suppress(Refused):
                by.connect(site, (topic, said)).die()
                by.connect(site).close()
            return came(witness, said)

    return do


def overwrites(topic: str, *, clears: bool = False) -> Callable[[Site, Somebody], bool]:
    """Publish to a topic where something is retained, and look at what is retained then."""

    def do(site: Site, by: Somebody) -> bool:
        said = b"" if clears else mark()
        with site.client("all", None) as everything:
            everything.publish(topic, mark(), retain=True)
            with suppress(Refused), by.connect(site) as raw:
                raw.publish(topic, said, retain=True)
            everything.subscribe(topic)
            now = [heard.payload for heard in everything.heard if heard.retained]
        _forget(site, topic, retain=True)
        return now == ([] if clears else [said])

    return do


def hears(wanted: str, topic: str, *, retained: bool = False) -> Callable[[Site, Somebody], bool]:
    """Subscribe to a filter, and have something said to a topic by others, before or after."""

    def do(site: Site, by: Somebody) -> bool:
        said, found = mark(), []
        with site.client("all", None) as everything, suppress(Refused), by.connect(site) as raw:
            if retained:
                everything.publish(topic, said, retain=True)
                raw.subscribe(wanted)
            else:
                raw.subscribe(wanted)
                everything.publish(topic, said)
            raw.ping()
            found = [heard.payload for heard in raw.heard]
        _forget(site, topic, retained)
        return said in found

    return do


def sees(topic: str) -> Callable[[Site, Somebody], bool]:
    """Subscribe to what the broker itself retains."""

    def do(site: Site, by: Somebody) -> bool:
        with by.connect(site) as raw:
            raw.subscribe(topic)
            return bool(raw.heard)

    return do


def throws_off(victim: Somebody) -> Callable[[Site, Somebody], bool]:
    """Connect, under whatever client id, while somebody else is there; whether he is gone then."""

    def do(site: Site, by: Somebody) -> bool:
        with victim.connect(site) as there:
            with suppress(Refused):
                by.connect(site).close()
            return there.is_hung_up_on()

    return do


def came(witness: Raw, said: bytes) -> bool:
    """Whether the witness has heard it. Whoever said it was answered, so it was heard before this ping or never is."""
    witness.ping()
    return said in [heard.payload for heard in witness.heard]


def _forget(site: Site, topic: str, retain: bool) -> None:
    if retain:
        with site.client("all", None) as everything:
            everything.publish(topic, b"", retain=True)


PI = Somebody("pi-1")
OLD = Somebody("pi-1", version=4)
AGGREGATOR = Somebody("aggregator", "server", client_id=AGGREGATOR_ID)
OBSERVER = Somebody("olga", "people")
OPERATOR = Somebody("otto", "people")
ADMIN = Somebody("ada", "people")
OWN_OFFER, OWN_PRESENCE = says(f"{HOME}/offer/j-1/pi-1/9"), says(f"{HOME}/device/pi-1", retain=True)


CA = "fedge-ca/1/home"
FIRST, SECOND = (
    Somebody(None, "tokens", user=name, password=Secret(secret).password) for name, secret in TOKENS.items()
)
ASKS, ANSWER = f"{CA}/enroll/{FIRST.user}", f"{CA}/issued/{FIRST.user}"
AUTHORITY = Somebody("authority", "server")


def writes(
    topic: str, *, by: Somebody = PI, honest: Somebody = AGGREGATOR, honestly: str | None = None, retain: bool = False
) -> tuple[Act, Act]:
    """A row: this topic, and who may write it; or another topic, that the same person may write."""
    return Act(by, says(topic, retain=retain)), Act(by if honestly else honest, says(honestly or topic, retain=retain))


def enters(by: Somebody, *, as_if: str = "pi-1", honest: Somebody = PI) -> tuple[Act, Act]:
    """A row: words of a device, by somebody who is not to come in as that device, or at all."""
    says_so = says(f"{HOME}/device/{as_if}")
    return Act(by, says_so), Act(honest, says(f"{HOME}/device/{honest.who}"))


OFFER, CHUNK = f"{HOME}/offer/j-1/pi-1/9", f"{HOME}/chunk/j-1/pi-1/{'0' * 16}/0"
ROWS: dict[str, tuple[Act, Act]] = {
    # A device writes what is another's.
    "an offer in another's name": writes(f"{HOME}/offer/j-1/pi-2/9", honestly=OFFER),
    "a chunk in another's name": writes(f"{HOME}/chunk/j-1/pi-2/{'0' * 16}/0", honestly=CHUNK),
    "another's presence": writes(f"{HOME}/device/pi-2", honestly=f"{HOME}/device/pi-1", retain=True),
    "another's vitals": writes(f"{HOME}/vitals/pi-2", honestly=f"{HOME}/vitals/pi-1", retain=True),
    "a device's vitals, by the aggregator": writes(f"{HOME}/vitals/pi-1", by=AGGREGATOR, honest=PI, retain=True),
    "a device's vitals, by an operator": writes(f"{HOME}/vitals/pi-1", by=OPERATOR, honest=PI, retain=True),
    "a beacon": writes(f"{HOME}/aggregator", retain=True),
    "a candidate": writes(f"{HOME}/candidate"),
    "a job": writes(f"{HOME}/job/j-1", retain=True),
    "a head": writes(f"{HOME}/head/j-1", retain=True),
    "a status": writes(f"{HOME}/status/j-1", retain=True),
    "a round": writes(f"{HOME}/round/j-1", retain=True),
    "a body": writes(f"{HOME}/body/j-1/1-3-0/0", retain=True),
    "a want to itself": writes(f"{HOME}/want/j-1/pi-1"),
    "a verdict to itself": writes(f"{HOME}/verdict/j-1/pi-1"),
    "a verdict to another, by 3.1.1": writes(f"{HOME}/verdict/j-1/pi-2", by=OLD),
    "a reply": writes(f"{HOME}/reply/operator-1"),
    "a command": writes(f"{HOME}/command/pi-1", honest=OPERATOR),
    "a query": writes(f"{HOME}/query/pi-1", honest=OBSERVER),
    "another version of the wire": writes("fedge/2/home/device/pi-1", honestly=f"{HOME}/device/pi-1"),
    "a level more than there is": writes(f"{HOME}/device/pi-1/more", honestly=f"{HOME}/device/pi-1"),
    "a slash in front": writes(f"/{HOME}/device/pi-1", honestly=f"{HOME}/device/pi-1"),
    "a topic of no tree": writes("pi-1", honestly=f"{HOME}/device/pi-1"),
    "the broker's own figures": writes("$SYS/broker/uptime", honestly=OFFER),
    "the state of a bridge": writes("$SYS/broker/connection/cloud/state", honestly=OFFER),
    "the broker's controls": writes("$CONTROL/dynamic-security/v1", honestly=OFFER),
    "a topic that looks like a shared subscription": writes(f"$share/g/{HOME}/head/j-1", honestly=OFFER),
    "a topic with a wildcard": writes(f"{HOME}/offer/+/pi-1/9", honestly=OFFER),
    # Last wills.
    "a will on another's presence": (Act(PI, leaves(f"{HOME}/device/pi-2")), Act(PI, leaves(f"{HOME}/device/pi-1"))),
    "a will on the beacon": (Act(PI, leaves(f"{HOME}/aggregator")), Act(PI, leaves(f"{HOME}/device/pi-1"))),
    "a will that commands": (Act(PI, leaves(f"{HOME}/command/x")), Act(OPERATOR, leaves(f"{HOME}/command/x"))),
    "a will by 3.1.1": (Act(OLD, leaves(f"{HOME}/device/pi-2")), Act(OLD, leaves(f"{HOME}/device/pi-1"))),
    "a will on the broker's controls": (Act(PI, leaves("$CONTROL/x")), Act(PI, leaves(f"{HOME}/device/pi-1"))),
    "a will of an observer": (Act(OBSERVER, leaves(f"{HOME}/job/j-1")), Act(OBSERVER, leaves(f"{HOME}/query/x"))),
    # What is retained.
    "another head is retained": (
        Act(PI, overwrites(f"{HOME}/head/j-1")),
        Act(AGGREGATOR, overwrites(f"{HOME}/head/j-1")),
    ),
    "a job is cleared": (
        Act(PI, overwrites(f"{HOME}/job/j-1", clears=True)),
        Act(AGGREGATOR, overwrites(f"{HOME}/job/j-1", clears=True)),
    ),
    "a round is cleared, by 3.1.1": (
        Act(OLD, overwrites(f"{HOME}/round/j-1", clears=True)),
        Act(AGGREGATOR, overwrites(f"{HOME}/round/j-1", clears=True)),
    ),
    "another's presence is cleared": (
        Act(PI, overwrites(f"{HOME}/device/pi-2", clears=True)),
        Act(PI, overwrites(f"{HOME}/device/pi-1", clears=True)),
    ),
    "another's vitals are cleared": (
        Act(PI, overwrites(f"{HOME}/vitals/pi-2", clears=True)),
        Act(AUTHORITY, overwrites(f"{HOME}/vitals/pi-2", clears=True)),
    ),
    "an observer clears a job": (
        Act(OBSERVER, overwrites(f"{HOME}/job/j-1", clears=True)),
        Act(AGGREGATOR, overwrites(f"{HOME}/job/j-1", clears=True)),
    ),
    # A device is curious.
    "everything": (Act(PI, hears("#", f"{HOME}/offer/j-1/pi-2/9")), Act(PI, hears("#", f"{HOME}/round/j-1"))),
    "all verdicts": (
        Act(PI, hears(f"{HOME}/verdict/+/+", f"{HOME}/verdict/j-1/pi-2")),
        Act(PI, hears(f"{HOME}/verdict/+/+", f"{HOME}/verdict/j-1/pi-1")),
    ),
    "all of any fleet": (
        Act(PI, hears("+/+/+/want/#", f"{HOME}/want/j-1/pi-2")),
        Act(PI, hears("+/+/+/want/#", f"{HOME}/want/j-1/pi-1")),
    ),
    "a share of everything": (
        Act(PI, hears("$share/g/#", f"{HOME}/offer/j-1/pi-2/9")),
        Act(PI, hears("$share/g/#", f"{HOME}/round/j-1")),
    ),
    "a share of the offers": (
        Act(PI, hears(f"$share/aggregator/{HOME}/offer/#", f"{HOME}/offer/j-1/pi-2/9")),
        Act(AGGREGATOR, hears(f"$share/aggregator/{HOME}/offer/#", f"{HOME}/offer/j-1/pi-2/9")),
    ),
    "a command that is given": (
        Act(PI, hears(f"{HOME}/command/+", f"{HOME}/command/x")),
        Act(AGGREGATOR, hears(f"{HOME}/command/+", f"{HOME}/command/x")),
    ),
    "a reply that is given": (
        Act(PI, hears(f"{HOME}/reply/+", f"{HOME}/reply/x")),
        Act(OBSERVER, hears(f"{HOME}/reply/+", f"{HOME}/reply/x")),
    ),
    "another's presence that lies there": (
        Act(PI, hears(f"{HOME}/device/+", f"{HOME}/device/pi-2", retained=True)),
        Act(PI, hears(f"{HOME}/device/+", f"{HOME}/device/pi-1", retained=True)),
    ),
    "another's vitals that lie there": (
        Act(PI, hears(f"{HOME}/vitals/+", f"{HOME}/vitals/pi-2", retained=True)),
        Act(OBSERVER, hears(f"{HOME}/vitals/+", f"{HOME}/vitals/pi-2", retained=True)),
    ),
    "the broker's figures, by a device": (
        Act(PI, sees("$SYS/broker/version")),
        Act(ADMIN, sees("$SYS/broker/version")),
    ),
    # Client ids of others.
    "the client id of another device": (
        Act(Somebody("pi-2", client_id="pi-1"), throws_off(PI)),
        Act(Somebody("pi-1", client_id="else"), throws_off(PI)),
    ),
    "the aggregator's client id, by a device": (
        Act(Somebody("pi-1", client_id=AGGREGATOR_ID), throws_off(AGGREGATOR)),
        Act(AGGREGATOR, throws_off(AGGREGATOR)),
    ),
    "the aggregator's client id, by an observer": (
        Act(Somebody("olga", "people", client_id=AGGREGATOR_ID), throws_off(AGGREGATOR)),
        Act(AGGREGATOR, throws_off(AGGREGATOR)),
    ),
    "a device's client id, by an admin": (
        Act(Somebody("ada", "people", client_id="pi-1"), throws_off(PI)),
        Act(Somebody("authority", "server", client_id="pi-1"), throws_off(PI)),
    ),
    "a device's client id, by who has no certificate": (
        Act(Somebody(None, client_id="pi-1"), throws_off(PI)),
        Act(Somebody("authority", "server", client_id="pi-1"), throws_off(PI)),
    ),
    # Certificates.
    "none": enters(Somebody(None)),
    "an expired one": enters(Somebody("expired")),
    "one that is not valid yet": enters(Somebody("too early")),
    "a revoked one": enters(Somebody("revoked"), as_if="revoked"),
    "a revoked operator's": (
        Act(Somebody("dismissed", "server", client_id=AGGREGATOR_ID), throws_off(AGGREGATOR)),
        Act(Somebody("otto", "server", client_id=AGGREGATOR_ID), throws_off(AGGREGATOR)),
    ),
    "one of another authority of the same name": enters(Somebody("stranger")),
    "one signed by itself": enters(Somebody("itself")),
    "one signed by a device": enters(Somebody("signed by a device")),
    "one for a server, from the devices' authority": enters(Somebody("a server's")),
    "the broker's own, as if it were the aggregator's": (
        Act(Somebody("broker", "server"), says(f"{HOME}/head/j-1")),
        Act(AGGREGATOR, says(f"{HOME}/head/j-1")),
    ),
    "a device's at the server's listener": enters(Somebody("pi-1", "server")),
    "a device's at the people's listener": enters(Somebody("pi-1", "people")),
    "the aggregator's at the devices' listener": (
        Act(Somebody("aggregator", "devices"), says(f"{HOME}/head/j-1")),
        Act(AGGREGATOR, says(f"{HOME}/head/j-1")),
    ),
    "an operator's at the devices' listener": (
        Act(Somebody("otto", "devices"), says(f"{HOME}/command/x")),
        Act(OPERATOR, says(f"{HOME}/command/x")),
    ),
    # A captured authority for devices writes any name into a certificate.
    "a device called aggregator": (
        Act(Somebody("as aggregator"), says(f"{HOME}/head/j-1")),
        Act(Somebody("as aggregator"), says(f"{HOME}/device/aggregator")),
    ),
    "a device called aggregator, at the server's listener": (
        Act(Somebody("as aggregator", "server"), says(f"{HOME}/head/j-1")),
        Act(AGGREGATOR, says(f"{HOME}/head/j-1")),
    ),
    "a device called like an operator": (
        Act(Somebody("as otto"), says(f"{HOME}/command/x")),
        Act(Somebody("as otto"), says(f"{HOME}/device/otto")),
    ),
    "a device called like an operator, at the people's listener": (
        Act(Somebody("as otto", "people"), says(f"{HOME}/command/x")),
        Act(OPERATOR, says(f"{HOME}/command/x")),
    ),
    "a device called authority": (
        Act(Somebody("as authority"), says(f"{HOME}/device/pi-2")),
        Act(Somebody("authority", "server"), says(f"{HOME}/device/pi-2")),
    ),
    "a device called +": enters(Somebody("plus")),
    "a device called + is curious": (
        Act(Somebody("plus"), hears(f"{HOME}/verdict/+/+", f"{HOME}/verdict/j-1/pi-2")),
        Act(PI, hears(f"{HOME}/verdict/+/+", f"{HOME}/verdict/j-1/pi-1")),
    ),
    "a device called #": enters(Somebody("hash")),
    "a device called # is curious": (
        Act(Somebody("hash"), hears(f"{HOME}/verdict/+/#", f"{HOME}/verdict/j-1/pi-2")),
        Act(PI, hears(f"{HOME}/verdict/+/+", f"{HOME}/verdict/j-1/pi-1")),
    ),
    "a device called pi-1/9, to be pi-1": (
        Act(Somebody("slash"), says(OFFER)),
        Act(PI, says(OFFER)),
    ),
    "a device called PI-1": enters(Somebody("capitals")),
    "a device of two names": enters(Somebody("two names"), as_if="pi-2"),
    "a device without a name": enters(Somebody("nameless"), as_if=""),
    "a device whose name is empty": (
        Act(Somebody("empty"), says(f"{HOME}/device/x")),
        Act(Somebody("empty"), says(f"{HOME}/device/")),
    ),
    "a device without any name, which ended the broker": enters(Somebody("empty", client_id=""), as_if=""),
    "a device whose name ends early": enters(Somebody("early end")),
    "a device with a name of 60,000 letters": enters(Somebody("long")),
    "a device with a line feed in its name": enters(Somebody("line feed")),
    # TLS.
    "TLS 1.2": enters(
        Somebody("pi-1", tls=ssl.TLSVersion.TLSv1_2), honest=Somebody("pi-1", tls=ssl.TLSVersion.TLSv1_3)
    ),
    "TLS 1.2 at the people's listener": (
        Act(Somebody("otto", "people", tls=ssl.TLSVersion.TLSv1_2), says(f"{HOME}/command/x")),
        Act(OPERATOR, says(f"{HOME}/command/x")),
    ),
    "no TLS": enters(Somebody("pi-1", plain=True, user="pi-1", password="x")),
    "no TLS, where the health check looks": enters(
        Somebody(None, "nobody", plain=True, user="pi-1", password="x"),
    ),
    "no TLS and no name, where the health check looks": enters(Somebody(None, "nobody", plain=True)),
    "a password instead of a certificate": enters(Somebody(None, user="pi-1", password="x")),
    "a user name beside the certificate": (
        Act(Somebody("pi-1", user="pi-2", password="x"), says(f"{HOME}/device/pi-2")),
        Act(Somebody("pi-1", user="pi-2", password="x"), says(f"{HOME}/device/pi-1")),
    ),
    "the user name of the aggregator": (
        Act(Somebody("olga", "people", user="aggregator"), says(f"{HOME}/head/j-1")),
        Act(AGGREGATOR, says(f"{HOME}/head/j-1")),
    ),
    # People.
    "an observer commands": writes(f"{HOME}/command/x", by=OBSERVER, honest=OPERATOR),
    "an observer commands, at the server's listener": (
        Act(Somebody("olga", "server"), says(f"{HOME}/command/x")),
        Act(Somebody("olga", "server"), says(f"{HOME}/query/x")),
    ),
    "an observer speaks as the aggregator": writes(f"{HOME}/head/j-1", by=OBSERVER),
    "an observer speaks as a device": writes(f"{HOME}/device/olga", by=OBSERVER, honestly=f"{HOME}/query/x"),
    "an observer hears updates": (
        Act(OBSERVER, hears("#", f"{HOME}/offer/j-1/pi-1/9")),
        Act(OPERATOR, hears("#", f"{HOME}/offer/j-1/pi-1/9")),
    ),
    "an observer hears commands": (
        Act(OBSERVER, hears("#", f"{HOME}/command/x")),
        Act(OPERATOR, hears("#", f"{HOME}/command/x")),
    ),
    "an operator sees the broker's figures": (
        Act(OPERATOR, sees("$SYS/broker/version")),
        Act(ADMIN, sees("$SYS/broker/version")),
    ),
    "an operator speaks as a device": writes(f"{HOME}/device/otto", by=OPERATOR, honestly=f"{HOME}/command/x"),
    "an operator speaks as the aggregator": writes(f"{HOME}/round/j-1", by=OPERATOR),
    "an admin speaks as the aggregator": writes(f"{HOME}/round/j-1", by=ADMIN),
    "who cuts connections writes a job": writes(f"{HOME}/job/j-1", by=Somebody("authority", "server")),
    # A token, which may write its request and read its answer, and nothing else.
    "a token asks in another's name": writes(f"{CA}/enroll/{SECOND.user}", by=FIRST, honestly=ASKS),
    "a token answers itself": writes(ANSWER, by=FIRST, honest=AUTHORITY),
    "a token renews a device": writes(f"{CA}/renew/pi-1", by=FIRST, honest=PI),
    "a token renews itself": writes(f"{CA}/renew/{FIRST.user}", by=FIRST, honestly=ASKS),
    "a token is present as a device": writes(f"{HOME}/device/pi-1", by=FIRST, honest=PI, retain=True),
    "a token is present as itself": writes(f"{HOME}/device/{FIRST.user}", by=FIRST, honestly=ASKS, retain=True),
    "a token offers": writes(f"{HOME}/offer/j-1/{FIRST.user}/9", by=FIRST, honestly=ASKS),
    "a token sends a chunk": writes(f"{HOME}/chunk/j-1/{FIRST.user}/{'0' * 16}/0", by=FIRST, honestly=ASKS),
    "a token says a beacon": writes(f"{HOME}/aggregator", by=FIRST, retain=True),
    "a token commands": writes(f"{HOME}/command/x", by=FIRST, honest=OPERATOR),
    "a token asks for jobs": writes(f"{HOME}/query/x", by=FIRST, honest=OBSERVER),
    "a token asks a level deeper": writes(f"{ASKS}/more", by=FIRST, honestly=ASKS),
    "a token's will on a presence": (Act(FIRST, leaves(f"{HOME}/device/pi-1")), Act(FIRST, leaves(ASKS))),
    "a token's will in another's name": (Act(FIRST, leaves(f"{CA}/enroll/{SECOND.user}")), Act(FIRST, leaves(ASKS))),
    "a token clears a job": (
        Act(FIRST, overwrites(f"{HOME}/job/j-1", clears=True)),
        Act(AGGREGATOR, overwrites(f"{HOME}/job/j-1", clears=True)),
    ),
    "a token clears what another has asked": (
        Act(FIRST, overwrites(f"{CA}/enroll/{SECOND.user}", clears=True)),
        Act(AUTHORITY, overwrites(f"{CA}/enroll/{SECOND.user}", clears=True)),
    ),
    "a token hears rounds": (Act(FIRST, hears("#", f"{HOME}/round/j-1")), Act(PI, hears("#", f"{HOME}/round/j-1"))),
    "a token hears the beacon that lies there": (
        Act(FIRST, hears("#", f"{HOME}/aggregator", retained=True)),
        Act(PI, hears("#", f"{HOME}/aggregator", retained=True)),
    ),
    "a token hears what another is answered": (
        Act(FIRST, hears("fedge-ca/#", f"{CA}/issued/{SECOND.user}")),
        Act(FIRST, hears("fedge-ca/#", ANSWER)),
    ),
    "a token hears what another asks": (
        Act(FIRST, hears(f"{CA}/enroll/+", f"{CA}/enroll/{SECOND.user}")),
        Act(AUTHORITY, hears(f"{CA}/enroll/+", f"{CA}/enroll/{SECOND.user}")),
    ),
    "a token shares in what is asked": (
        Act(FIRST, hears(f"$share/g/{CA}/enroll/+", ASKS)),
        Act(AUTHORITY, hears(f"$share/g/{CA}/enroll/+", ASKS)),
    ),
    "a token hears what a device is answered": (
        Act(FIRST, hears(f"{CA}/renewed/+", f"{CA}/renewed/pi-1")),
        Act(PI, hears(f"{CA}/renewed/+", f"{CA}/renewed/pi-1")),
    ),
    "a token sees the broker's figures": (Act(FIRST, sees("$SYS/broker/version")), Act(ADMIN, sees("$SYS/#"))),
    "a device's client id, by a token": (
        Act(FIRST._replace(client_id="pi-1"), throws_off(PI)),
        Act(AUTHORITY._replace(client_id="pi-1"), throws_off(PI)),
    ),
    "the aggregator's client id, by a token": (
        Act(FIRST._replace(client_id=AGGREGATOR_ID), throws_off(AGGREGATOR)),
        Act(AGGREGATOR, throws_off(AGGREGATOR)),
    ),
    "the client id of another token": (
        Act(FIRST._replace(client_id=str(SECOND.user)), throws_off(SECOND)),
        Act(SECOND, throws_off(SECOND)),
    ),
    "the client id of a token, by a device": (
        Act(Somebody("pi-1", client_id=str(FIRST.user)), throws_off(FIRST)),
        Act(FIRST, throws_off(FIRST)),
    ),
    "a token with the secret of another": (
        Act(FIRST._replace(password=SECOND.password), says(ASKS)),
        Act(FIRST, says(ASKS)),
    ),
    "a token without a secret": (Act(FIRST._replace(password=None), says(ASKS)), Act(FIRST, says(ASKS))),
    "nobody, where tokens come in": (Act(Somebody(None, "tokens"), says(ASKS)), Act(FIRST, says(ASKS))),
    "a token without TLS": (Act(FIRST._replace(plain=True), says(ASKS)), Act(FIRST, says(ASKS))),
    "TLS 1.2, where tokens come in": (
        Act(FIRST._replace(tls=ssl.TLSVersion.TLSv1_2), says(ASKS)),
        Act(FIRST._replace(tls=ssl.TLSVersion.TLSv1_3), says(ASKS)),
    ),
    "a token where devices come in": (Act(FIRST._replace(at="devices"), says(ASKS)), Act(FIRST, says(ASKS))),
    "a token where people come in": (Act(FIRST._replace(at="people"), says(ASKS)), Act(FIRST, says(ASKS))),
    "a token at the server's listener": (Act(FIRST._replace(at="server"), says(ASKS)), Act(FIRST, says(ASKS))),
    "a device where tokens come in": enters(Somebody("pi-1", "tokens")),
    "the aggregator where tokens come in": (
        Act(Somebody("aggregator", "tokens", client_id=AGGREGATOR_ID), throws_off(AGGREGATOR)),
        Act(AGGREGATOR, throws_off(AGGREGATOR)),
    ),
    "a device asks as a token": writes(ASKS, honest=FIRST),
    "a device renews another": writes(f"{CA}/renew/pi-2", honestly=f"{CA}/renew/pi-1"),
    "a device answers a renewal": writes(f"{CA}/renewed/pi-1", honest=AUTHORITY),
    "an admin hears what is asked": (Act(ADMIN, hears("#", ASKS)), Act(AUTHORITY, hears("#", ASKS))),
    "the aggregator answers a token": writes(ANSWER, by=AGGREGATOR, honest=AUTHORITY),
    "the aggregator commands": writes(f"{HOME}/command/x", by=AGGREGATOR, honestly=f"{HOME}/round/j-1"),
}


@pytest.mark.parametrize(("act", "honest"), ROWS.values(), ids=ROWS)
def test_nobody_does_what_is_anothers(locked_broker: Site, act: Act, honest: Act) -> None:
    assert not act.does(locked_broker, act.by)
    assert honest.does(locked_broker, honest.by)


def test_there_are_enough_of_them() -> None:
    assert len(ROWS) >= 80
