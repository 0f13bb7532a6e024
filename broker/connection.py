"""[broker]: where the broker is and who we are to it. For aggregator.toml and agent.toml; loads no MQTT library."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

FilePath = Annotated[
    str,
    Meta(
        pattern=r"\A[^\x00-\x1f\x7f]{1,4096}\Z",
        description="a path is 1 to 4,096 characters, none of them a control character",
    ),
]
"""What names a file."""
Host = Annotated[
    str,
    Meta(
        pattern=r"\A(?=.{1,253}\Z)(\w([\w-]{0,61}\w)?(\.\w([\w-]{0,61}\w)?)*\.?|[0-9A-Fa-f]*(:[0-9A-Fa-f.]*){2,}(%[\w.-]+)?)\Z",
        description="a host is a name or an address, without port or scheme",
    ),
]
"""A name, whose labels have at most 63 characters, or an IPv4 or IPv6 address."""
Username = Annotated[
    str,
    Meta(
        pattern=r"\A[^\x00-\x1f\x7f-\x9f]{1,10000}\Z",
        description="a name of a user is 1 to 10,000 characters, none of them a control character",
    ),
]
"""MQTT takes 65,535 bytes (section 1.5.4)."""


class BrokerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach the broker. Secrets are named by path, never written inline."""

    host: Host = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535)] = 1883
    username: Username | None = None
    password_file: FilePath | None = None
    """A file whose first line is the password; only its owner should be able to read it."""
    ca_file: FilePath | None = None
    """Certificate authority in PEM; giving it turns TLS on."""
    certificate_file: FilePath | None = None
    key_file: FilePath | None = None
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    """"auto" tries MQTT 5 and falls back to 3.1.1."""
    keepalive_s: Annotated[int, Meta(ge=5, le=3600)] = 60
    connect_timeout_s: Annotated[float, Meta(ge=0.1, le=3600)] = 10.0
    max_packet_bytes: Annotated[int, Meta(ge=2048, le=2**28)] | None = None
    """The largest MQTT packet that the broker takes, for brokers that do not say so themselves (all of 3.1.1)."""
