"""Loopback addresses are this machine's alone, and public ones are those of the Internet."""

from __future__ import annotations

import pytest

from lmeraser.service.addresses import is_loopback, is_public
from service.test_callbacks import PRIVATE


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("127.5.5.5", True), ("0.0.0.0", False),
     ("::", False), ("192.168.1.5", False), ("eraser.example", False), ("", False)],
)  # fmt: skip
def test_loopback_is_this_machine_alone(host: str, alone: bool) -> None:
    assert is_loopback(host) == alone


# Addresses that lead to others (NAT64, 6to4, IPv4-compatible, Teredo), site-local ones and other special ones.
LEADING_ELSEWHERE = [
    "64:ff9b::10.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808", "2002:a00:1::", "2002:808:808::1",
    "::10.0.0.1", "::8.8.8.8", "fec0::1", "2001::1", "100::1", "5f00::1", "3fff::1", "192.0.0.8", "192.88.99.1",
    "2001:db8::1",
]  # fmt: skip


@pytest.mark.parametrize("address", [*PRIVATE, *LEADING_ELSEWHERE])
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address",
    ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822", "2a00:1450::1"],
)
def test_public_addresses(address: str) -> None:
    assert is_public(address)
