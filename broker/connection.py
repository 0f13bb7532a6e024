"""[broker]: where the broker is and who we are to it. For aggregator.toml and agent.toml; loads no MQTT library."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct


class BrokerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach the broker. Secrets are named by path, never written inline."""

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535)] = 1883
    username: str | None = None
    password_file: str | None = None
    """A file whose first line is the password; only its owner should be able to read it."""
    ca_file: str | None = None
    """Certificate authority in PEM; giving it turns TLS on."""
    certificate_file: str | None = None
    key_file: str | None = None
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    """"auto" tries MQTT 5 and falls back to 3.1.1."""
    keepalive_s: Annotated[int, Meta(ge=5, le=3600)] = 60
    connect_timeout_s: Annotated[float, Meta(gt=0)] = 10.0
