"""Passwords and TLS from files, read anew for every connection: what is renewed on disk needs no restart."""

from __future__ import annotations

import contextlib
import datetime as dt
import select
import ssl
from pathlib import Path

from broker.connection import BrokerSettings
from identity.validity import Validity, ValidityError, clock, validity_of


def read_password(broker: BrokerSettings) -> str | None:
    """Return the first line of the password file, if there is one. Raises OSError with the file's name."""
    if broker.password_file is None:
        return None
    try:
        return Path(broker.password_file).read_text("utf-8").partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError as error:
        raise OSError(None, "it is not UTF-8 text", broker.password_file) from error


LISTEN_S = 2.0
"""More than a round trip on a bad link."""


class Context(ssl.SSLContext):
    """Our side of TLS, which keeps what the broker has said at the end."""

    alert: ssl.SSLError | None = None
    """What reading failed with: since TLS 1.3 a certificate of ours is refused after the handshake."""
    listens: bool = False
    """Whether the handshake waits for what the broker says to our certificate. A broker that refuses one says why and
    hangs up; where it has not read our CONNECT by then, that is lost with the connection."""


def tls_context(broker: BrokerSettings) -> Context | None:
    """Return our side of TLS, trusting `ca_file` alone; None where it is not set.

    Raises OSError with the name of the file that cannot be used.
    """
    if broker.ca_file is None:
        return None
    name = broker.ca_file
    try:
        context = Context(ssl.PROTOCOL_TLS_CLIENT)  # which verifies the broker and its name
        context.options |= ssl.OP_NO_RENEGOTIATION  # or a broker that begins one and is silent then has us try for ever
        context.load_verify_locations(broker.ca_file)
        context.sslsocket_class = _TidySocket
        if broker.certificate_file is not None:
            name = broker.certificate_file
            context.load_cert_chain(broker.certificate_file, broker.key_file)
    except ssl.SSLError as error:
        raise OSError(error.errno, f"OpenSSL says {error.reason or error}", name) from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or name) from error
    return context


def validity(broker: BrokerSettings) -> Validity | None:
    """Return when our own certificate holds; None where there is none, or it cannot be read."""
    try:
        return None if broker.certificate_file is None else validity_of(Path(broker.certificate_file).read_bytes())
    except (OSError, ValidityError):
        return None


def certificate_concerns(broker: BrokerSettings, now: dt.datetime) -> list[str]:
    """Return what is wrong with the time of our own certificate, or soon will be."""
    holds = validity(broker)
    if holds is None:
        return []
    what = f"our certificate ({broker.certificate_file})"
    if now < holds.since:
        return [f"{what} is not valid before {holds.since:%Y-%m-%d %H:%M} UTC: {clock(now)}"]
    if now >= holds.until:
        return [f"{what} has expired on {holds.until:%Y-%m-%d}: enroll this device again; or {clock(now)}"]
    if holds.is_late(now):
        return [f"{what} ends on {holds.until:%Y-%m-%d}, in {holds.left(now).days} days: have it renewed before"]
    return []


def exposed(*files: str | None) -> list[str]:
    """Return, of files that hold secrets, which everybody on this machine can read, and what to do."""
    found = {}
    for name in files:
        with contextlib.suppress(OSError):  # what cannot be looked at is not there, or is said elsewhere
            if name is not None and (mode := Path(name).stat().st_mode & 0o777) & 0o007:
                found[name] = mode
    return [
        f"{name} can be used by everybody on this machine (mode {mode:o}): chmod o= {name}"
        for name, mode in found.items()
    ]


class _TidySocket(ssl.SSLSocket):
    """Closes itself when the handshake fails (paho would leave it to the garbage collector); notes why reading does."""

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        try:
            return super().recv(buflen, flags)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            if isinstance(self.context, Context):
                self.context.alert = error
            raise

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
            if isinstance(self.context, Context) and self.context.listens:
                self._listen()
        except OSError:
            self.close()
            raise

    def _listen(self) -> None:
        """Wait for the first words of the broker: a session ticket, or an alert, which is raised."""
        poller = select.poll()
        poller.register(self, select.POLLIN)
        before = self.gettimeout()
        if poller.poll(LISTEN_S * 1000):
            self.setblocking(False)
            with contextlib.suppress(ssl.SSLWantReadError):
                self.recv(1)  # no MQTT comes before our CONNECT
            self.settimeout(before)
