"""Passwords and TLS from files, read anew for every connection: what is renewed on disk needs no restart."""

from __future__ import annotations

import ssl
from pathlib import Path

from broker.connection import BrokerSettings


def read_password(broker: BrokerSettings) -> str | None:
    """Return the first line of the password file, if there is one. Raises OSError with the file's name."""
    if broker.password_file is None:
        return None
    try:
        return Path(broker.password_file).read_text("utf-8").partition("\n")[0].rstrip("\r")
    except UnicodeDecodeError as error:
        raise OSError(None, "it is not UTF-8 text", broker.password_file) from error


def tls_context(broker: BrokerSettings) -> ssl.SSLContext | None:
    """Return our side of TLS, trusting `ca_file` alone; None where it is not set.

    Raises OSError with the name of the file that cannot be used.
    """
    if broker.ca_file is None:
        return None
    name = broker.ca_file
    try:
        context = ssl.create_default_context(cafile=broker.ca_file)
        context.sslsocket_class = _TidySocket
        if broker.certificate_file is not None:
            name = broker.certificate_file
            context.load_cert_chain(broker.certificate_file, broker.key_file)
    except ssl.SSLError as error:
        raise OSError(error.errno, f"OpenSSL says {error.reason or error}", name) from error
    except OSError as error:
        raise OSError(error.errno, error.strerror, error.filename or name) from error
    return context


class _TidySocket(ssl.SSLSocket):
    """Closes itself when the handshake fails; paho would leave it to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise
