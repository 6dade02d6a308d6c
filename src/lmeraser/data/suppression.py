"""The suppression list: what was deleted and must not come back with the next import of the same source.

Record ids, subjects and image digests of deleted records are stored as keyed digests only, so that nobody can find
out from the list alone who is on it. A name is on it as it was given and in its canonical form; before 0.2 only as
it was given, so it is looked up in the spellings that can be told from a name (`canonical_names.spellings`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from sqlalchemy import Column, Connection, String, Table, delete, insert, select

from lmeraser.core.digests import Digest, keyed_digest
from lmeraser.data.canonical_names import canonical_or_none, spellings
from lmeraser.storage.database import Database, chunked, schema

SuppressedKind = Literal["record", "subject", "image"]

_suppressed = Table("suppressed", schema, Column("digest", String, primary_key=True))


class SuppressionList:
    """The suppression list of one workspace.

    Args:
        database: of the workspace.
        secret: key of the digests.
    """

    def __init__(self, database: Database, *, secret: bytes) -> None:
        self._database = database
        self._secret = secret

    def find(self, kind: SuppressedKind, names: Iterable[str]) -> set[str]:
        """Those record ids, subjects or image digests that are on the list, exactly so."""
        wanted = {name for name in names if _has_bytes(name)}
        if not wanted or not self._database.fetch(select(_suppressed).limit(1), lambda row: row.digest):
            return set()  # spares an import into a workspace that has deleted nothing three digests for each row
        by_digest = {str(self._digest(kind, name)): name for name in wanted}
        return {by_digest[digest] for digest in self._known(by_digest)}

    def deleted(self, kind: SuppressedKind, names: Iterable[str]) -> set[str]:
        """Those record ids or subjects that are on the list in any spelling that can be told from them."""
        ways = {name: spellings(name) for name in names}
        listed = self.find(kind, {way for of_name in ways.values() for way in of_name})
        return {name for name, of_name in ways.items() if of_name & listed}

    def add(self, connection: Connection, names: Mapping[SuppressedKind, Iterable[str]]) -> None:
        """Put names on the list, inside the caller's transaction."""
        digests = {
            str(self._digest(kind, form))
            for kind, of_kind in names.items()
            for name in of_kind
            for form in {name, canonical_or_none(name) or name}
        }
        if new := sorted(digests - self._known(digests)):
            connection.execute(insert(_suppressed), [{"digest": digest} for digest in new])

    def remove(self, connection: Connection, names: Mapping[SuppressedKind, Iterable[str]]) -> None:
        """Take names off the list, inside the caller's transaction, so that they can be added again."""
        digests = [str(self._digest(kind, name)) for kind, of_kind in names.items() for name in of_kind]
        for chunk in chunked(digests):
            connection.execute(delete(_suppressed).where(_suppressed.c.digest.in_(chunk)))

    def _digest(self, kind: SuppressedKind, name: str) -> Digest:
        return keyed_digest(self._secret, ["suppressed", kind, name])

    def _known(self, digests: Iterable[str]) -> set[str]:
        """Those digests that are on the list."""
        query = select(_suppressed)
        return set(self._database.fetch_where_in(query, _suppressed.c.digest, digests, lambda row: row.digest))


def _has_bytes(name: str) -> bool:
    """Whether a name can be encoded: lone surrogates cannot, and are in no name on the list."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
