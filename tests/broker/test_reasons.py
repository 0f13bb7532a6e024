from __future__ import annotations

import socket
import ssl

import pytest

from broker import reasons


def certificate_error(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, "self-signed certificate"
    return error


@pytest.mark.parametrize(("code", "words"), [(9, "is not valid yet"), (10, "has expired")])
def test_a_certificate_out_of_time_blames_the_clock_first(code: int, words: str) -> None:
    reason = reasons.unreachable(certificate_error(code), "broker", 8883)
    assert words in reason
    assert "The clock may be wrong" in reason


def test_an_unknown_certificate_is_not_the_clocks_fault() -> None:
    reason = reasons.unreachable(certificate_error(18), "broker", 8883)
    assert reason.startswith("the certificate of broker:8883 is not to be trusted: self-signed certificate. Another")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "nobody listens on broker:1883"),
        (TimeoutError("timed out"), "broker:1883 does not answer"),
        (socket.gaierror(-3, "Temporary failure"), "the name broker cannot be resolved: is the network up?"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), "Does this port speak TLS?"),
        (FileNotFoundError(2, "No such file or directory", "/x"), "/x cannot be read: No such file"),
        (OSError(101, "Network is unreachable"), "broker:1883 cannot be reached: Network is unreachable"),
    ],
)
def test_each_way_of_failing_has_its_words(error: OSError, words: str) -> None:
    assert words in reasons.unreachable(error, "broker", 1883)


def test_an_unknown_refusal_keeps_the_brokers_own_words() -> None:
    assert reasons.refused(0x9D, "Server moved") == "the broker refused the connection: Server moved"
