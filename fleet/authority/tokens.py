"""`fedge ca token`, `requests`, `approve`, `reject` and `window`: who is let in without carrying files about."""

from __future__ import annotations

import argparse
import datetime as dt

from msgspec import Struct, structs

from fleet.authority import cut, issuing
from fleet.authority.enrolment import labels_of
from fleet.authority.said import now, say
from identity import certificates
from identity.asking import AskingError
from identity.authority import Authority
from identity.directory import AuthorityError
from identity.tokens import MOST, Line, TokenError, draw


class TokenMade(Struct, frozen=True):
    """A token. line: what its device's owner is handed."""

    line: str
    token: str
    until: dt.datetime
    device: str | None
    failed: tuple[str, ...] = ()


class RequestLine(Struct, frozen=True):
    """A request. state: waiting, issuing, issued or rejected."""

    fingerprint: str
    device: str
    state: str
    since: dt.datetime | None
    until: dt.datetime
    token: str
    labels: dict[str, str]
    again: bool


class Requests(Struct, frozen=True):
    """What has been asked for. open: tokens that nobody has used yet. window: until when requests are approved."""

    requests: list[RequestLine]
    open: int
    window: dt.datetime | None


class Decided(Struct, frozen=True):
    """What became of a request."""

    fingerprint: str
    device: str
    state: str
    failed: tuple[str, ...] = ()


class Window(Struct, frozen=True):
    """Until when requests are approved as they come; None: an operator approves each."""

    until: dt.datetime | None


def token(arguments: argparse.Namespace) -> int:
    """Make a token."""
    if arguments.again and arguments.device is None:
        raise TokenError("--again puts a device out: say which with --device NAME")
    if not 0 < arguments.minutes <= 7 * 24 * 60:
        raise TokenError("--minutes: more than 0, and 10080 (a week) at most")
    at = now()
    with Authority(arguments.folder) as authority:
        tokens = authority.tokens.without_gone(at)
        if len(tokens.tokens) >= MOST:
            raise TokenError(f"{MOST} tokens are about already: wait until some have ended")
        if arguments.device is not None:
            authority.check_free(arguments.device)
            known = authority.record.devices.get(arguments.device)
            if known is not None and not known.revoked and not arguments.again:
                raise TokenError(f"{arguments.device} is enrolled already: --again puts its older self out")
        words = {"device": arguments.device, "rows": arguments.rows, "again": arguments.again}
        name, secret, made = draw(at, arguments.minutes, labels=labels_of(arguments.labels) or {}, **words)
        host, port = arguments.server or authority.hosts[0], authority.settings.broker.enroll_port
        root = certificates.digest_of(authority.trust_files["ca.crt"])
        line = str(Line(host, port, authority.record.fleet, arguments.device, name, secret, root))
        authority.keep_tokens(tokens.with_(name, made))
        failed = published(authority, at)
    text = [line]
    return say(TokenMade(line, name, made.until, arguments.device, failed), text, arguments)


def published(authority: Authority, at: dt.datetime) -> tuple[str, ...]:
    """Tell the broker which tokens there are now; return what failed."""
    failed = authority.publish(at).failed
    step = cut.reload(authority.settings.broker)
    return failed if step.done else (*failed, step.text)


def requests(arguments: argparse.Namespace) -> int:
    """Show what has been asked for."""
    with Authority(arguments.folder) as authority:
        tokens = authority.tokens
    lines = [
        RequestLine(*(t.asked.fingerprint, t.asked.device, t.state, t.since, t.gone_at(), name, t.labels, t.again))
        for name, t in tokens.tokens.items()
        if t.asked is not None
    ]
    lines.sort(key=lambda line: (line.state != "waiting", line.since or line.until))
    n_open = sum(t.state == "open" and t.until > now() for t in tokens.tokens.values())
    window = tokens.window if tokens.is_open_window(now()) else None
    text = [f"{'FINGERPRINT':<25} {'DEVICE':<24} {'STATE':<9} {'SINCE (UTC)':<17} LABELS"]
    for line in lines:
        more = [f"{key}={value}" for key, value in line.labels.items()] + ["(again)"] * line.again
        since = "-" if line.since is None else f"{line.since:%Y-%m-%d %H:%M}"
        text.append(f"{line.fingerprint:<25} {line.device:<24} {line.state:<9} {since:<17} {' '.join(more)}")
    text.append(f"tokens that nobody has used yet: {n_open}")
    if window is not None:
        text.append(f"until {window:%Y-%m-%d %H:%M} UTC requests are approved as they come")
    return say(Requests(lines, n_open, window), text, arguments)


def approve(arguments: argparse.Namespace) -> int:
    """Enroll the device of a request."""
    at = now()
    with Authority(arguments.folder) as authority:
        name, found = authority.tokens.find(arguments.fingerprint)
        if found.asked is None or found.state == "rejected" or at >= found.gone_at():
            raise TokenError(f"{arguments.fingerprint}: was rejected or has expired: have it asked with a new token")
        try:
            failed = issuing.approve(authority, name, at)
        except AskingError as error:
            raise AuthorityError(str(error)) from error
        epoch = authority.record.devices[found.asked.device].epoch
    done = Decided(arguments.fingerprint, found.asked.device, "issued", failed)
    return say(done, [f"{found.asked.device}: enrolled, epoch {epoch}; `fedge ca serve` tells it"], arguments)


def reject(arguments: argparse.Namespace) -> int:
    """Turn a request down for good."""
    with Authority(arguments.folder) as authority:
        name, found = authority.tokens.find(arguments.fingerprint)
        if found.asked is None or found.state in ("issuing", "issued"):
            raise TokenError(f"{arguments.fingerprint}: is enrolled already; `fedge ca revoke` puts it out")
        issuing.change(authority, name, structs.replace(found, state="rejected"))
    done = Decided(arguments.fingerprint, found.asked.device, "rejected")
    return say(done, [f"{found.asked.device}: rejected; `fedge ca serve` tells it"], arguments)


def window(arguments: argparse.Namespace) -> int:
    """Approve requests as they come, for some minutes."""
    if not 0 <= arguments.minutes <= 24 * 60:
        raise TokenError("--minutes: 0 (from now on an operator approves each) to 1440 (a day)")
    until = now() + dt.timedelta(minutes=arguments.minutes) if arguments.minutes else None
    with Authority(arguments.folder) as authority:
        authority.keep_tokens(structs.replace(authority.tokens, window=until))
    said = "an operator approves each request" if until is None else f"approved as they come until {until:%H:%M} UTC"
    return say(Window(until), [said], arguments)
