"""`fedge agent enroll LINE`: this machine becomes a device by a one-time token. Its keys are made here, and stay here.

    ETC/.enrolling/     the keys, and what was asked, until the answer has come: run again with the same line it goes on

Its law:
1. The server is known by the root that the line names, before anything is said to it: a first handshake shows its
   chain, in which the root is found by its SHA-256; a second one is checked against that root, as every later one is.
2. Nothing becomes a device's but through adoption.py, whole, once the answer's proof and all it holds were checked.
3. What ends without an answer leaves /etc/fedge as it was, but for the keys to go on with.
"""

from __future__ import annotations

import argparse
import datetime as dt
import shutil
import socket
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from broker import issuing, reasons
from broker.client import MqttTransport
from broker.connection import BrokerSettings
from broker.transport import Offline, Online, Packet, SessionTakenOver
from fleet.authority.enrolment import AdoptedDone, check_agent, group_of
from fleet.authority.said import now, say
from identity import adoption, asking, certificates
from identity.asking import Answer, AskingError, Granted, Request, Secret
from identity.bundle import Bundle, BundleError, Manifest, assembled
from identity.keys import SigningKey, fingerprint, key_of, read_key, text_of
from identity.tokens import Line, TokenError, read_line
from runtime.disk import make_private, write_private
from runtime.words import clean

DRAFT = ".enrolling"
AGAIN_S = 3.0
"""How often it is asked again: an answer that was lost, or an authority that was away, costs so much."""
SILENT_S = 15.0
TIMEOUT_S = 10.0


class Draft(Struct, frozen=True):
    """Keys that wait for their certificate. token: the one that they are asked with."""

    token: str
    request: Request


def enroll(arguments: argparse.Namespace) -> int:
    """Make this machine a device of the fleet that the line names."""
    if arguments.line == "-" and sys.stdin.isatty():
        sys.stderr.write("paste the line that `fedge ca token` has printed, and Enter:\n")
    line = read_line(sys.stdin.readline() if arguments.line == "-" else arguments.line)
    device = arguments.device or line.device or socket.gethostname().partition(".")[0]
    if line.device is not None and device != line.device:
        raise TokenError(f"this token is for the device {line.device}, and not for {device}")
    _check_place(arguments.etc, line.fleet, device)
    group = group_of(arguments.group)
    root = authenticate(line)
    folder = arguments.etc / DRAFT
    request = prepare(folder, line, device)
    sys.stderr.write(f"asking as {device} of fleet {line.fleet}; fingerprint {request.fingerprint}\n")
    conversation = _Conversation(line, folder, request, root)
    try:
        bundle = _bundle(conversation.run(), folder, root, line)
        configured = adoption.adopt(bundle, arguments.etc, group)
        conversation.thank()  # only now: the token is over by that
    finally:
        conversation.close()
    shutil.rmtree(folder)
    manifest, mark = bundle.manifest, fingerprint(key_of(bundle.trust.root))
    done = AdoptedDone(manifest.fleet, device, manifest.epoch, manifest.expires, mark, configured)
    what = f"{device} of fleet {manifest.fleet}, epoch {manifest.epoch}, until {manifest.expires:%Y-%m-%d}"
    said = [f"{arguments.etc}: this is {what}; fingerprint of the root {mark}"]
    if not configured:
        said.append(f"  {arguments.etc / 'agent.toml'} was there before and is as it was")
        said.append("  an agent that runs is to be started again: it goes on under its former key")
    return say(done, said, arguments)


def _check_place(etc: Path, fleet: str, device: str) -> None:
    """Raise BundleError where this machine is another device already: before the token is used up for that."""
    file = etc / adoption.FOLDER / "manifest.json"
    if not file.exists():
        return
    try:
        known = msgspec.json.decode(file.read_bytes(), type=Manifest)
    except (msgspec.MsgspecError, OSError) as error:
        raise BundleError(f"{file}: is damaged: {error}; remove {file.parent} to begin anew") from error
    if (known.fleet, known.device) != (fleet, device):
        raise BundleError(
            f"{file.parent} is that of {known.device} of fleet {known.fleet}, and not of {device} of {fleet}; where "
            f"this machine is to become another device, remove {file.parent} first"
        )


def authenticate(line: Line) -> bytes:
    """Return the root's certificate, in PEM, once the server has shown that it is of that root (law 1).

    Raises TokenError with what is wrong; nothing secret was sent then.
    """
    where = f"{line.host}:{line.port}"
    bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE  # nothing is sent here: it is only looked at
    for der in _with_tls(line, bare, _chain):
        pem = ssl.DER_cert_to_PEM_cert(der)
        if certificates.digest_of(pem.encode()) == line.root:
            break
    else:
        raise TokenError(
            f"{where} is no server of the root that this token names: it is another fleet's, its authority was "
            "replaced, or somebody is in between. Nothing was sent to it; have a new token made"
        )
    strict = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies the server and its name
    strict.load_verify_locations(cadata=pem)
    _with_tls(line, strict, lambda _: [])
    return pem.encode()


def _with_tls(line: Line, context: ssl.SSLContext, look: Callable[[ssl.SSLSocket], list[bytes]]) -> list[bytes]:
    try:
        with (
            socket.create_connection((line.host, line.port), timeout=TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=line.host) as link,
        ):
            return look(link)
    except OSError as error:
        raise TokenError(f"{reasons.unreachable(error, line.host, line.port)}; nothing was sent") from error


def _chain(link: ssl.SSLSocket) -> list[bytes]:
    """Return the certificates that the server has shown, in DER. Public since Python 3.13."""
    public: Callable[[], list[bytes]] | None = getattr(link, "get_unverified_chain", None)
    if public is not None:
        return public()
    inner: Any = link._sslobj  # type: ignore[attr-defined]
    return [ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in inner.get_unverified_chain() or ()]


def prepare(folder: Path, line: Line, device: str) -> Request:
    """Return what is asked for, with the keys of last time where it was for the same token and name. Raises OSError."""
    known = folder / "draft.json"
    try:
        draft = msgspec.json.decode(known.read_bytes(), type=Draft)
        if (draft.token, draft.request.device) == (line.token, device):
            return draft.request
    except (OSError, msgspec.MsgspecError):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    make_private(folder)
    key, message_key = certificates.new_key(), SigningKey.generate()
    write_private(folder / "device.key", key)
    write_private(folder / "message.key", message_key.pem)
    request = Request(device, certificates.request(key, device).decode(), text_of(message_key.public))
    write_private(known, msgspec.json.encode(Draft(line.token, request)))
    return request


def _bundle(answer: Answer, folder: Path, root: bytes, line: Line) -> Bundle:
    """Return what was granted. Raises BundleError where it is not what was asked for."""
    granted = answer.granted or Granted(line.fleet, "-", 1, {})
    files = {name: text.encode() for name, text in granted.files.items()}
    files |= {name: (folder / name).read_bytes() for name in ("device.key", "message.key")}
    draft = msgspec.json.decode((folder / "draft.json").read_bytes(), type=Draft)
    if (granted.fleet, granted.device) != (line.fleet, draft.request.device) or files.get("ca.crt") != root:
        raise BundleError("what the authority has sent is not what was asked for; have a new token made")
    check_agent(files.get("agent.toml", b"").decode())
    return assembled(granted.fleet, granted.device, granted.epoch, files, now())


class _Conversation:
    """One connection as the token, until it is answered or refused."""

    def __init__(self, line: Line, folder: Path, request: Request, root: bytes) -> None:
        self._folder, self._request = folder, request
        self._secret, self._signer = Secret(line.secret), read_key(folder / "message.key")
        write_private(folder / "ca.crt", root)
        write_private(folder / "password", self._secret.password.encode())
        self._settings = BrokerSettings(
            *(line.host, line.port, line.token),
            password_file=str(folder / "password"),
            ca_file=str(folder / "ca.crt"),
            connect_timeout_s=TIMEOUT_S,
        )
        self._asks = issuing.asks(line.fleet, "enroll", line.token)
        self._answers = issuing.answers(line.fleet, "enroll", line.token)
        self._told = ""
        self._open()

    def _open(self) -> None:
        self._transport = MqttTransport(
            self._settings, str(self._settings.username), first_retry_s=0.5, last_retry_s=10.0
        )
        self._transport.subscribe(self._answers)
        self._transport.open()

    def run(self) -> Answer:
        """Return what was granted. Raises TokenError."""
        online, ask_at, silent_at = False, 0.0, time.monotonic() + SILENT_S
        while True:
            match self._transport.take(0.5):
                case Online():
                    online, ask_at = True, 0.0
                case Offline(reason):
                    online = False
                    self._check_refusal(reason)
                    self._tell(f"{reason}; trying on")
                case SessionTakenOver():
                    self._tell("somebody else has connected with this token just now: is another device at it?")
                    self._transport.close()
                    self._open()
                case Packet(payload=payload):
                    answer = self._read(payload)
                    if answer is not None:
                        silent_at = time.monotonic() + SILENT_S
                        if answer.state != "waiting":
                            return self._decided(answer)
                        self._tell(f"waiting: {clean(answer.text)}: fedge ca approve DIR {self._request.fingerprint}")
            if online and time.monotonic() >= ask_at:
                ask_at = time.monotonic() + AGAIN_S
                self._say(self._request)
            if online and time.monotonic() >= silent_at:
                self._tell("the authority does not answer yet: does `fedge ca serve` run there?")

    def _read(self, payload: bytes) -> Answer | None:
        try:
            answer = asking.answered(self._answers, payload, self._secret.proof_key, signed=False)
        except AskingError as error:
            self._tell(f"passed over: {error}")
            return None
        return answer if answer.asked == self._request.digest else None

    def thank(self) -> None:
        """Say that the answer has come: the token is over."""
        self._say(msgspec.structs.replace(self._request, done=True))

    def close(self) -> None:
        """Leave the broker, once what was said has arrived."""
        self._transport.close()

    def _decided(self, answer: Answer) -> Answer:
        if answer.state == "refused":
            self.thank()
            self.close()
            shutil.rmtree(self._folder)
            raise TokenError(f"the authority refuses: {clean(answer.text)}")
        return answer

    def _check_refusal(self, reason: str) -> None:
        if reason in (reasons.refused(134, ""), reasons.refused(135, "")):
            self.close()
            shutil.rmtree(self._folder)  # there is nothing to go on with
            raise TokenError(
                f"the broker does not know this token: it was used, has expired, was rejected, or is another fleet's. "
                f"Have a new one made (`fedge ca token`); if it is new: {_clock()}"
            )

    def _say(self, request: Request) -> None:
        self._transport.publish(
            Packet(self._asks, asking.ask(self._asks, request, self._signer, self._secret.proof_key))
        )

    def _tell(self, text: str) -> None:
        if text != self._told:
            self._told = text
            sys.stderr.write(f"{text}\n")


def _clock() -> str:
    return f"this machine's clock says {dt.datetime.now(dt.UTC):%Y-%m-%d %H:%M} UTC, and the server's may differ"
