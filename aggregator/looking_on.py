"""What looks on beside an aggregator, as tables of aggregator.toml: the page, notices, Home Assistant.

All of it runs in one process of its own (fleet/sight), which the aggregator starts where one of these tables asks for
it, and whose death touches nothing.
"""

from __future__ import annotations

import ipaddress
from importlib.util import find_spec
from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from broker.connection import FilePath
from runtime.settings import convert

PAGE_PACKAGES = ("starlette", "uvicorn", "jinja2", "prometheus_client")
MISSING_PAGE = "bind: the page needs packages that are not installed here: pip install fedge[web]"

Address = Annotated[str, Meta(pattern=r"\A[^\s/]+:[0-9]{1,5}\Z", max_length=260)]
NoticeKind = Literal[
    "job.ended", "round.abandoned", "device.lost", "device.back", "device.clone", "words.refused", "disk", "certificate"
]


class ObserverSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """As whom that process speaks to the broker: [observer]."""

    config: FilePath = ""
    """A file like operator.toml, of somebody with role observer; where the page may act, of an operator, and in a fleet
    with keys of a steward. Without one it connects as [broker] says, without name and password."""


class WebSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The page, and /metrics: [web]."""

    bind: Address | Literal[""] = ""
    """HOST:PORT; "" for no page. Beyond this machine only with a certificate and users."""
    certificate_file: FilePath = ""
    key_file: FilePath = ""
    users_file: FilePath = ""
    """Who may log in, and act: made by `fedge web user`."""
    hosts: tuple[Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,253}\Z")], ...] = ()
    """Names, beside localhost, by which the page may be asked for; by an address it may always be."""
    in_container: bool = False
    """Whether it runs in a container whose port is published at the loopback interface of its host: then bind may be
    0.0.0.0 without a certificate and users, and nobody is answered but that host and the container itself."""
    metrics_devices: Annotated[int, Meta(ge=0, le=100_000)] = 0
    """Up to so many devices have samples of their own in /metrics; 0: none has."""


def is_loopback(host: str) -> bool:
    """Return whether an address, or the name localhost, is this machine and nobody else's."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def page_is_installed() -> bool:
    """Return whether what the page needs is installed: the extra `web`."""
    return all(find_spec(name) is not None for name in PAGE_PACKAGES)


def with_line(web: WebSettings, bind: str, *, in_container: bool) -> WebSettings:
    """Return [web] as a command line changes it: --web, --web-in-container. Raises SettingsError."""
    line = convert({"bind": bind}, WebSettings, "--web") if bind else web
    return structs.replace(web, bind=line.bind, in_container=in_container or web.in_container)


def why_not(web: WebSettings) -> str:
    """Return why a page must not be served so, in a sentence; "" where it may."""
    host, _, port = web.bind.rpartition(":")
    if not web.bind:
        return ""
    if int(port) > 65_535:
        return f"bind: {port} is no port"
    if bool(web.certificate_file) != bool(web.key_file):
        return "certificate_file and key_file are of no use without each other"
    if is_loopback(host) or web.in_container or (web.certificate_file and web.users_file):
        return ""
    return (
        f"bind: {web.bind} is beyond this machine, where the page is for users and over TLS alone: give "
        "certificate_file, key_file and users_file, or bind to 127.0.0.1 and open a way with ssh -L"
    )


class NotifySettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Who is told when something happens: [notify]."""

    webhook: Annotated[str, Meta(pattern=r"\A(https?://\S+)?\Z", max_length=2000)] = ""
    """Where a JSON object is posted for each notice."""
    topic: bool = False
    """Whether notices are said under the topic `notice` too."""
    kinds: tuple[NoticeKind, ...] = (
        *("job.ended", "round.abandoned", "device.lost", "device.clone"),
        *("words.refused", "disk", "certificate"),
    )
    lost_after_s: Annotated[float, Meta(ge=1, le=31_536_000)] = 3600.0
    """A device that was away for so long is lost."""
    disk_free_bytes: Annotated[int, Meta(ge=0, le=2**49)] = 500_000_000
    """Less than this, at the server or on a device, is told."""
    certificate_days: Annotated[float, Meta(ge=0, le=3650)] = 14.0
    """Certificates and lists of the revoked that end within so many days are told."""


class HomeAssistantSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """MQTT discovery: [homeassistant]."""

    prefix: Annotated[str, Meta(pattern=r"\A([A-Za-z0-9_-]{1,80})?\Z")] = ""
    """The discovery prefix of Home Assistant, as "homeassistant"; "": off."""
