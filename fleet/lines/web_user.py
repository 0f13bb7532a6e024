"""`fedge web user …`: who may log in at the page."""

from __future__ import annotations

import argparse
import getpass
import sys
from pathlib import Path

from fleet.lines.options import Table, add, group
from runtime.settings import SettingsError

MOST_CHARACTERS = 4096


def add_user_lines(web: Table) -> None:
    """Add `fedge web user`."""
    example = "fedge web user add anna --role operator --users /etc/fedge/web/users.toml"
    user = group(web, "user", "Who may log in at the page.", example)
    new = add(user, "add", user_add, "Let somebody log in; asks for the password.", example)
    new.add_argument("name", metavar="NAME")
    new.add_argument("--role", required=True, choices=("observer", "operator"), help="who looks, or who acts as well")
    new.add_argument(
        "--password-file", type=Path, metavar="FILE", help='its first line is the password; "-": standard input'
    )
    new.add_argument("--again", action="store_true", help="another password and role for somebody who is there")
    every = add(
        user, "list", user_list, "Show who may log in.", "fedge web user list --users /etc/fedge/web/users.toml"
    )
    gone = add(
        user,
        "remove",
        user_remove,
        "Let somebody log in no more; the page puts them out at once.",
        "fedge web user remove anna --users /etc/fedge/web/users.toml",
    )
    gone.add_argument("name", metavar="NAME")
    for parser in (new, every, gone):
        parser.add_argument("--users", type=Path, required=True, metavar="FILE", help="users_file of [web]")
        parser.add_argument("--json", action="store_true")


def user_add(arguments: argparse.Namespace) -> int:
    from fleet.console.operator import as_json
    from fleet.web.users import add_user

    password = _password(arguments.password_file)
    made = add_user(arguments.users, arguments.name, arguments.role, password, again=arguments.again)
    print(as_json(made) if arguments.json else f"{made.name} may log in, with role {made.role}")
    return 0


def user_list(arguments: argparse.Namespace) -> int:
    from fleet.console.operator import as_json
    from fleet.web.users import listed

    found = listed(arguments.users)
    if arguments.json:
        print(as_json(found))
    for user in () if arguments.json else found.users:
        print(f"{user.name:<40} {user.role}")
    return 0


def user_remove(arguments: argparse.Namespace) -> int:
    from fleet.console.operator import as_json
    from fleet.web.users import remove_user

    gone = remove_user(arguments.users, arguments.name)
    print(as_json(gone) if arguments.json else f"{gone.name} may log in no more")
    return 0


def _password(path: Path | None) -> str:
    """Return the password of a file's first line, of standard input, or as somebody types it, twice."""
    if path is None and sys.stdin.isatty():
        password = getpass.getpass("password: ")
        if getpass.getpass("again: ") != password:
            raise SettingsError("those were two different passwords; nothing was changed")
        return password
    try:
        if path is None or str(path) == "-":
            text = sys.stdin.read(MOST_CHARACTERS)
        else:
            with path.open(encoding="utf-8") as file:
                text = file.read(MOST_CHARACTERS)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}") from error
    return text.partition("\n")[0].rstrip("\r")
