"""Which URLs the operator lets the service call: hosts on a list, by https, without user or password.

`service.callbacks` has the rules, and enforces them at every call.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from lmeraser.config.deployment import ServiceConfig

DEFAULT_PORTS = {"https": 443, "http": 80}


def parse_url(url: str) -> SplitResult | None:
    """The parts of a URL; None if it must not be called whatever its host."""
    try:
        parts = urlsplit(url)
        allowed = parts.scheme in DEFAULT_PORTS and parts.hostname and parts.username is None
        allowed = allowed and (parts.port or 1) > 0
    except ValueError:
        return None
    return parts if allowed and url.isprintable() and " " not in url and "\\" not in url else None


def is_listed(parts: SplitResult, hosts: Sequence[str]) -> bool:
    """Whether a list has the host together with its port, or alone if the port is the scheme's default."""
    default_port = DEFAULT_PORTS[parts.scheme]
    port = parts.port or default_port
    return f"{parts.hostname}:{port}" in hosts or (port == default_port and parts.hostname in hosts)


def fault_of(url: str, config: ServiceConfig) -> str:
    """What keeps a URL from being called; '' if nothing does."""
    parts = parse_url(url)
    if parts is None or not is_listed(parts, config.callback_hosts):
        return "Must be an https URL without user and password, to a host in service.callback_hosts"
    if parts.scheme != "https" and not is_listed(parts, config.private_callback_hosts):
        return "Must be an https URL"
    return ""
