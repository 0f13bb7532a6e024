"""`--check` of what looks on beside an aggregator: the page, as whom it speaks, notices, Home Assistant.

Nobody is connected to, and nothing is posted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from msgspec import Struct

from aggregator.config import AggregatorConfig
from aggregator.looking_on import MISSING_PAGE, NotifySettings, WebSettings, page_is_installed
from fleet.notices.surroundings import ends_at
from fleet.notices.webhook import Post
from fleet.sight.process import Looking, Speaker, only_looks, refuse_keys_of_jobs, speaker_of
from fleet.web.users import read_users
from identity.validity import ValidityError
from runtime.settings import SettingsError


class Beside(Struct, frozen=True):
    """One thing to look at. text: says what it is; raises SettingsError or OSError where it is wrong."""

    where: str
    text: Callable[[], str]


def things_beside(config: AggregatorConfig, address: Callable[[Speaker], str]) -> Iterator[Beside]:
    """Yield what is to be looked at, in the order of aggregator.toml; nothing where no table asks for anything.

    address: says where a speaker's broker is, and looks at its password and certificate.
    """
    web, notify, prefix = config.web, config.notify, config.homeassistant.prefix
    if not (web.bind or notify.webhook or notify.topic or prefix):
        return
    looking = Looking(**{name: getattr(config, name) for name in Looking.__struct_fields__})
    yield Beside("[observer]", partial(_observer, looking, address))
    if web.bind:
        yield Beside("[web]", partial(_page, web))
    if web.bind and web.users_file and page_is_installed():
        yield Beside("[web] users_file", partial(_users, looking))
    if notify.webhook or notify.topic:
        yield Beside("[notify]", partial(_notices, notify))
    for name in notify.certificate_files:
        yield Beside("[notify] certificate_files", partial(_certificate, name))
    if prefix:
        yield Beside("[homeassistant]", lambda: f"devices by discovery, under the prefix {prefix}")


def _observer(looking: Looking, address: Callable[[Speaker], str]) -> str:
    """Return as whom the broker is spoken to. Raises SettingsError."""
    speaker = speaker_of(looking)
    refuse_keys_of_jobs(looking, speaker)
    if looking.observer.config:
        return f"{looking.observer.config}: {address(speaker)}"
    return "names no config: the broker is spoken to as nobody, and where that is refused, devices are not heard"


def _page(web: WebSettings) -> str:
    """Return where the page will be, or that it cannot be: the rest of an aggregator works without. Raises OSError."""
    if not page_is_installed():
        return MISSING_PAGE
    scheme = "https" if web.certificate_file else "http"
    if web.certificate_file:
        from fleet.web.server import readable

        readable(web.certificate_file, web.key_file)
    return f"the page will be at {scheme}://{web.bind}/"


def _users(looking: Looking) -> str:
    """Return who may log in, and why nobody can act, where that is so. Raises SettingsError."""
    file, users = looking.web.users_file, read_users(Path(looking.web.users_file))
    if not users:
        raise SettingsError(f"{file}: nobody is in it: fedge web user add NAME --role operator --users {file}")
    who = ", ".join(f"{name} ({entry.role})" for name, entry in sorted(users.items()))
    why = only_looks(looking, speaker_of(looking))
    return f"{file}: {who}" + (f"; nobody can act: {why}" if why else "")


def _notices(notify: NotifySettings) -> str:
    """Return where notices go; of the webhook its host alone, the rest may be a secret. Raises SettingsError."""
    try:
        hook = f"posted to {Post(notify.webhook).shown}" if notify.webhook else ""
    except ValueError as error:
        raise SettingsError(f"webhook: {error}") from error
    topic = "said under the topic `notice`" if notify.topic else ""
    if not notify.kinds:
        raise SettingsError("kinds: none is named, so nobody is told anything")
    return f"{' and '.join(where for where in (hook, topic) if where)}: {', '.join(notify.kinds)}"


def _certificate(name: str) -> str:
    """Say that the end of a file is known. Raises SettingsError."""
    try:
        ends_at(Path(name))
    except (OSError, ValidityError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise SettingsError(f"{name}: {why}: nobody would be told when it ends") from error
    return f"{name}: its end is known"
