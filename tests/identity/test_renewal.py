"""The process that renews a certificate: what it asks, and what it takes for an answer."""

from __future__ import annotations

import datetime as dt
import io
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from identity import adoption, asking, certificates, renewal
from identity.asking import Answer, Granted, Request
from identity.authority import Authority
from identity.bundle import BundleError, unpack
from identity.keys import SigningKey, text_of
from identity.trust import read_trust
from tests.identity.conftest import NOW, bundle_of

ASKS, ANSWERS = "where it is asked", "where it is answered"


@pytest.fixture
def folder(authority: Authority, tmp_path: Path) -> Path:
    adoption.adopt(unpack(bundle_of(authority, "pi-1", tmp_path / "b.tar"), NOW), tmp_path / "etc")
    return tmp_path / "etc" / "identity"


def request_in(payload: bytes, authority: Authority) -> Request:
    return asking.asked(ASKS, payload, key=authority.record.devices["pi-1"].key)


def granted(authority: Authority, request: Request, at: dt.datetime = NOW) -> Granted:
    certificate = authority.renew("pi-1", certificates.look_at_request(request.csr.encode())[1], at)
    files = {name: text.decode() for name, text in authority.trust_files.items()}
    files |= {"mandate.json": authority.mandate.decode(), "device.crt": certificate.decode(), "agent.toml": ""}
    return Granted("barn", "pi-1", 1, files)


def state(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_key_and_certificate_change_together_and_the_message_key_stays(authority: Authority, folder: Path) -> None:
    payload = renewal.ask(folder, ASKS)
    request = request_in(payload, authority)
    again = request_in(renewal.ask(folder, ASKS), authority)
    assert again == request, "asked again it is the same key"
    before = state(folder)
    answer = Answer(request.digest, "granted", granted=granted(authority, request, NOW + dt.timedelta(hours=1)))
    text = renewal.adopt(folder, ANSWERS, asking.answer(ANSWERS, answer, authority.signer()), NOW)
    after = state(folder)
    assert text.startswith("until ")
    assert {name for name in after if after[name] != before[name]} == {"device.crt", "device.key", "manifest.json"}
    assert certificates.is_of(after["device.crt"], after["device.key"])
    assert not (folder.parent / renewal.DRAFT).exists()
    assert request_in(renewal.ask(folder, ASKS), authority).csr != request.csr


def test_keys_that_were_pinned_since_come_along_and_it_is_said_from_when_on_they_count(
    authority: Authority, folder: Path
) -> None:
    public = certificates.public_of(certificates.new_key())
    authority.certify("anna", "operator", public, text_of(SigningKey.generate().public), NOW)
    assert authority.publish(NOW).failed == ()
    request = request_in(renewal.ask(folder, ASKS), authority)
    answer = Answer(request.digest, "granted", granted=granted(authority, request, NOW + dt.timedelta(hours=1)))
    text = renewal.adopt(folder, ANSWERS, asking.answer(ANSWERS, answer, authority.signer()), NOW)
    assert "other keys are pinned now (serial 2), which count once the agent is started again" in text
    assert "anna" in read_trust(folder / "trust.json").operators


def forged(authority: Authority, request: Request) -> bytes:
    return asking.answer(
        ANSWERS, Answer(request.digest, "granted", granted=granted(authority, request)), SigningKey.generate()
    )


def refused(authority: Authority, request: Request) -> bytes:
    return asking.answer(ANSWERS, Answer(request.digest, "refused", "no reason"), authority.signer())


def of_another_request(authority: Authority, request: Request) -> bytes:
    return asking.answer(ANSWERS, Answer("0" * 64, "granted", granted=granted(authority, request)), authority.signer())


def of_another_key(authority: Authority, request: Request) -> bytes:
    other = msgspec.structs.replace(request, csr=certificates.request(certificates.new_key(), "pi-1").decode())
    answer = Answer(request.digest, "granted", granted=granted(authority, other))
    return asking.answer(ANSWERS, answer, authority.signer())


def lacking(authority: Authority, request: Request) -> bytes:
    answer = Answer(request.digest, "granted", granted=Granted("barn", "pi-1", 1, {}))
    return asking.answer(ANSWERS, answer, authority.signer())


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (forged, "that this fleet's authority has not given"),
        (refused, "the authority refuses: no reason"),
        (of_another_request, "answers another request"),
        (of_another_key, "device.key is not the key of device.crt"),
        (lacking, "what the authority has sent lacks mandate.json"),
    ],
)
def test_any_other_answer_changes_nothing(
    authority: Authority,
    folder: Path,
    made: Callable[[Authority, Request], bytes],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    request = request_in(renewal.ask(folder, ASKS), authority)
    before = state(folder)

    class Input:
        buffer = io.BytesIO(made(authority, request))

    monkeypatch.setattr("sys.stdin", Input)
    assert renewal.main(["adopt", str(folder), ANSWERS]) == 1
    assert why in capsys.readouterr().err
    assert state(folder) == before


def test_by_a_wrong_clock_nothing_is_taken_and_it_can_be_tried_again(authority: Authority, folder: Path) -> None:
    request = request_in(renewal.ask(folder, ASKS), authority)
    before = state(folder)
    answer = Answer(request.digest, "granted", granted=granted(authority, request))
    payload = asking.answer(ANSWERS, answer, authority.signer())
    with pytest.raises(BundleError, match=r"not valid before .* this machine's clock says .*timedatectl"):
        renewal.adopt(folder, ANSWERS, payload, NOW - dt.timedelta(days=2))
    assert state(folder) == before
    assert renewal.adopt(folder, ANSWERS, payload, NOW).startswith("until")


def test_a_folder_that_was_not_made_by_enrolling_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert renewal.main(["ask", str(tmp_path), ASKS]) == 1
    assert "manifest.json" in capsys.readouterr().err
