"""Why there is no connection, in words for somebody tired: what happened and what to look at first."""

from __future__ import annotations

import socket
import ssl
import time

PROTOCOL_ERROR = 130
TAKEN_OVER = 142

RENEWED = "the connection is made anew, with another last will"

_NOT_YET_VALID = 9  # X509_V_ERR_CERT_NOT_YET_VALID
_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED

_REFUSALS = {
    132: "the broker does not speak this version of MQTT",
    133: "the broker does not accept our client id",
    134: "the broker does not accept our user name and password",
    135: "the broker does not let us in: not authorised",
    136: "the broker says that it is unavailable",
    137: "the broker says that it is busy",
    138: "the broker has banned us",
    140: "the broker wants another way to authenticate",
    149: "the broker refuses packets as large as ours",
    159: "the broker says that we connect too often",
}


def refused(code: int, name: str) -> str:
    """Return why a CONNACK was not a welcome. code: MQTT 5 reason code (section 3.2.2.2); name: its name there."""
    return _REFUSALS.get(code, f"the broker refused the connection: {name}")


def dismissed(code: int, name: str) -> str:
    """Return why the broker sent a DISCONNECT. code: MQTT 5 reason code (section 3.14.2.1); name: its name there."""
    if code == 139:  # server shutting down
        return "the broker is shutting down"
    return f"the broker ended the connection: {name}"


def silent(host: str, port: int, timeout_s: float) -> str:
    """Return the words for this: something took our call and never answered."""
    return f"{host}:{port} accepted the connection but did not answer in {timeout_s:g} s: is it an MQTT broker?"


def hung_up(host: str, port: int) -> str:
    """Return the words for this: the connection was closed before any answer to CONNECT."""
    return f"{host}:{port} closed the connection without an answer: does it want TLS, or is it starting up?"


def not_mqtt(host: str, port: int) -> str:
    """Return the words for this: what arrived breaks the protocol."""
    return f"what {host}:{port} sends is not MQTT: is it another service, or does it want TLS?"


def unreachable(error: OSError, host: str, port: int) -> str:
    """Return why no connection could be made."""
    match error:
        case ssl.SSLCertVerificationError() if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
            return _wrong_time(error)
        case ssl.SSLCertVerificationError():
            return f"the certificate of {host}:{port} is not to be trusted: {error.verify_message}"
        case ssl.SSLError():
            return f"TLS with {host}:{port} failed: {error}. Does this port speak TLS?"
        case socket.gaierror():
            return f"the name {host} cannot be resolved: is the network up?"
        case ConnectionRefusedError():
            return f"nobody listens on {host}:{port}"
        case TimeoutError():
            return f"{host}:{port} does not answer"
        case _ if error.filename:
            return f"{error.filename} cannot be read: {error.strerror}"
        case _:
            return f"{host}:{port} cannot be reached: {error.strerror or error}"


def _wrong_time(error: ssl.SSLCertVerificationError) -> str:
    when = "is not valid yet" if error.verify_code == _NOT_YET_VALID else "has expired"
    clock = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    return (
        f"the broker's certificate {when}, going by this machine's clock, which says {clock} UTC. "
        "The clock may be wrong: a Pi has none until it has synchronised its time"
    )
