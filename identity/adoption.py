"""A bundle becomes what a device is: its files under /etc/fedge, readable by the agent and by nobody else.

    ETC/identity/     ca.crt, device.crt, device.key, message.key, trust.json, mandate.json, manifest.json
    ETC/agent.toml    the one of the bundle, where there is none yet

Its law:
1. The first bundle pins the root. One of another fleet or root, of another device, of an earlier epoch, or with older
   pinned keys or an older certificate than what is here is refused, and nothing is changed.
2. The folder is made whole beside the old one and put in its place: key and certificate are always a pair. Where the
   file system can, the two change places at once, so that a cut of the power in a renewal leaves one or the other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import msgspec

from identity.bundle import FILES, Bundle, BundleError, Manifest
from identity.trust import TrustError, read_trust
from identity.validity import ValidityError, validity_of
from runtime.disk import exchange, sync, write_private

ETC = "/etc/fedge"
FOLDER = "identity"


def adopt(bundle: Bundle, etc: Path, group: int | None = None) -> bool:
    """Put the files of a bundle in their places; return whether agent.toml is the bundle's.

    group: who may read them beside the owner. Raises BundleError (law 1), OSError.
    """
    _check_against(bundle, etc)
    new, old, here = (etc / name for name in (f".{FOLDER}.new", f".{FOLDER}.old", FOLDER))
    for leftover in (new, old) if here.exists() else (new,):
        shutil.rmtree(leftover, ignore_errors=True)
    folder_mode, mode = (0o700, 0o600) if group is None else (0o750, 0o640)
    etc.mkdir(mode=0o755 if group is None else 0o750, parents=True, exist_ok=True)
    new.mkdir(mode=0o700)
    files = {name: bundle.files[name] for name in ("manifest.json", *FILES) if name != "agent.toml"}
    for name, content in files.items():
        write_private(new / name, content, mode)
        if group is not None:
            os.chown(new / name, -1, group)
    if group is not None:
        os.chown(new, -1, group)
    new.chmod(folder_mode)
    if not exchange(new, here):
        with contextlib.suppress(FileNotFoundError):
            here.rename(old)
        new.rename(here)
    sync(etc)
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    return _put_configuration(bundle, etc, group, mode)


def _put_configuration(bundle: Bundle, etc: Path, group: int | None, mode: int) -> bool:
    target, text = etc / "agent.toml", bundle.files["agent.toml"].replace(ETC.encode(), str(etc.absolute()).encode())
    if target.exists():
        return target.read_bytes() == text
    write_private(target, text, mode)
    if group is not None:
        os.chown(target, -1, group)
    return True


def _check_against(bundle: Bundle, etc: Path) -> None:
    """Raise BundleError for a bundle that may not take the place of what is here."""
    here = next((etc / name for name in (FOLDER, f".{FOLDER}.old") if (etc / name / "trust.json").exists()), None)
    if here is None:
        return
    ours, wanted = f"{here} is", bundle.manifest
    anew = f"where this machine is to become another device, remove {here} first"
    try:
        trust = read_trust(here / "trust.json")
        known = msgspec.json.decode((here / "manifest.json").read_bytes(), type=Manifest)
        certified = validity_of((here / "device.crt").read_bytes())
    except (TrustError, ValidityError, msgspec.MsgspecError, OSError) as error:
        raise BundleError(f"{ours} damaged, so nothing can be held against it: {error}; {anew}") from error
    if trust.fleet != wanted.fleet:
        raise BundleError(f"{ours} that of fleet {trust.fleet}, and the bundle is of fleet {wanted.fleet}; {anew}")
    if trust.root != bundle.trust.root:
        raise BundleError(f"{ours} that of another root of fleet {trust.fleet} than the bundle's; {anew}")
    if known.device != wanted.device:
        raise BundleError(f"{ours} that of device {known.device}, and the bundle is of {wanted.device}; {anew}")
    if wanted.epoch < known.epoch:
        raise BundleError(
            f"the bundle is of epoch {wanted.epoch} of {wanted.device}, and here is epoch {known.epoch} already: the "
            "device was enrolled again since, and an older bundle is of no use any more"
        )
    if bundle.trust.serial < trust.serial:
        raise BundleError(f"its pinned keys (serial {bundle.trust.serial}) are older than those here ({trust.serial})")
    if wanted.epoch == known.epoch and validity_of(bundle.files["device.crt"]).until < certified.until:
        raise BundleError("its certificate is older than the one here, which was renewed since")
