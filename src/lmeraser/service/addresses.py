"""Classification of hosts and IP addresses: loopback, public, or neither."""

from __future__ import annotations

import contextlib
import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host, given by name or address, is reachable from this machine only."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def is_public(address: str) -> bool:
    """Whether an IP address is globally reachable unicast; an IPv4-mapped one counts as its IPv4 address."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    effective = mapped if mapped is not None else parsed
    return effective.is_global and not effective.is_multicast
