"""Changes of deletion requests: accepted, cancelled, extended, begun, completed, failed.

Every change of state is one transaction together with its entry for the ledger. The requests in progress are the
journal: after a crash the next training completes them. Requests can be accepted and cancelled while a model is
derived: the writer takes what is pending when it begins, and the rest stays pending. An id that is given again has
to come with the same request (`repetition`); a completed one is recognised by naming nothing that is still held.
`state` has the rules.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import Connection, bindparam, insert, select, update

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
from lmeraser.evidence.ledger import Ledger
from lmeraser.evidence.reconcile import by_entry
from lmeraser.models.manifest import Model
from lmeraser.storage.database import Database
from lmeraser.workspace.requests.beginning import begin_again, begin_first, duplicates_left, model_snapshots
from lmeraser.workspace.requests.draft import RequestDraft, Selector
from lmeraser.workspace.requests.personal_data import PersonalData
from lmeraser.workspace.requests.repetition import check_repetition
from lmeraser.workspace.requests.repository import Requests
from lmeraser.workspace.requests.selection import Selection, Unknown, held_names, resolve_each
from lmeraser.workspace.requests.state import (
    CancellationReason,
    ExtensionReason,
    Request,
    State,
    parse_extension_reason,
    parse_id,
    parse_regulation,
    transition,
)
from lmeraser.workspace.requests.table import table


class RequestChanges:
    """Changes of the deletion requests of one workspace.

    Args:
        requests: the stored ones.
        database: where they are.
        records: what they delete from.
        ledger: records every change of state.
        secret: key of the digest by which a repeated request is recognised.
        config: the periods in which the answers are due.
    """

    def __init__(
        self,
        requests: Requests,
        database: Database,
        records: Records,
        ledger: Ledger,
        *,
        secret: bytes,
        config: RequestsConfig,
    ) -> None:
        self._requests = requests
        self._database = database
        self._records = records
        self._ledger = ledger
        self._secret = secret
        self._config = config
        self._personal_data = PersonalData(database, config)

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
        with self._database.transaction(connection) as inner:
            accepted_before = self._requests.get(request_id, inner)
            if accepted_before is not None and not draft.selector.empty:
                same_names = self._same_names(inner, accepted_before, draft.selector, unknown)
                return self._repeated(accepted_before, draft, same_names=same_names)
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
            inner.execute(
                insert(table), {**request.__dict__, "selector": draft.selector.digest(self._secret), **personal}
            )
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
        request = self._requests.require(request_id, connection)
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
        request = self._requests.require(request_id, connection)
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
        request = self._requests.require(request_id, connection)
        if request.state != "pending":
            raise InputError("Request is not pending", got=f"{request.id} is {request.state}")
        started = replace(request, starts=to_text(min(now, from_text(request.starts or to_text(now)))))
        self._store(connection, [started])
        return started

    def prepare(self, ids: Iterable[str]) -> dict[str, Selection]:
        """Compute in advance what `begin` needs for requests, so that its transaction blocks others for less time.

        Returns:
            What each of them that is pending selects, by its id.
        """
        pending = [request for request in self._requests.by_id(ids).values() if request.state == "pending"]
        selections = self._requests.selections(pending)
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
        selections = self._requests.selections(pending, connection)
        by_id = {request.id: selection for request, selection in zip(pending, selections, strict=True)}
        together = Selection.union(selections)
        snapshot = model_snapshots(self._records, model, together.ids)
        duplicates = duplicates_left(self._records, connection, by_id, together.ids)
        near = near_duplicates or {}
        begun = [
            begin_first(
                one,
                by_id[one.id],
                snapshot(by_id[one.id]),
                duplicates=duplicates.get(one.id),
                near_duplicates=near.get(one.id),
                audit=audit,
                now=now,
            )
            if one.id in by_id
            else begin_again(one, audit=audit, now=now)
            for one in distinct
        ]
        self._store(connection, begun)
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

    def _repeated(self, request: Request, draft: RequestDraft, *, same_names: bool) -> Request:
        """The request that was accepted with a draft's id, if the draft says the same."""
        compared = request.open and draft.reference  # of a closed request, it may be erased
        same_reference = not compared or self._requests.reference(request.id) == draft.reference
        check_repetition(request, draft, self._config, same_names=same_names, same_reference=same_reference)
        return request

    def _same_names(self, connection: Connection, request: Request, selector: Selector, unknown: Unknown) -> bool:
        """Whether an accepted request was given the names of this selector, as far as is known of it by now."""
        stored = connection.execute(select(table.c.selector).where(table.c.id == request.id)).scalar_one()
        if stored:
            return bool(stored == selector.digest(self._secret))
        return self._all_gone(request.names, selector, unknown)

    def _all_gone(self, names: int, selector: Selector, unknown: Unknown) -> bool:
        """Whether a selector has so many names and none of them is held, as those of a completed request."""
        try:
            held = held_names(self._records, selector, unknown=unknown)
        except UnknownRecordError:
            return False
        return selector.names == names and not resolve_each(self._records, [held])[0].ids

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
