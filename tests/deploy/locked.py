"""A mosquitto with deploy/mosquitto/locked.conf as it is shipped, an authority's directory, and credentials.

pi-1, pi-2, revoked         devices; the last is enrolled no more
aggregator, authority       parts of the server, certified by the root, like people:
olga, otto, ada             an observer, an operator and an admin
dismissed                   an operator who was revoked
`Site.forge` makes whatever a captured authority for devices, or a stranger, could.
"""

from __future__ import annotations

import copy
import datetime as dt
import re
import signal
import socket
import ssl
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from identity import certificates
from identity.asking import Secret
from identity.authority import Authority
from identity.keys import SigningKey, text_of
from identity.record import Role
from identity.tokens import Token, Tokens, password_hash
from tests.deploy.raw import WAIT_S, Raw

MOSQUITTO = Path(__file__).parents[2] / "deploy" / "mosquitto"
NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)
LISTENERS = {"devices": 8883, "server": 8884, "people": 8885, "tokens": 8886, "nobody": 1883}
"""By who comes in there, in the numbers of locked.conf."""
TOKENS = {"token.aaaaaaaaaaaaaaaa": "a" * 32, "token.bbbbbbbbbbbbbbbb": "b" * 32}
"""Tokens and their secrets."""
ROLES: dict[str, Role] = {
    "broker": "broker",
    "aggregator": "aggregator",
    "authority": "authority",
    "olga": "observer",
    "otto": "operator",
    "ada": "admin",
    "dismissed": "operator",
}


def configuration(ports: dict[str, int], files: Path, more: str, swap: dict[str, str], **changed: int) -> str:
    """Return locked.conf with ports and paths of this test, and not a line else changed but what is named."""
    text = (MOSQUITTO / "locked.conf").read_text()
    edits = [(rf"^listener {LISTENERS[name]}\b.*$", f"listener {port} 127.0.0.1") for name, port in ports.items()]
    edits += [("/mosquitto/config/broker/", f"{files}/"), ("/mosquitto/config/nobody$", f"{MOSQUITTO}/nobody")]
    edits += [(rf"^{name} \d+$", f"{name} {value}") for name, value in changed.items()]
    edits += [(re.escape(old), new) for old, new in swap.items()]
    for pattern, replacement in edits:
        text, n = re.subn(pattern, replacement, text, flags=re.MULTILINE)
        assert n, f"{pattern} is not there"
    # Started by root it would become the user mosquitto, who may not look into a test's folder.
    return f"user root\n{text}{more}"


def some_ports() -> dict[str, int]:
    """Return a free port for each listener."""
    with ExitStack() as stack:
        probes = {name: stack.enter_context(socket.socket()) for name in [*LISTENERS, "all"]}
        for probe in probes.values():
            probe.bind(("127.0.0.1", 0))
        return {name: probe.getsockname()[1] for name, probe in probes.items()}


class Site:
    """The server: an authority's directory, and a broker beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.ca = folder, folder / "ca"
        self.ports = some_ports()
        self.process: subprocess.Popen[bytes] | None = None
        self._keys = {name: certificates.new_key() for name in ("pi-1", "pi-2", "revoked", *ROLES)}
        self._certificates: dict[str, bytes] = {}
        self._contexts: dict[tuple[str, ...], ssl.SSLContext] = {}
        template = (MOSQUITTO / "acl").read_bytes()
        with Authority.found(self.ca, "home", ["localhost"], NOW, template=template) as authority:
            for name in ROLES:
                self._certify(authority, name)
            for name in ("pi-1", "pi-2", "revoked"):
                self._enroll(authority, name)
            for name in ("dismissed", "revoked"):
                assert authority.revoke(name, NOW)
            assert authority.publish(NOW).failed == ()
        (self.ca / "broker" / "server.crt").write_bytes(self._certificates["broker"])
        (self.ca / "broker" / "server.key").write_bytes(self._keys["broker"])
        with Authority(self.ca) as authority:
            authority.keep_tokens(Tokens("home", {name: _token(secret) for name, secret in TOKENS.items()}))
            assert authority.publish(NOW).failed == ()

    def _enroll(self, authority: Authority, name: str) -> None:
        public = certificates.public_of(self._keys[name])
        self._certificates[name] = authority.enroll(name, public, _message_key(), NOW)

    def enroll(self, name: str) -> None:
        """Enroll one more device."""
        self._keys[name] = certificates.new_key()
        with Authority(self.ca) as authority:
            self._enroll(authority, name)
            assert authority.publish(NOW).failed == ()

    def revoke(self, name: str) -> None:
        """Put a device on the list of the revoked, and have the broker read it."""
        with Authority(self.ca) as authority:
            assert authority.revoke(name, NOW)
            assert authority.publish(NOW).failed == ()
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)

    def stale_list(self) -> Path:
        """Return a list of the revoked that nobody is on, and that is past its date."""
        file, then = self.folder / "stale.crl", NOW - 10 * DAY
        authority, key = ((self.ca / name).read_bytes() for name in ("devices.crt", "devices.key"))
        file.write_bytes(certificates.revocations(authority, key, {}, 1, 1, then))
        return file

    @classmethod
    def beside(cls, other: Site) -> Site:
        """Return another broker of the same authority, on ports of its own."""
        made = copy.copy(other)
        made.ports, made.process = some_ports(), None
        return made

    def _certify(self, authority: Authority, name: str) -> None:
        public = certificates.public_of(self._keys[name])
        self._certificates[name] = authority.certify(name, ROLES[name], public, _message_key(), NOW)

    def start(self, folder: Path, swap: dict[str, str] | None = None, **changed: int) -> None:
        """Start a broker of this site. Its listener "all" is a test's own, and lets everybody do everything.

        changed: limits that are smaller than in the file, so that an attack on them is quick. swap: text that is other.
        """
        folder.mkdir(exist_ok=True)
        ports = {name: port for name, port in self.ports.items() if name != "all"}
        everything = folder / "everything"
        everything.write_text("topic readwrite #\ntopic readwrite $SYS/#\ntopic readwrite $CONTROL/#\n")
        more = f"listener {self.ports['all']} 127.0.0.1\nallow_anonymous true\nacl_file {everything}\n"
        (folder / "conf").write_text(configuration(ports, self.ca / "broker", more, swap or {}, **changed))
        program = "/usr/sbin/mosquitto" if Path("/usr/sbin/mosquitto").exists() else "mosquitto"
        self.log = folder / "log"
        with self.log.open("wb") as output:
            self.process = subprocess.Popen([program, "-c", folder / "conf"], stdout=output, stderr=output)
        self._await(self.ports["all"])

    def _await(self, port: int) -> None:
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until and cast("subprocess.Popen[bytes]", self.process).poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
            except OSError:
                time.sleep(0.01)
            else:
                return
        raise AssertionError(self.log.read_text())

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(120)

    def context(self, who: str | None, *, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """Return how somebody of these credentials speaks TLS; None: without a certificate."""
        known = (str(who), str(version))
        if known not in self._contexts:
            context = ssl.create_default_context(cafile=str(self.ca / "root.crt"))
            if version is not None:
                context.minimum_version = context.maximum_version = version
            if who is not None:
                file = self.folder / f"credential-{len(self._contexts)}.pem"
                file.write_bytes(self._certificates[who] + self._keys[who])
                context.load_cert_chain(file)
            self._contexts[known] = context
        return self._contexts[known]

    def client(self, listener: str, who: str | None, *, version: int = 5, client_id: str = "", **more: object) -> Raw:
        """Return who is connected. Raises Refused."""
        plain = listener in ("all", "nobody")
        raw = Raw(self.ports[listener], None if plain else self.context(who), version=version)
        try:
            raw.connect(client_id or f"c{next(_numbers)}", **more)  # type: ignore[arg-type]
        except BaseException:
            raw.die()
            raise
        return raw

    def files(self, who: str) -> tuple[Path, Path]:
        """Return the files of a certificate and its key."""
        certificate, key = self.folder / f"{who}.crt", self.folder / f"{who}.key"
        certificate.write_bytes(self._certificates[who])
        key.write_bytes(self._keys[who])
        return certificate, key

    def forge(
        self,
        who: str,
        common_names: tuple[str, ...],
        *,
        by: str = "devices",
        days: tuple[float, float] = (-1, 30),
        server: bool = False,
    ) -> None:
        """Make a certificate that no command of ours would: signed by "devices", "root", a "stranger" or "itself".

        common_names: also odd ones, several or none. days: from when until when it holds, from now.
        """
        key = self._keys[who] = certificates.new_key()
        own = serialization.load_pem_private_key(key, None)
        issuer, issuer_key = self._issuer(by)
        assert isinstance(own, ec.EllipticCurvePrivateKey)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a name of that length is against X.520, and is made here for that
            subject = x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "device"),
                    *(x509.NameAttribute(NameOID.COMMON_NAME, name, _validate=False) for name in common_names),
                ]
            )
        made = x509.CertificateBuilder(
            issuer or subject,
            subject,
            own.public_key(),
            x509.random_serial_number(),
            NOW + days[0] * DAY,
            NOW + days[1] * DAY,
        )
        usage = ExtendedKeyUsageOID.SERVER_AUTH if server else ExtendedKeyUsageOID.CLIENT_AUTH
        made = made.add_extension(x509.BasicConstraints(ca=by == "itself", path_length=None), critical=True)
        made = made.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        signed = made.sign(issuer_key or own, hashes.SHA256())
        self._certificates[who] = signed.public_bytes(serialization.Encoding.PEM)

    def _issuer(self, by: str) -> tuple[x509.Name | None, ec.EllipticCurvePrivateKey | None]:
        if by == "itself":
            return None, None
        files = {"devices": ("devices.crt", "devices.key"), "root": ("root.crt", "root/root.key")}
        certificate, key = (self.ca / name for name in files.get(by, files["devices"]))
        pem = certificates.new_key() if by == "stranger" else self._keys[by] if by in self._keys else key.read_bytes()
        certificate_pem = self._certificates.get(by) or certificate.read_bytes()
        private = serialization.load_pem_private_key(pem, None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        return x509.load_pem_x509_certificate(certificate_pem).subject, private


def _token(text: str) -> Token:
    secret = Secret(text)
    return Token(NOW, NOW + DAY, password_hash(secret.password, bytes(12)), text_of(secret.proof_key))


def _message_key() -> str:
    return text_of(SigningKey.generate().public)


_numbers = count()
_marks = count()


def mark() -> bytes:
    """Return a payload that no other message has."""
    return b"locked %d" % next(_marks)


@contextmanager
def hearing_everything(site: Site, *topics: str) -> Iterator[Raw]:
    """Have somebody hear whatever the broker passes on, to anybody."""
    with site.client("all", None) as raw:
        for topic in topics or ("#", "$SYS/#", "$CONTROL/#"):
            raw.subscribe(topic)
        yield raw
