"""Deletion requests in the database: what is stored of them, and their changes of state.

Every change of state is one transaction together with its entry for the ledger. The requests in progress are the
journal: after a crash the next training completes them. Requests can be accepted and cancelled while a model is
derived: the writer takes what is pending when it begins, and the rest stays pending. An id that is given again has
to come with the same request (`repetition`); a completed one is recognised by naming nothing that is still held.
`state` has the rules, `personal_data` what requests hold of people, and until when.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import Connection, bindparam, func, insert, select, update

from lmeraser.config.deployment import RequestsConfig
from lmeraser.core.digests import Digest
from lmeraser.core.time import from_text, to_text
from lmeraser.data.records import Records
from lmeraser.errors import InputError, UnknownRecordError
from lmeraser.evidence.entries import (
    RecordsDeleted,
    RequestAccepted,
    RequestCancelled,
    RequestCompleted,
    RequestExtended,
    RequestFailed,
)
from lmeraser.evidence.hash_chain import Entry, LedgerHead
from lmeraser.evidence.ledger import Ledger
from lmeraser.evidence.reconcile import by_entry
from lmeraser.models.manifest import Model
from lmeraser.storage.database import Database
from lmeraser.workspace.requests.draft import RequestDraft, Selector
from lmeraser.workspace.requests.listing import VIEWS, Order, View, in_order, in_view
from lmeraser.workspace.requests.personal_data import PersonalData
from lmeraser.workspace.requests.repetition import check_repetition
from lmeraser.workspace.requests.selection import Selection, Unknown, held_names, resolve_each
from lmeraser.workspace.requests.state import (
    CancellationReason,
    ExtensionReason,
    ModelSnapshot,
    Regulation,
    Request,
    State,
    parse_extension_reason,
    parse_id,
    parse_regulation,
    seconds_until,
    transition,
)
from lmeraser.workspace.requests.table import request_of, table

_BY_ID = select(table).where(table.c.id == bindparam("wanted"))  # to build it takes longer than to run it


class Requests:
    """The deletion requests of one workspace.

    Args:
        database: where they are.
        records: what they delete from.
        ledger: records every change of state.
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

    @property
    def _personal_data(self) -> PersonalData:
        return PersonalData(self._database, self._config)

    # --- reading ---------------------------------------------------------------------------------------

    def all(self, *states: State, connection: Connection | None = None) -> list[Request]:
        """The requests in these states (or all), the earliest due first."""
        query = select(table).order_by(table.c.due, table.c.id)
        if states:
            query = query.where(table.c.state.in_(states))
        with self._database.reading(connection) as inner:
            return [request_of(row) for row in inner.execute(query)]

    def listed(
        self,
        now: datetime,
        view: View = "all",
        *,
        regulation: Regulation | Literal[""] = "",
        states: Collection[State] = (),
        order: Order = "due",
        offset: int = 0,
        limit: int | None = None,
    ) -> tuple[int, list[Request]]:
        """A part of the list of requests.

        Args:
            now: the time.
            view: only requests that belong to it.
            regulation: only requests under this law; '': any.
            states: only requests in one of these; none: any.
            order: of the list.
            offset: how many to leave out at its beginning.
            limit: how many to return at most; None: all others.

        Returns:
            How many requests the whole list has, and those of the part.
        """
        conditions = [in_view(view, now)]
        if regulation:
            conditions.append(table.c.regulation == regulation)
        if states:
            conditions.append(table.c.state.in_(states))
        part = select(table).where(*conditions).order_by(*in_order(order)).offset(offset).limit(limit)
        with self._database.reading() as connection:
            total = connection.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one()
            return total, [request_of(row) for row in connection.execute(part)]

    def counts(self, now: datetime) -> dict[View, int]:
        """How many requests belong to each view."""
        counts = [func.count().filter(in_view(view, now)).label(view) for view in VIEWS]
        with self._database.reading() as connection:
            row = connection.execute(select(*counts).select_from(table)).one()
        return dict(zip(VIEWS, row, strict=True))

    def states_to_start(self, now: datetime) -> set[State]:
        """The states among `pending` and `in_progress` of the requests whose grace period is over.

        As `Request.seconds_to_start` says, for all requests at once and without reading them.
        """
        starts = func.min(func.coalesce(table.c.starts, ""))
        query = select(table.c.state, starts.label("starts")).group_by(table.c.state)
        with self._database.reading() as connection:
            rows = connection.execute(query.where(table.c.state.in_(("pending", "in_progress")))).all()
        return {row.state for row in rows if row.state != "pending" or not seconds_until(row.starts, now)}

    def by_id(self, ids: Iterable[str], connection: Connection | None = None) -> dict[str, Request]:
        """The requests with these ids, by their ids."""
        found = self._database.fetch_where_in(select(table), table.c.id, list(ids), request_of, connection)
        return {one.id: one for one in found}

    def get(self, request_id: str, connection: Connection | None = None) -> Request | None:
        """One request, or None."""
        with self._database.reading(connection) as inner:
            row = inner.execute(_BY_ID, {"wanted": request_id}).one_or_none()
        return request_of(row) if row is not None else None

    def with_ledger(self, *, head: LedgerHead | None = None) -> tuple[list[Request], list[Entry]]:
        """All requests and all entries of the ledger, checked, of one moment.

        Args:
            head: exported earlier; the ledger has to contain it.

        Raises:
            VerificationError: the ledger is broken.
            StorageError: the file cannot be read.
        """
        requests = self.all()
        while True:
            entries = self._ledger.entries(head=head)
            before, requests = requests, self.all()
            if before == requests:  # every change of one is a change of the other
                return requests, entries

    def require(self, request_id: str, connection: Connection | None = None) -> Request:
        """One request.

        Raises:
            InputError: there is none with this id.
        """
        request = self.get(parse_id(request_id), connection)
        if request is None:
            raise InputError("Request not found", got=request_id, next_step="'lmeraser requests' lists them")
        return request

    def reference(self, request_id: str) -> str | None:
        """The desk's reference of a request, if it was given one and it is not erased yet."""
        return self._personal_data.reference(request_id)

    def references(self) -> dict[str, str]:
        """All references that are not erased yet, by the ids of their requests."""
        return self._personal_data.references()

    def selection(self, request: Request, connection: Connection | None = None) -> Selection:
        """The records that a pending request selects now."""
        return self._selections([request], connection)[0]

    def selections(self, requests: Sequence[Request]) -> list[Selection]:
        """The records that each of these requests selects now, read in one state of the database."""
        return self._database.read_consistently(lambda connection: self._selections(requests, connection))

    def pending_selection(self) -> Selection:
        """The records that all pending requests together select now."""

        def read(connection: Connection) -> Selection:
            return Selection.union(self._selections(self.all("pending", connection=connection), connection))

        return self._database.read_consistently(read)

    # --- changing --------------------------------------------------------------------------------------

    def accept(
        self,
        draft: RequestDraft,
        *,
        now: datetime,
        connection: Connection | None = None,
        unknown: Unknown = "explain",
    ) -> Request:
        """Accept a request; it is pending then. If it was accepted before, with the same id, nothing changes.

        Args:
            draft: the request.
            now: the time.
            connection: of the caller's transaction; None: one of its own.
            unknown: what to do about names that mean nothing here (`held_names`).

        Returns:
            The request, in the state that it has by now.

        Raises:
            InputError: it names nothing, its times cannot be meant, or its id is not a UUID.
            RequestConflictError: its id belongs to a request with other content, or to a cancelled one.
            UnknownRecordError: it names records or subjects that were never here.
        """
        request_id = str(uuid.uuid4()) if draft.request_id is None else parse_id(draft.request_id)
        parse_regulation(draft.regulation)
        digest = draft.selector.digest(self._secret)
        with self._database.transaction(connection) as inner:
            row = inner.execute(_BY_ID, {"wanted": request_id}).one_or_none()
            if row is not None and not draft.selector.empty:
                same = (
                    row.selector == digest if row.selector else self._all_gone(row.names, draft.selector, unknown)
                )
                return self._repeated(request_of(row), draft, same_names=same)
            draft.check_times(now=now)
            draft.check_reference()
            held = held_names(self._records, draft.selector, unknown=unknown)
            selection = resolve_each(self._records, [held])[0]
            selector = replace(held, known_duplicates=selection.duplicates)
            request = Request(
                id=request_id,
                regulation=draft.regulation,
                state="pending",
                received=to_text(draft.received_at(now=now)),
                due=to_text(draft.due(self._config, now=now)),
                changed=to_text(now),
                names=draft.selector.names,
                audit=draft.audit,
                asked=to_text(draft.asked_at(now=now)),
                starts=to_text(now + draft.grace),
                filed_by=draft.by,
            )
            personal = self._personal_data.encrypted(inner, selector, draft.reference)
            inner.execute(insert(table), {**request.__dict__, "selector": digest, **personal})
            accepted = RequestAccepted(
                request=request_id,
                regulation=request.regulation,
                received=request.received,
                due=request.due,
                names=request.names,
                by=request.filed_by,
            )
            self._ledger.note(inner, accepted, now=now)
        return request

    def cancel(
        self,
        connection: Connection,
        request_id: str,
        *,
        now: datetime,
        reason: CancellationReason | None = None,
        by: str | None = None,
    ) -> Request:
        """Cancel a pending request, in the caller's transaction.

        Args:
            connection: of the transaction.
            request_id: of the request.
            now: the time.
            reason: why, for the ledger.
            by: id of the API key that cancels it; None: a command.

        Raises:
            InputError: there is no such request, or it is no longer pending.
        """
        request = self.require(request_id, connection)
        cancelled = self._move(connection, request, "cancelled", now=now, cancel_reason=reason)
        self._personal_data.forget_names(connection, [request])
        self._personal_data.close(connection, [request])
        self._ledger.note(connection, RequestCancelled(request=request.id, reason=reason, by=by), now=now)
        return cancelled

    def extend(
        self,
        connection: Connection,
        request_id: str,
        reason: str,
        *,
        now: datetime,
        by: str | None = None,
    ) -> Request:
        """Extend the time for the answer to an open request as its law allows, in the caller's transaction.

        Args:
            connection: of the transaction.
            request_id: of the request.
            reason: why, one of `ExtensionReason`; the law asks for it, and the ledger keeps it.
            now: the time.
            by: id of the API key that extends it; None: a command.

        Raises:
            InputError: there is no such request, it is closed, late or extended already, or the reason is none.
        """
        request = self.require(request_id, connection)
        why = parse_extension_reason(reason, request.regulation)
        refusals = {
            "it is closed": not request.open,
            "it was extended before, which the law allows once": request.extended is not None,
            "it is late; the law allows an extension only before the answer is due": request.late(now),
        }
        for refusal, refused in refusals.items():
            if refused:
                raise InputError("Request cannot be extended", got=f"{request.id}: {refusal}")
        due = self._config.extended_due(request.regulation, from_text(request.asked or request.received))
        event = RequestExtended(request=request.id, due=to_text(due), reason=why, by=by)
        self._ledger.note(connection, event, now=now)
        return self.note_extension(connection, request, event, at=to_text(now))

    def note_extension(
        self, connection: Connection, request: Request, event: RequestExtended, *, at: str
    ) -> Request:
        """Store an extension that the ledger records; returns the request with it."""
        known: tuple[ExtensionReason, ...] = get_args(ExtensionReason)
        reason = next((one for one in known if one == event.reason), None)  # a newer version may know others
        extended = replace(request, due=event.due, extended=at, extension_reason=reason)
        self._store(connection, [extended])
        return extended

    def start_now(self, connection: Connection, request_id: str, *, now: datetime) -> Request:
        """End the grace period of a pending request, in the caller's transaction.

        Raises:
            InputError: there is no such request, or it is not pending.
        """
        request = self.require(request_id, connection)
        if request.state != "pending":
            raise InputError("Request is not pending", got=f"{request.id} is {request.state}")
        started = replace(request, starts=to_text(min(now, from_text(request.starts or to_text(now)))))
        self._store(connection, [started])
        return started

    def forget_expired_references(self, *, now: datetime) -> bool:
        """Erase references that were kept long enough. See `PersonalData.forget_expired_references`."""
        return self._personal_data.forget_expired_references(now=now)

    def prepare(self, ids: Iterable[str]) -> dict[str, Selection]:
        """Compute in advance what `begin` needs for requests, so that its transaction blocks others for less time.

        Returns:
            What each of them that is pending selects, by its id.
        """
        pending = [request for request in self.by_id(ids).values() if request.state == "pending"]
        selections = self.selections(pending)
        self._records.statistics.prepare_exclusion(Selection.union(selections).ids)
        return {request.id: selection for request, selection in zip(pending, selections, strict=True)}

    def begin(
        self,
        connection: Connection,
        requests: Iterable[Request],
        model: Model | None,
        *,
        now: datetime,
        audit: bool = False,
        near_duplicates: Mapping[str, int] | None = None,
        left: dict[str, frozenset[str]] | None = None,
    ) -> Selection:
        """Delete the records of these requests, in the caller's transaction; they are in progress then.

        Args:
            connection: of the transaction.
            requests: pending or failed ones, as they are in this transaction.
            model: the served generation.
            now: the time.
            audit: audit the model before they are completed, even if they did not ask for it.
            near_duplicates: how many near duplicates each request leaves, by its id, where they were counted.
            left: for requests that one derivation begins in several transactions: the duplicates that those begun
                so far leave, by their ids. What this one deletes of them is left no longer; its own are added.

        Returns:
            What they select together.
        """
        distinct = {request.id: request for request in requests}.values()
        pending = [request for request in distinct if request.state == "pending"]  # records of others are gone
        selections = self._selections(pending, connection)
        by_id = {request.id: selection for request, selection in zip(pending, selections, strict=True)}
        together = Selection.union(selections)
        snapshot = self._snapshots(model, together.ids)
        duplicates = self._duplicates_left(connection, by_id, together.ids)
        begun = [_begin_one(one, by_id.get(one.id), snapshot, audit, now) for one in distinct]
        near = near_duplicates or {}
        counted = [
            replace(one, duplicates=_count(duplicates.get(one.id)), near_duplicates=near.get(one.id))
            if one.id in by_id
            else one
            for one in begun
        ]
        self._store(connection, counted)
        if left is not None:
            self._store_fewer_duplicates(connection, left, together.ids)
            left |= duplicates
        if pending:
            self._personal_data.forget_names(connection, pending)
            commitments = self._records.commitments.by_entry(together.ids, connection)
            deleted = RecordsDeleted(requests=tuple(sorted(by_id)), removed=by_entry(commitments))
            if together.ids:
                self._records.delete(connection, together.ids, subjects=together.subjects)
            self._database.mark_compaction_due(connection)
            self._ledger.note(connection, deleted, now=now)
        return together

    def complete(
        self, connection: Connection, certified: Sequence[tuple[Request, Digest]], *, now: datetime
    ) -> list[Request]:
        """Note that these requests are carried out and certified, in the caller's transaction.

        Args:
            connection: of the transaction.
            certified: each request with the digest of its certificate.
            now: the time.

        Returns:
            The requests as they are now.
        """
        requests = [request for request, _ in certified]
        completed = [
            transition(request, "completed", now=now, certificate=certificate, before=None)
            for request, certificate in certified
        ]
        events = [RequestCompleted(request=request.id, certificate=digest) for request, digest in certified]
        self._ledger.note_all(connection, events, now=now)
        self._personal_data.close(connection, requests)
        self._store(connection, completed)
        return completed

    def fail(self, request: Request, reason: str, *, now: datetime) -> Request:
        """Note that a request was carried out and its audit found a difference."""
        with self._database.transaction() as connection:
            self._ledger.note(connection, RequestFailed(request=request.id), now=now)
            return self._move(connection, request, "failed", now=now, reason=reason)

    def overwrite(self, connection: Connection, request: Request) -> None:
        """Store a request as a longer ledger records it, whatever its state was here, and forget its names.

        Args:
            connection: of the caller's transaction.
            request: one that this workspace holds, in the state that it gets; it is no longer pending.
        """
        self._personal_data.forget_names(connection, [request])
        if not request.open:
            self._personal_data.close(connection, [request])
            request = replace(request, before=None)
        self._store(connection, [request])

    def _selections(self, requests: Sequence[Request], connection: Connection | None) -> list[Selection]:
        """What each of these selects, by the names that are not forgotten yet."""
        selectors = self._personal_data.selectors([request.id for request in requests], connection)
        return resolve_each(self._records, selectors)

    def _repeated(self, request: Request, draft: RequestDraft, *, same_names: bool) -> Request:
        """The request that was accepted with a draft's id, if the draft says the same."""
        compared = request.open and draft.reference  # of a closed request, it may be erased
        same_reference = not compared or self.reference(request.id) == draft.reference
        check_repetition(request, draft, self._config, same_names=same_names, same_reference=same_reference)
        return request

    def _all_gone(self, names: int, selector: Selector, unknown: Unknown) -> bool:
        """Whether a selector has so many names and none of them is held, as those of a completed request."""
        try:
            held = held_names(self._records, selector, unknown=unknown)
        except UnknownRecordError:
            return False
        return selector.names == names and not resolve_each(self._records, [held])[0].ids

    def _snapshots(self, model: Model | None, ids: Sequence[str]) -> Callable[[Selection], ModelSnapshot | None]:
        """Takes the snapshot of the model for each of several requests, which together select ``ids``."""
        if model is None:
            return lambda _: None
        numbers = model.cluster_numbers(self._records.derived.trie_keys(model.partition.key, ids))
        stages = () if model.pages else model.stages.values()  # else its manifest is kept: `ModelSnapshot`
        artifacts = tuple(result.artifact for result in stages)
        common = ModelSnapshot(
            model.model_digest, model.generation, model.partition.key, artifacts, (), model.public_digest
        )

        def snapshot(selection: Selection) -> ModelSnapshot:
            clusters = {numbers[record_id] for record_id in selection.ids if record_id in numbers}
            return replace(common, clusters=tuple(sorted(clusters)))

        return snapshot

    def _duplicates_left(
        self, connection: Connection, selections: Mapping[str, Selection], ids: Sequence[str]
    ) -> dict[str, frozenset[str]]:
        """The records left with the payloads of each of several requests, which together delete ``ids``.

        Without requests whose records are gone: what they held is not known any more.
        """
        duplicates = self._records.duplicates(ids, connection)
        return {
            request_id: frozenset().union(*(duplicates.get(i, ()) for i in selection.ids)).difference(ids)
            for request_id, selection in selections.items()
            if selection.ids
        }

    def _store_fewer_duplicates(
        self, connection: Connection, left: dict[str, frozenset[str]], deleted: Sequence[str]
    ) -> None:
        """Store how many duplicates requests that were begun before leave, now that these records go, too."""
        fewer = {
            request_id: remaining
            for request_id, duplicates in left.items()
            if len(remaining := duplicates.difference(deleted)) < len(duplicates)
        }
        left |= fewer
        changed = [{"stored_id": each, "left": len(remaining)} for each, remaining in fewer.items()]
        if changed:
            counted = update(table).where(table.c.id == bindparam("stored_id"))
            connection.execute(counted.values(duplicates=bindparam("left")), changed)

    def _move(
        self, connection: Connection, request: Request, state: State, *, now: datetime, **changes: Any
    ) -> Request:
        after = transition(request, state, now=now, **changes)
        self._store(connection, [after])
        return after

    def _store(self, connection: Connection, requests: Sequence[Request]) -> None:
        """Store requests in their new states."""
        rows = [
            {**one.__dict__, "stored_id": one.id, "before": one.before.to_json() if one.before else None}
            for one in requests
        ]
        if rows:
            connection.execute(update(table).where(table.c.id == bindparam("stored_id")), rows)


def _begin_one(
    request: Request,
    selection: Selection | None,
    snapshot: Callable[[Selection], ModelSnapshot | None],
    audit: bool,
    now: datetime,
) -> Request:
    """A request whose derivation begins; without a selection, its records were deleted when it began before."""
    audited = request.audit or audit
    if selection is None:
        return transition(request, "in_progress", now=now, reason=None, audit=audited)
    counts = {"records": len(selection.ids), "already_deleted": len(selection.already_deleted)}
    return transition(request, "in_progress", now=now, audit=audited, before=snapshot(selection), **counts)


def _count(duplicates: frozenset[str] | None) -> int | None:
    return None if duplicates is None else len(duplicates)
