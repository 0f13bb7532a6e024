"""A device's next certificate, in a process of its own: the library for it takes ten megabytes, and no agent has them.

    python -m identity.renewal ask FOLDER TOPIC            writes the payload of a request to standard output
    python -m identity.renewal adopt FOLDER TOPIC          reads the payload of an answer from standard input

FOLDER is the `identity` of adoption.py; the next key waits in `.renewing` beside it. TOPIC is where it is asked, or
answered. What fails is one line on standard error, and nothing was changed. (broker/issuing.py has the topics.)
"""

from __future__ import annotations

import datetime as dt
import shutil
import sys
from pathlib import Path

import msgspec

from identity import adoption, asking, certificates
from identity.asking import AskingError, Request
from identity.bundle import BundleError, Manifest, assembled
from identity.certificates import CertificateError
from identity.keys import KeyFileError, key_of, read_key, text_of
from identity.mandate import MandateError, read_mandate
from identity.trust import TrustError, read_trust
from runtime.disk import make_private, write_private

DRAFT = ".renewing"


def ask(folder: Path, topic: str) -> bytes:
    """Return the payload of a request for a new key, the same one until it was answered. Raises as `main` catches."""
    known = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    message_key, draft = read_key(folder / "message.key"), folder.parent / DRAFT
    if not (draft / "request.csr").exists():
        shutil.rmtree(draft, ignore_errors=True)
        make_private(draft)
        write_private(draft / "device.key", certificates.new_key())
        csr = certificates.request((draft / "device.key").read_bytes(), known.device)
        write_private(draft / "request.csr", csr)
    has = certificates.look((folder / "device.crt").read_bytes())[3]
    request = Request(known.device, (draft / "request.csr").read_text(), text_of(message_key.public), has=has)
    return asking.ask(topic, request, message_key)


def adopt(folder: Path, topic: str, payload: bytes, now: dt.datetime) -> str:
    """Put key and certificate in their place, together; return what to say of it. Raises as `main` catches."""
    if folder.name != adoption.FOLDER:
        raise BundleError(f"{folder}: is not called {adoption.FOLDER}, so it was not made by enrolling")
    known = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
    trust, draft = read_trust(folder / "trust.json", known.fleet), folder.parent / DRAFT
    mandate = read_mandate((folder / "mandate.json").read_bytes(), known.fleet, trust.root)
    answer = asking.answered(topic, payload, key_of(mandate.key), signed=True)
    message_key = (folder / "message.key").read_bytes()
    csr = (draft / "request.csr").read_text()
    wanted = Request(known.device, csr, text_of(read_key(folder / "message.key").public))
    if answer.asked != wanted.digest:
        raise BundleError("this answers another request")
    if answer.granted is None:
        raise BundleError(f"the authority refuses: {answer.text}")
    granted = answer.granted
    files = {name: text.encode() for name, text in granted.files.items()}
    files |= {"device.key": (draft / "device.key").read_bytes(), "message.key": message_key}
    bundle = assembled(known.fleet, known.device, granted.epoch, files, now)
    status = folder.stat()
    adoption.adopt(bundle, folder.parent, status.st_gid if status.st_mode & 0o070 else None)
    shutil.rmtree(draft)
    until = f"until {bundle.manifest.expires:%Y-%m-%d}"
    if bundle.trust.serial == trust.serial:
        return until
    pinned = f"other keys are pinned now (serial {bundle.trust.serial})"
    return f"{until}; {pinned}, which count once the agent is started again"


def main(arguments: list[str]) -> int:
    """Do one of the two."""
    what, folder, topic = arguments[0], Path(arguments[1]), arguments[2]
    try:
        if what == "ask":
            sys.stdout.buffer.write(ask(folder, topic))
        else:
            payload = sys.stdin.buffer.read(asking.MOST_ANSWERED + 1)
            sys.stdout.write(adopt(folder, topic, payload, dt.datetime.now(dt.UTC)))
    except (
        *(AskingError, BundleError, CertificateError, KeyFileError, MandateError, TrustError),
        *(msgspec.MsgspecError, KeyError, OSError),
    ) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
