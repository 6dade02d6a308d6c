"""Chains of ledger entries, for tests of the ledger and of what it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from lmeraser.evidence.hash_chain import Entry, LedgerHead

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
TIME = "2026-01-31T12:00:00Z"


def chain(bodies: Sequence[Any], kind: str = "added") -> list[Entry]:
    entries: list[Entry] = []
    for position, body in enumerate(bodies):
        entries.append(Entry(position, entries[-1].digest if entries else None, TIME, kind, body))
    return entries


def written(entries: Sequence[Entry]) -> bytes:
    return b"".join(entry.line() for entry in entries)


def head_of(entries: Sequence[Entry]) -> LedgerHead:
    return LedgerHead(len(entries), entries[-1].digest)


SIX = chain([{"n": number} for number in range(6)])
