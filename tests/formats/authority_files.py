"""The authority whose files are the fixtures in authority/; python -m tests.formats.authority_files FOLDER makes one.

Its keys sign nothing else.
"""

from __future__ import annotations

import datetime as dt
import sys
from pathlib import Path

from identity import certificates
from identity.authority import Authority
from identity.bundle import Manifest, pack
from identity.keys import SigningKey, text_of

NOW = dt.datetime(2026, 11, 27, 9, 0, tzinfo=dt.UTC)


def make(folder: Path) -> None:
    """Write an authority with three devices, of which one is revoked and one was renewed, and a bundle."""
    with Authority.found(folder / "ca", "barn", ["broker.example"], NOW) as authority:
        for name in ("pi-1", "pi-2", "pi-3"):
            key, message_key = certificates.new_key(), SigningKey.generate()
            public = certificates.public_of(key), text_of(message_key.public)
            certificate = authority.enroll(name, *public, NOW, labels={"site": "north"}, rows=100)
        authority.renew("pi-2", certificates.public_of(certificates.new_key()), NOW)
        authority.revoke("pi-3", NOW)
        authority.certify("anna", "admin", public[0], text_of(SigningKey.generate().public), NOW)
        authority.publish(NOW)
        key, message_key = certificates.new_key(), SigningKey.generate()
        certificate = authority.enroll("pi-1", certificates.public_of(key), text_of(message_key.public), NOW)
        authority.publish(NOW)
        files = authority.trust_files | {"mandate.json": authority.mandate, "agent.toml": b'fleet = "barn"\n'}
        files |= {"device.key": key, "device.crt": certificate, "message.key": message_key.pem}
        until = certificates.look(certificate)[3]
        pack(folder / "pi-1.tar", Manifest("barn", "pi-1", 2, until, {}), files, authority.signer())


if __name__ == "__main__":
    make(Path(sys.argv[1]))
