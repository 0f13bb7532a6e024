"""Why there is no connection, in words for somebody tired: what happened and what to look at first."""

from __future__ import annotations

import datetime as dt
import socket
import ssl

from identity.validity import Validity, clock

PROTOCOL_ERROR = 130
TAKEN_OVER = 142

RENEWED = "the connection is made anew, with another last will"

_NOT_YET_VALID = 9  # X509_V_ERR_CERT_NOT_YET_VALID
_EXPIRED = 10  # X509_V_ERR_CERT_HAS_EXPIRED
_UNKNOWN = (18, 19, 20, 21)  # X509_V_ERR_… of a chain that ends nowhere we trust
_OTHER_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH

_REFUSALS = {
    132: "the broker does not speak this version of MQTT",
    133: "the broker does not accept our client id",
    134: "the broker does not accept our user name and password",
    135: "the broker does not let us in: not authorised (is this user name known, and is the password the right one?)",
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


def hung_up_on_tls(host: str, port: int, certificate: str | None) -> str:
    """Return the words for this: the connection was closed after TLS was set up, before any answer to CONNECT."""
    why = "does it want a certificate" if certificate is None else f"does it refuse our certificate ({certificate})"
    return f"{host}:{port} closed the connection without an answer: {why}, or is it starting up?"


def not_mqtt(host: str, port: int) -> str:
    """Return the words for this: what arrived breaks the protocol."""
    return f"what {host}:{port} sends is not MQTT: is it another service, or does it want TLS?"


def deaf(host: str, port: int) -> str:
    """Return the words for this: the other side sends on, and takes no acknowledgement of it."""
    return f"{host}:{port} sends more packets than may be open and takes no answer to them: is that an MQTT broker?"


def unreachable(error: OSError, host: str, port: int) -> str:
    """Return why no connection could be made."""
    match error:
        case ssl.SSLCertVerificationError() if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
            return _wrong_time(error)
        case ssl.SSLCertVerificationError():
            return f"the certificate of {host}:{port} is not to be trusted: {error.verify_message}{_hint(error)}"
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


def _hint(error: ssl.SSLCertVerificationError) -> str:
    if error.verify_code in _UNKNOWN:
        return ". Another authority than ours has signed it: is ca_file of this fleet, and was the authority replaced?"
    if error.verify_code in _OTHER_NAME:
        return ". Write [broker] host as the certificate has it, or have it made anew for this name"
    return ""


def _wrong_time(error: ssl.SSLCertVerificationError) -> str:
    when = "is not valid yet" if error.verify_code == _NOT_YET_VALID else "has expired"
    return f"the broker's certificate {when}, or its authority's: {clock(dt.datetime.now(dt.UTC))}"


def alert_of(error: ssl.SSLError) -> str:
    """Return the alert (RFC 8446, section 6) that the broker has sent, in capitals; "" where that is not why."""
    return (error.reason or "").partition("ALERT_")[2]


def turned_away(alert: str, host: str, port: int, certificate: str | None, holds: Validity | None) -> str:
    """Return why the broker ends TLS. alert: as `alert_of` has it. certificate: our file. holds: when, if known."""
    what, where = f"our certificate ({certificate})", f"{host}:{port}"
    now = dt.datetime.now(dt.UTC)
    match alert:
        case "CERTIFICATE_REVOKED":
            return (
                f"{where} says that {what} is revoked: this device was put out, or was enrolled anew; enroll it again"
            )
        case "CERTIFICATE_EXPIRED" if holds is not None and now < holds.until:
            return (
                f"{where} says that {what} has expired, which ends on {holds.until:%Y-%m-%d}: either the broker's list "
                f"of the revoked has, and needs `fedge ca renew` there, or a clock is wrong; {clock(now)}"
            )
        case "CERTIFICATE_EXPIRED":
            return f"{where} says that {what} has expired: enroll this device again"
        case "BAD_CERTIFICATE" | "CERTIFICATE_UNKNOWN":
            return f"{where} does not take {what}: by its clock it may not be valid yet; {clock(now)}"
        case "UNKNOWN_CA":
            return (
                f"{where} does not know the authority that has signed {what}: is it of this fleet, was the authority "
                "replaced, has the broker its list of the revoked (crlfile)?"
            )
        case "UNSUPPORTED_CERTIFICATE":
            return f"{where} does not take {what}: it was made for another purpose"
        case "CERTIFICATE_REQUIRED" | "HANDSHAKE_FAILURE" if certificate is None:
            return f"{where} wants a certificate: set certificate_file and key_file in [broker]"
        case "PROTOCOL_VERSION":
            return f"{where} wants another version of TLS than this machine has"
    return f"{where} has ended TLS: {alert.lower().replace('_', ' ')}"
