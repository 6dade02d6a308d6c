"""Deletion requests as durable objects, in the database.

Every change of state is one transaction with its entry for the ledger. Which requests are in progress is the
journal: after a crash the next training finishes them. Accepting and cancelling is possible while a model is
derived: the writer takes what is pending when it begins, and the rest stays pending. Repeating a request's id with
the same names is harmless; with other names it is an error, because those would not be deleted. The names are
sealed under a key of the request, which is erased when they have been deleted or the request is cancelled. Follows
`deletion`, which has the rules; knows nothing about how a model is derived.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Integer,
    String,
    Table,
    bindparam,
    insert,
    select,
    update,
)

from lmeraser.config.deployment import RequestsConfig
from lmeraser.core.digests import Digest, keyed_digest
from lmeraser.core.time import to_text
from lmeraser.data.records import Records
from lmeraser.errors import InputError
from lmeraser.evidence.hash_chain import Entry
from lmeraser.evidence.ledger import Ledger
from lmeraser.evidence.reconcile import by_entry, of_their_kind
from lmeraser.models.manifest import Model
from lmeraser.storage.database import Database, chunked, encrypted, tables
from lmeraser.workspace.requests.selection import Selection, Selector, select_each
from lmeraser.workspace.requests.selection import select as select_names
from lmeraser.workspace.requests.state import (
    ModelSnapshot,
    Request,
    RequestDraft,
    State,
    parse_id,
    regulation,
    transition,
)

_STATES: dict[str, State] = {  # what entries of these kinds tell
    "request": "pending",
    "cancelled": "cancelled",
    "deleted": "in_progress",
    "completed": "completed",
    "failed": "failed",
}

table = Table(
    "requests",
    tables,
    Column("id", String, primary_key=True),
    Column("regulation", String, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("received", String, nullable=False),
    Column("due", String, nullable=False),
    Column("changed", String, nullable=False),
    Column("names", Integer, nullable=False),
    Column("selector", String, nullable=False),
    Column("audit", Boolean, nullable=False),
    Column("records", Integer, nullable=True),
    Column("already_deleted", Integer, nullable=True),
    Column("before", JSON, nullable=True),
    Column("reason", String, nullable=True),
    Column("certificate", String, nullable=True),
    Column("slot", Integer, nullable=True),
    encrypted("sealed_names", what="names", slot="slot", nullable=True),
)


class Requests:
    """The deletion requests of one workspace.

    Args:
        database: where they are.
        records: what they delete from.
        ledger: is told of every change of state.
        secret: key of the digest by which a repeated request is recognised.
        config: the periods in which the answers are due.
    """

    def __init__(
        self, database: Database, records: Records, ledger: Ledger, *, secret: bytes, config: RequestsConfig
    ) -> None:
        self._database = database
        self._records = records
        self._ledger = ledger
        self._secret = secret
        self._config = config

    # --- reading ---------------------------------------------------------------------------------------

    def all(self, *states: State, connection: Connection | None = None) -> list[Request]:
        """The requests in these states (or all), the earliest due first."""
        query = select(table).order_by(table.c.due, table.c.id)
        if states:
            query = query.where(table.c.state.in_(states))
        with self._database.reading(connection) as inner:
            return [_request(row) for row in inner.execute(query)]

    def get(self, request_id: str, connection: Connection | None = None) -> Request | None:
        """One request, or None."""
        with self._database.reading(connection) as inner:
            row = inner.execute(select(table).where(table.c.id == request_id)).one_or_none()
        return _request(row) if row is not None else None

    def require(self, request_id: str, connection: Connection | None = None) -> Request:
        """One request.

        Raises:
            InputError: there is none with this id.
        """
        request = self.get(parse_id(request_id), connection)
        if request is None:
            raise InputError(
                "A request is one that this workspace has accepted.",
                got=request_id,
                next_step="'lmeraser requests' lists them",
            )
        return request

    def selection(self, request: Request, connection: Connection | None = None) -> Selection:
        """The records that a pending request selects now."""
        return self._selected([request], connection)[0]

    def pending(self) -> Selection:
        """The records that all pending requests together select now."""
        return self._database.consistent(lambda c: _union(self._selected(self.all("pending", connection=c), c)))

    def quarantined(self, model: Model, pending: Sequence[str]) -> frozenset[int]:
        """Clusters of ``model`` that hold records whose deletion was accepted and is not completed.

        Args:
            model: the served one.
            pending: ids of the records that `pending` gave, before.
        """
        numbers = set(model.numbers(self._records.trie_keys(model.partition.key, pending)).values())
        for request in self.all("in_progress", "failed"):
            if request.before is not None and request.before.model == model.model_digest:
                numbers.update(request.before.clusters)
        return model.reached(numbers)

    # --- changing --------------------------------------------------------------------------------------

    def accept(self, wish: RequestDraft, *, now: datetime, connection: Connection | None = None) -> Request:
        """File a request; it is pending then, unless its id was filed before.

        Raises:
            InputError: it names nothing, its id is no UUID or was filed with other names.
            UnknownRecordError: it names records or subjects that were never here.
        """
        request_id = str(uuid.uuid4()) if wish.request is None else parse_id(wish.request)
        regulation(wish.regulation)
        names = [*(("record", n) for n in set(wish.ids)), *(("subject", n) for n in set(wish.subjects))]
        selector = str(keyed_digest(self._secret, ["selector", *sorted(map(list, names))]))
        with self._database.transaction(connection) as inner:
            row = inner.execute(select(table).where(table.c.id == request_id)).one_or_none()
            if row is not None:
                return _repeated(_request(row), row.selector == selector or not names)
            select_names(self._records, ids=wish.ids, subjects=wish.subjects)
            received = wish.received or now
            request = Request(
                id=request_id,
                regulation=wish.regulation,
                state="pending",
                received=to_text(received),
                due=to_text(self._config.due(wish.regulation, min(received, wish.since or received))),
                changed=to_text(now),
                names=len(names),
                audit=wish.audit,
            )
            slot = self._database.new_keys(inner, 1).start
            inner.execute(insert(table).values(**request.__dict__, selector=selector, **self._sealed(slot, wish)))
            told = {name: getattr(request, name) for name in ("regulation", "received", "due", "names")}
            self._ledger.note(inner, "request", {"request": request_id, **told}, now=now)
        return request

    def cancel(self, connection: Connection, request_id: str, *, now: datetime) -> Request:
        """Take back a pending request, in the caller's transaction.

        Raises:
            InputError: there is no such request, or it is no longer pending.
        """
        request = self.require(request_id, connection)
        cancelled = self._move(connection, request, "cancelled", now=now)
        self._forget_names(connection, [request])
        self._database.need_compaction(connection)
        self._ledger.note(connection, "cancelled", {"request": request.id}, now=now)
        return cancelled

    def prepare(self, requests: Iterable[Request]) -> None:
        """Work out ahead of its transaction what `begin` needs for these, so that it holds up others less."""
        pending = [request for request in requests if request.state == "pending"]
        selections = self._database.consistent(lambda connection: self._selected(pending, connection))
        self._records.statistics.prepare(_union(selections).ids)

    def begin(
        self,
        connection: Connection,
        requests: Iterable[Request],
        model: Model | None,
        *,
        now: datetime,
        audit: bool = False,
    ) -> Selection:
        """Delete the records of these requests, in the caller's transaction; they are in progress then.

        Args:
            connection: of the transaction.
            requests: pending or failed ones, as they are in this transaction.
            model: the served generation.
            now: the time.
            audit: audit the model before they are completed, even if they did not ask for it.

        Returns:
            What was selected by all of them.
        """
        every = {request.id: request for request in requests}.values()
        pending = [request for request in every if request.state == "pending"]  # of others, the records are gone
        chosen = dict(zip((one.id for one in pending), self._selected(pending, connection), strict=True))
        everything = _union(chosen.values())
        before = self._before(model, everything.ids)
        self._store(connection, [_begun(one, chosen.get(one.id), before, audit, now) for one in every])
        if pending:
            self._forget_names(connection, pending)
            commitments = self._records.commitments(everything.ids, connection)
            told = {"requests": sorted(chosen), "removed": by_entry(commitments)}
            if everything.ids:
                self._records.delete(connection, everything.ids, subjects=everything.subjects)
            self._database.need_compaction(connection)
            self._ledger.note(connection, "deleted", told, now=now)
        return everything

    def complete(self, request: Request, certificate: Digest, *, now: datetime) -> Request:
        """Note that a request is carried out and certified."""
        with self._database.transaction() as connection:
            told = {"request": request.id, "certificate": certificate}
            self._ledger.note(connection, "completed", told, now=now)
            return self._move(connection, request, "completed", now=now, certificate=certificate)

    def fail(self, request: Request, reason: str, *, now: datetime) -> Request:
        """Note that a request was carried out and its audit found a difference."""
        with self._database.transaction() as connection:
            self._ledger.note(connection, "failed", {"request": request.id}, now=now)
            return self._move(connection, request, "failed", now=now, reason=reason)

    def replay(self, connection: Connection, entries: Iterable[Entry]) -> list[str]:
        """Bring requests to the states that a longer ledger tells of, while their records are still held.

        Args:
            connection: of the caller's transaction.
            entries: those that this workspace did not know.

        Returns:
            Ids of open requests that this workspace does not hold; what they named is lost.
        """
        told = {name: (state, entry) for entry in entries for name, state in _told(entry)}
        lost = []
        for request_id, (state, entry) in sorted(told.items()):
            request = self.get(request_id, connection)
            if request is None or state == "pending":
                lost += [request_id] * (request is None and state not in ("completed", "cancelled"))
                continue
            values = {"state": state, "changed": entry.time, "certificate": entry.body.get("certificate")}
            if request.state == "pending" and state != "cancelled":
                selection = self.selection(request, connection)
                values |= {"records": len(selection.ids), "already_deleted": len(selection.already_deleted)}
            self._forget_names(connection, [request])
            connection.execute(update(table).where(table.c.id == request_id).values(**values))
        return lost

    def _sealed(self, slot: int, wish: RequestDraft) -> dict[str, Any]:
        names = {"ids": sorted(set(wish.ids)), "subjects": sorted(set(wish.subjects))}
        data = json.dumps(names, ensure_ascii=False).encode()
        return {"slot": slot, "sealed_names": self._database.keys.encrypt(slot, "names", data)}

    def _selected(self, requests: Sequence[Request], connection: Connection | None) -> list[Selection]:
        """What each of these selects, by the names that are not forgotten yet."""
        query, ids = select(table.c.id, table.c.slot, table.c.sealed_names), [request.id for request in requests]
        known = query.where(table.c.slot.is_not(None))
        names = dict(self._database.rows(known, table.c.id, ids, self._unsealed, connection))
        return select_each(self._records, [names.get(request_id, Selector()) for request_id in ids])

    def _unsealed(self, row: Any) -> tuple[str, Selector]:
        return row.id, Selector(**json.loads(self._database.keys.decrypt(row.slot, "names", row.sealed_names)))

    def _forget_names(self, connection: Connection, requests: Iterable[Request]) -> None:
        for chunk in chunked(request.id for request in requests):
            mine = table.c.id.in_(chunk)
            slots = connection.execute(select(table.c.slot).where(mine, table.c.slot.is_not(None))).scalars().all()
            self._database.schedule_erasure(connection, slots)
            connection.execute(update(table).where(mine).values(slot=None, sealed_names=None))

    def _before(self, model: Model | None, ids: Sequence[str]) -> Callable[[Selection], ModelSnapshot | None]:
        """What is kept of the model for a request among several, which together select ``ids``."""
        if model is None:
            return lambda _: None
        numbers = model.numbers(self._records.trie_keys(model.partition.key, ids))
        artifacts = tuple(result.artifact for result in model.stages.values())
        common = ModelSnapshot(model.model_digest, model.generation, model.partition.key, artifacts, ())

        def before(selection: Selection) -> ModelSnapshot:
            clusters = {numbers[record_id] for record_id in selection.ids if record_id in numbers}
            return replace(common, clusters=tuple(sorted(clusters)))

        return before

    def _move(
        self, connection: Connection, request: Request, state: State, *, now: datetime, **changes: Any
    ) -> Request:
        after = transition(request, state, now=now, **changes)
        self._store(connection, [after])
        return after

    def _store(self, connection: Connection, requests: Sequence[Request]) -> None:
        """Store requests in their new states."""
        rows = [
            {**one.__dict__, "moved": one.id, "before": one.before.to_json() if one.before else None}
            for one in requests
        ]
        if rows:
            connection.execute(update(table).where(table.c.id == bindparam("moved")), rows)


def _begun(
    request: Request,
    selection: Selection | None,
    before: Callable[[Selection], ModelSnapshot | None],
    audit: bool,
    now: datetime,
) -> Request:
    """A request whose derivation begins; without a selection, its records went when it began first."""
    audited = request.audit or audit
    if selection is None:
        return transition(request, "in_progress", now=now, reason=None, audit=audited)
    counts = {"records": len(selection.ids), "already_deleted": len(selection.already_deleted)}
    return transition(request, "in_progress", now=now, audit=audited, before=before(selection), **counts)


def _told(entry: Entry) -> list[tuple[str, State]]:
    """Requests that an entry tells of, and their state after it."""
    if (state := _STATES.get(entry.kind)) is None:
        return []
    with of_their_kind():
        names = entry.body["requests"] if entry.kind == "deleted" else [entry.body["request"]]
        return [(str(name), state) for name in names]


def _repeated(request: Request, same: bool) -> Request:
    if not same:
        raise InputError(
            "A request's id belongs to one request: repeated, it names the same records and subjects.",
            got=f"{request.id} with other names; nothing was deleted",
            next_step="give another id, or none",
        )
    return request


def _union(selections: Collection[Selection]) -> Selection:
    def merged(name: str) -> tuple[str, ...]:
        return tuple(sorted(set().union(*(getattr(selection, name) for selection in selections))))

    return Selection(merged("ids"), merged("subjects"), merged("already_deleted"))


def _request(row: Any) -> Request:
    values = {name: row._mapping[name] for name in Request.__dataclass_fields__}
    before, certificate = values["before"], values["certificate"]
    values["before"] = None if before is None else ModelSnapshot.of_json(before)
    values["certificate"] = None if certificate is None else Digest(certificate)
    return Request(**values)
