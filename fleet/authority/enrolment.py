"""`fedge enroll`, where the authority is, and `fedge agent adopt`, where the device is."""

from __future__ import annotations

import argparse
import datetime as dt
import grp
import tomllib
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from fleet.authority import cut, texts
from fleet.authority.said import inner, now, say
from identity import adoption, certificates
from identity.authority import Authority
from identity.bundle import BundleError, Manifest, pack, unpack
from identity.directory import AuthorityError
from identity.keys import SigningKey, fingerprint, key_of, text_of
from runtime.settings import SettingsError, convert


class EnrolledDone(Struct, frozen=True):
    """A device that was enrolled, and the file to carry to it."""

    device: str
    epoch: int
    expires: dt.datetime
    bundle: str
    fingerprint: str
    failed: tuple[str, ...] = ()


class AdoptedDone(Struct, frozen=True):
    """A bundle that was put in its place. configured: whether agent.toml is the one that came with it."""

    fleet: str
    device: str
    epoch: int
    expires: dt.datetime
    fingerprint: str
    configured: bool


def enroll(arguments: argparse.Namespace) -> int:
    """Enroll a device, and write the bundle that makes it one."""
    out: Path = arguments.out or Path(f"{arguments.device}.tar")
    if out.exists():
        raise AuthorityError(
            f"{out}: is there already, and may be a bundle that is needed yet: remove it, or say --out"
        )
    key, message_key = certificates.new_key(), SigningKey.generate()
    with Authority(arguments.ca) as authority:
        labels = labels_of(arguments.labels)
        before = authority.record.devices.get(arguments.device)
        host, port = arguments.server or authority.hosts[0], authority.settings.broker.port
        worn = (before.labels if before else {}) if labels is None else labels
        text = texts.agent(authority.record.fleet, arguments.device, host, port, worn)
        check_agent(text)
        certificate = authority.enroll(
            arguments.device,
            *(certificates.public_of(key), text_of(message_key.public), now()),
            labels=labels,
            rows=arguments.rows,
        )
        known = authority.record.devices[arguments.device]
        until = certificates.look(certificate)[3]
        files = authority.trust_files | {"mandate.json": authority.mandate, "agent.toml": text.encode()}
        files |= {"device.key": key, "device.crt": certificate, "message.key": message_key.pem}
        pack(out, Manifest(authority.record.fleet, arguments.device, known.epoch, until, {}), files, authority.signer())
        failed = list(authority.publish(now()).failed)
        if before is not None:
            steps = (
                cut.reload(authority.settings.broker),
                *cut.cut(inner(authority), authority.record.fleet, arguments.device),
            )
            failed += [f"of the one before: {step.what}: {step.text}" for step in steps if not step.done]
        mark = fingerprint(key_of(authority.record.root))
    done = EnrolledDone(arguments.device, known.epoch, until, str(out), mark, tuple(failed))
    said = [
        f"{out}: {arguments.device} of fleet {authority.record.fleet}, epoch {known.epoch}, until {until:%Y-%m-%d}",
        f"  private keys are in it: carry it to the device, `install-agent.sh --bundle {out.name}`, and remove it here",
        f"  fingerprint of the root: {mark}",
    ]
    if known.epoch > 1:
        said.append(f"  whatever was {arguments.device} before is out")
    return say(done, said, arguments)


def adopt(arguments: argparse.Namespace) -> int:
    """Make this machine the device of a bundle."""
    bundle = unpack(arguments.bundle, now())
    if arguments.fingerprint is not None and arguments.fingerprint != bundle.fingerprint:
        raise BundleError(
            f"{arguments.bundle}: its root has the fingerprint {bundle.fingerprint}, not {arguments.fingerprint}: this "
            "is not the bundle that you were told of"
        )
    check_agent(bundle.files["agent.toml"].decode(errors="replace"))
    configured = adoption.adopt(bundle, arguments.into, group_of(arguments.group))
    manifest = bundle.manifest
    done = AdoptedDone(
        manifest.fleet, manifest.device, manifest.epoch, manifest.expires, bundle.fingerprint, configured
    )
    what = f"{manifest.device} of fleet {manifest.fleet}, epoch {manifest.epoch}, until {manifest.expires:%Y-%m-%d}"
    said = [f"{arguments.into}: this is {what}; fingerprint of the root {bundle.fingerprint}"]
    if not configured:
        file = arguments.into / "agent.toml"
        said.append(f"  {file} was there before and is as it was: its [broker] and [identity] have to name these files")
        said.append("  an agent that runs is to be started again: it goes on under its former key")
    return say(done, said, arguments)


def check_agent(text: str) -> None:
    """Raise SettingsError unless this is an agent.toml."""
    from edge_agent.config import AgentConfig  # it brings NumPy, and who only asks or answers needs none

    try:
        convert(tomllib.loads(text), AgentConfig, "agent.toml")
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"agent.toml: is not TOML: {error}") from error


def labels_of(words: Sequence[str] | None) -> dict[str, str] | None:
    if words is None:
        return None
    pairs = [word.partition("=") for word in words]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise SettingsError(f"--labels {name}: say NAME=VALUE, as in site=north")
    return {name: value for name, _, value in pairs}


def group_of(name: str | None) -> int | None:
    if name is None:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as error:
        raise SettingsError(f"--group {name}: there is no such group on this machine") from error
