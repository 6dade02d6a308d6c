"""Receipts of other systems, attached to a deletion request so that one certificate covers the whole deletion.

Data of a person is in more places than a model: a vector store, a warehouse, backups. Whoever deletes it there
gets or writes a receipt, and attaches its digest to the request here, under a name of the system. The certificate
lists them as they were given; nothing about them is checked. Rules:
- a request takes receipts until it is carried out, so that its certificate has all of them;
- the same digest is attached once;
- the name of a system is for people, and goes into the certificate: it must not name a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, Integer, String, Table, func, insert, select

from lmeraser.core.digests import Digest
from lmeraser.errors import InputError
from lmeraser.storage.database import Database, schema
from lmeraser.workspace.requests.state import Request

LONGEST_SYSTEM = 100  # characters
MOST = 50  # receipts of one request

_receipts = Table(
    "receipts",
    schema,
    Column("request", String, primary_key=True),
    Column("digest", String, primary_key=True),
    Column("system", String, nullable=False),
    Column("position", Integer, nullable=False),
)


@dataclass(frozen=True)
class Receipt:
    """A receipt of another system.

    Attributes:
        system: the caller's name of the system.
        digest: of the receipt.
    """

    system: str
    digest: Digest

    def check(self) -> None:
        """Refuse names that cannot be shown.

        Raises:
            InputError: the name is empty, too long, or has characters that cannot be printed.
        """
        fits = self.system.strip() and len(self.system) <= LONGEST_SYSTEM
        if not fits or not self.system.isprintable():
            raise InputError(
                "Name of a system cannot be used",
                got=f"{self.system[:LONGEST_SYSTEM]!r}",
                next_step=f"give 1 to {LONGEST_SYSTEM} printable characters",
            )

    def to_json(self) -> dict[str, str]:
        """As JSON values."""
        return {"system": self.system, "digest": self.digest}


class Receipts:
    """The receipts of one workspace."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_all(self, request_ids: Sequence[str]) -> dict[str, list[Receipt]]:
        """The receipts of each of these requests that has any, in the order in which they were attached."""
        query = select(_receipts).order_by(_receipts.c.position)
        found: dict[str, list[Receipt]] = {}
        for request_id, receipt in self._database.fetch_where_in(
            query, _receipts.c.request, request_ids, lambda row: (row.request, _receipt(row))
        ):
            found.setdefault(request_id, []).append(receipt)
        return found

    def of(self, request_id: str, connection: Connection | None = None) -> list[Receipt]:
        """The receipts of a request, in the order in which they were attached."""
        query = select(_receipts).where(_receipts.c.request == request_id).order_by(_receipts.c.position)
        return self._database.fetch(query, _receipt, connection)

    def attach(self, connection: Connection, request: Request, receipts: Sequence[Receipt]) -> None:
        """Attach receipts to a request, in the caller's transaction; those that it has already stay as they are.

        Args:
            connection: of the transaction.
            request: as it is in this transaction.
            receipts: to attach.

        Raises:
            InputError: the request is not pending any more, there would be too many, or a name cannot be used.
        """
        if request.state != "pending":
            raise InputError(
                "Request takes no more receipts",
                got=f"{request.id} is {request.state}",
                next_step="attach receipts before the request is carried out",
            )
        held = {receipt.digest for receipt in self.of(request.id, connection)}
        new = list({receipt.digest: receipt for receipt in receipts if receipt.digest not in held}.values())
        for receipt in new:
            receipt.check()
        if len(held) + len(new) > MOST:
            raise InputError("Too many receipts", got=f"{len(held) + len(new)} (at most {MOST} for a request)")
        count = select(func.count()).select_from(_receipts).where(_receipts.c.request == request.id)
        start = connection.execute(count).scalar_one()
        rows = [
            {"request": request.id, "digest": each.digest, "system": each.system, "position": start + number}
            for number, each in enumerate(new)
        ]
        if rows:
            connection.execute(insert(_receipts), rows)


def _receipt(row: Any) -> Receipt:
    return Receipt(row.system, Digest(row.digest))
