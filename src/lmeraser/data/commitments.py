"""Commitments to records: how the ledger refers to records that may have to be forgotten.

A commitment is an HMAC of a record's metadata under a key derived from the record's own random key. Once that key
is erased, the commitment is a random number: nobody can link it to the record, not even by trying every possible
record.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, select

from lmeraser.core.digests import Digest, keyed_digest
from lmeraser.data.identities import RecordIndex, RecordMetadata, records_table
from lmeraser.storage.keystore import KeyStore


class Commitments:
    """The commitments of the records that one workspace holds.

    Args:
        index: metadata of the records.
    """

    def __init__(self, index: RecordIndex) -> None:
        self._index = index
        self._database = index.database

    def by_entry(
        self, ids: Sequence[str] | None = None, connection: Connection | None = None
    ) -> dict[int, list[Digest]]:
        """Commitments of records, sorted, by the position of the ledger entry that reports their addition.

        Args:
            ids: of the records; None: all records.
            connection: an open one to use.
        """
        query = select(*records_table.c)
        found: Iterable[tuple[int, Digest]]
        if ids is None:
            found = self._database.fetch(query, self._of_row, connection)
        else:
            found = self._index.select_by_id(query, ids, lambda _, row: self._of_row(row), connection)
        grouped: dict[int, list[Digest]] = {}
        for entry, digest in found:
            grouped.setdefault(entry, []).append(digest)
        return {entry: sorted(digests) for entry, digests in sorted(grouped.items())}

    def find_ids(self, commitments: Collection[Digest]) -> dict[Digest, str]:
        """The ids of the records behind these commitments, where the workspace holds them."""
        keys = self._database.keys

        def each(row: Any) -> tuple[Digest, str]:
            return self._of_row(row)[1], RecordMetadata.decrypt(keys, row).id

        pairs = self._database.fetch(select(*records_table.c), each)
        return {digest: record_id for digest, record_id in pairs if digest in commitments}

    def _of_row(self, row: Any) -> tuple[int, Digest]:
        keys = self._database.keys
        return row.entry, commitment(keys, row.number, row.entry, RecordMetadata.decrypt(keys, row))


def commitment(keys: KeyStore, number: int, entry: int, metadata: RecordMetadata) -> Digest:
    """The commitment to one record.

    Args:
        keys: of the workspace.
        number: of the record.
        entry: position of the ledger entry that reports its addition.
        metadata: of the record.
    """
    key = hmac.digest(keys.key(number), b"commitment", "sha256")
    return keyed_digest(key, ["record", entry, *metadata])
