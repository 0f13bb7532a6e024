"""Who may log in at the page: users.toml, which `fedge web user` writes and the page reads anew where it has changed.

    [users.anna]
    role = "operator"
    password = "$argon2id$…"

An observer looks, an operator pauses, resumes, stops and rolls back jobs and puts devices in quarantine. Nobody is an
admin here: this page is asked things by strangers. A file that cannot be read lets nobody in.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from fleet.local.toml import written
from identity.passwords import PasswordError, check_hash, hashed
from runtime.disk import write_private
from runtime.settings import SettingsError, load

log = logging.getLogger(__name__)

WebRole = Literal["observer", "operator"]
UserName = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,39}\Z")]
MOST_BYTES = 262_144
MOST_USERS = 500


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """What stands in the file of one user. password: what is kept of it."""

    role: WebRole
    password: str


class UsersFile(Struct, frozen=True, forbid_unknown_fields=True):
    """users.toml."""

    users: Annotated[dict[UserName, Entry], Meta(max_length=MOST_USERS)] = {}


class User(Struct, frozen=True):
    """Who is logged in."""

    name: str
    role: WebRole

    def may(self, role: WebRole) -> bool:
        """Return whether this one has a role, or one that may more."""
        return role in (self.role, "observer")


def read_users(path: Path) -> dict[str, Entry]:
    """Return the users of a file by name. Raises SettingsError, also for a file that others can read or write."""
    try:
        about = path.stat()
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from error
    if about.st_mode & 0o027:
        raise SettingsError(f"{path}: others on this machine can read or write it: chmod 600 {path}")
    if about.st_size > MOST_BYTES:
        raise SettingsError(f"{path}: is longer than {MOST_BYTES:,} bytes")
    users = load(path, UsersFile).users
    for name, entry in users.items():
        try:
            check_hash(entry.password)
        except PasswordError as error:
            raise SettingsError(
                f"{path}: [users.{name}] password: {error}: fedge web user add {name} --again"
            ) from error
    return users


class Users:
    """The users of a file, as it is now. trouble: why nobody is in, "" where all is well."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: object = ()
        self._users: dict[str, Entry] = {}
        self.trouble = ""

    def find(self, name: str) -> Entry | None:
        """Return what the file has of a user; None where there is none of that name, or no file."""
        with self._lock:
            if (seen := self._look()) != self._seen:
                self._seen = seen
                self._read()
            return self._users.get(name)

    def _look(self) -> object:
        try:
            about = self._path.stat()
        except OSError as error:
            return error.errno
        return about.st_ino, about.st_mtime_ns, about.st_ctime_ns, about.st_size

    def _read(self) -> None:
        try:
            self._users, self.trouble = read_users(self._path), ""
        except SettingsError as error:
            self._users, self.trouble = {}, str(error)
            log.error("users=unreadable why=%s; nobody is let in", error)


# What `fedge web user` does.


class UserLine(Struct, frozen=True):
    """A user, as it is listed."""

    name: str
    role: WebRole


class UserList(Struct, frozen=True):
    """Every user there is, by name."""

    users: list[UserLine]


def listed(path: Path) -> UserList:
    """Return who may log in. Raises SettingsError."""
    return UserList([UserLine(name, entry.role) for name, entry in sorted(read_users(path).items())])


def add_user(path: Path, name: str, role: WebRole, password: str, *, again: bool = False) -> UserLine:
    """Let somebody log in. again: also where there is one of this name, whose password and role these are then.

    Raises SettingsError; nothing is changed then.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}", name):
        raise SettingsError(f"{name[:60]!r} is no name of a user: letters, digits, and . _ - within, 40 at most")
    users = read_users(path) if path.exists() else {}
    if name in users and not again:
        raise SettingsError(f"{path}: there is a user {name} already: --again gives another password, and role")
    if name not in users and len(users) >= MOST_USERS:
        raise SettingsError(f"{path}: has {MOST_USERS} users, and takes no more")
    try:
        entry = Entry(role, hashed(password))
    except PasswordError as error:
        raise SettingsError(str(error)) from error
    _write(path, users | {name: entry})
    return UserLine(name, role)


def remove_user(path: Path, name: str) -> UserLine:
    """Let somebody log in no more; whoever is in under that name is out at once. Raises SettingsError."""
    users = read_users(path)
    if name not in users:
        raise SettingsError(f"{path}: has no user {name[:60]!r}")
    gone = users.pop(name)
    _write(path, users)
    return UserLine(name, gone.role)


def _write(path: Path, users: dict[str, Entry]) -> None:
    tree = {name: {"role": one.role, "password": one.password} for name, one in sorted(users.items())}
    # names may have dots, which TOML would take for tables within tables
    body = written({"users": {f'"{name}"': entry for name, entry in tree.items()}})
    text = f"# Made by `fedge web user`. The page reads it anew where it has changed.\n{body}"
    try:
        before = path.stat() if path.exists() else None
        write_private(path, text.encode())
        if before is not None and os.geteuid() == 0:  # who serves the page goes on reading it
            os.chown(path, before.st_uid, before.st_gid)
    except OSError as error:
        raise SettingsError(f"{path}: cannot be written: {error.strerror or error}") from error
