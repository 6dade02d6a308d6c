"""Classification of hosts and IP addresses: loopback, public, or neither."""

from __future__ import annotations

import contextlib
import ipaddress

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # RFC 4291; everything else is special or not assigned
_NOT_PUBLIC = tuple(
    map(
        ipaddress.ip_network,  # protocols, relays to 6to4; the same and Teredo, examples, 6to4
        ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)


def is_loopback(host: str) -> bool:
    """Whether a host, given by name or address, is reachable from this machine only."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def is_public(address: str) -> bool:
    """Whether an IP address is globally reachable unicast.

    An IPv6 address that stands for an IPv4 address (IPv4-mapped, NAT64) counts as that one. Others that lead to
    IPv4 addresses or private networks through a relay (6to4, Teredo, IPv4-compatible, site-local, local NAT64) are
    not public, whatever they embed.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return is_public(str(parsed.ipv4_mapped))
        if parsed in _NAT64:
            return is_public(str(ipaddress.IPv4Address(parsed.packed[-4:])))
        if parsed not in _GLOBAL_UNICAST:
            return False
    listed = any(parsed.version == network.version and parsed in network for network in _NOT_PUBLIC)
    return parsed.is_global and not parsed.is_multicast and not listed
