"""Unlearning: delete records, derive the model of the rest, remove every byte that came from them, certify it.

Steps, each of which may be interrupted; running `unlearn` or `train` again continues:
1. preflight: the requests name known records, and the backbone loads; nothing has changed so far;
2. in one transaction: accept the request, delete its records with their features, keys and clusters, suppress
   their names, and note it for the ledger. Requests that were accepted before are begun in short transactions,
   some in each, because whoever accepts others waits for them; requests that are accepted later stay pending;
3. derive the model of the retained records (`update`): clusters whose members did not change are found in the
   store; publish the new generation and purge what only the old one used;
4. audit the model, if a request asks for it;
5. for every request in progress: sign and write its certificate, then mark the request as completed.

Between 2 and 3 the old generation is still served, without the clusters that held the records (quarantine).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from lmeraser.core.digests import Digest
from lmeraser.core.thread_priority import run_with_lower_priority
from lmeraser.core.time import from_text
from lmeraser.errors import BackboneError, InputError
from lmeraser.models.manifest import Model
from lmeraser.pipeline.early_head import EarlyHead
from lmeraser.unlearning.completion import update_and_complete
from lmeraser.unlearning.duplicates import near_duplicates
from lmeraser.unlearning.update import TrainReport
from lmeraser.workspace.certificate_forms import certificate_path
from lmeraser.workspace.purge import take_tidy
from lmeraser.workspace.requests.draft import RequestDraft
from lmeraser.workspace.requests.selection import Selection, resolve
from lmeraser.workspace.requests.state import Request, State, parse_id
from lmeraser.workspace.session import Session
from lmeraser.workspace.workspace import Workspace

T = TypeVar("T")

_TO_BEGIN: tuple[State, ...] = ("pending", "failed")
_TOGETHER = 50  # requests that are begun in one transaction, which blocks others that accept some


@dataclass(frozen=True)
class UnlearnReport:
    """What an unlearning did.

    Attributes:
        selection: the records that were deleted.
        digest_before: digest of the model before, if there was one.
        training: the derivation on the retained records; None before the first training.
        requests: the requests that were carried out, as they are now.
        certificates: files that were written.
        seconds: from the request to the new generation and the end of the purge.
    """

    selection: Selection
    digest_before: Digest | None
    training: TrainReport | None
    seconds: float
    requests: tuple[Request, ...] = ()
    certificates: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return {
            "requests": {request.id: request.state for request in self.requests},
            "records_deleted": len(self.selection.ids),
            "already_deleted": len(self.selection.already_deleted),
            "duplicates": _sum(request.duplicates for request in self.requests),
            "near_duplicates": _sum(request.near_duplicates for request in self.requests),
            "late": [request.id for request in self.requests if request.late(from_text(request.changed))],
            "model_digest_before": self.digest_before,
            **(self.training.to_json() if self.training else {}),
            "certificates": list(self.certificates),
            "seconds": round(self.seconds, 3),
        }


def _sum(counts: Iterable[int | None]) -> int | None:
    """The sum of counts; None if nothing was counted. Records that several requests leave are counted for each."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def unlearn(
    session: Session,
    draft: RequestDraft | None = None,
    *,
    only: Sequence[str] = (),
    audit: bool = False,
    retry_failed: bool = True,
    after_grace: bool = False,
) -> UnlearnReport:
    """Unlearn records exactly: the next model is the one that training without them gives.

    Args:
        session: the workspace, and what runs the stages.
        draft: a request to accept and carry out; None: carry out requests that were accepted before.
        only: ids of accepted requests to carry out; empty: all open ones.
        audit: audit the model before the requests are completed.
        retry_failed: whether requests whose audit failed are open, too.
        after_grace: leave requests pending that may still be taken back (`Request.starts`).

    Raises:
        UnknownRecordError: the workspace never held some of the names; nothing was deleted.
        BackboneError: the backbone cannot be loaded, or has changed; nothing was deleted.
        InputError: there is nothing to carry out.
    """
    started = time.perf_counter()
    workspace = session.workspace
    if draft is not None and draft.request_id is None:
        draft = replace(draft, request_id=str(uuid.uuid4()))
    with workspace.writing("unlearn"):
        look = partial(_open_requests, workspace, only, retry_failed, after_grace)
        if draft is None:
            _require_some([_require_not_cancelled(request) for request in look()])
        else:
            named = resolve(workspace.records, draft.selector)
        served = workspace.generations.current()
        if served is not None:
            _check_backbone(served, session)
        if draft is not None:
            with _early_head(workspace, served) as early_head:
                # The next head is solved for from here on, on another thread.
                workspace.records.statistics.prepare_exclusion(named.ids)
                chosen, selection, tidy = _accept_and_begin(workspace, draft, named, served, audit)
                completion = update_and_complete(session, early_head=early_head, tidy=tidy)
        else:
            chosen, selection = _begin_all(workspace, look, served, audit)
            completion = update_and_complete(session)
        now_stored = workspace.requests.by_id(request.id for request in chosen)
        requests = tuple(now_stored[request.id] for request in chosen)
    completed = [request for request in requests if request.state == "completed"]
    return UnlearnReport(
        selection=selection,
        digest_before=served.model_digest if served else None,
        training=completion.training,
        seconds=time.perf_counter() - started,
        requests=requests,
        certificates=tuple(str(certificate_path(workspace, request)) for request in completed),
    )


@contextmanager
def _early_head(workspace: Workspace, served: Model | None) -> Iterator[EarlyHead | None]:
    """What solves for the next global head while records are being deleted, if there will be one."""
    config = workspace.config
    if served is None or not config.needs_statistics or config.global_head.weight == 0:
        yield None
        return
    with (
        EarlyHead(config.global_head, len(workspace.records.classes)) as early_head,
        workspace.records.statistics.announcing(early_head.announce),
    ):
        yield early_head


def _accept_and_begin(
    workspace: Workspace, draft: RequestDraft, named: Selection, served: Model | None, audit: bool
) -> tuple[list[Request], Selection, bool]:
    """Accept a request and delete its records in one transaction; what is known then, too (`take_tidy`)."""
    assert draft.request_id is not None
    near = near_duplicates(workspace, {draft.request_id: named.ids})
    now = workspace.clock()
    with workspace.write_transaction() as connection:
        request = _require_not_cancelled(workspace.request_changes.accept(draft, now=now, connection=connection))
        to_begin = [request] if request.state in _TO_BEGIN else []
        selection = workspace.request_changes.begin(
            connection, to_begin, served, now=now, audit=audit, near_duplicates=near
        )
        return [request], selection, take_tidy(workspace, served, connection)


def _begin_all(
    workspace: Workspace, look: Callable[[], list[Request]], served: Model | None, audit: bool
) -> tuple[list[Request], Selection]:
    """Delete the records of open requests, in short transactions.

    Args:
        workspace: held for writing.
        look: the requests to carry out.
        served: the served generation.
        audit: as in `unlearn`.

    Returns:
        The requests, and what they select together.
    """
    chosen = dict[str, Request]()
    selections = list[Selection]()
    left: dict[str, frozenset[str]] = {}
    for _ in range(2):  # again for what was accepted before the first began, but not for all that comes meanwhile
        found = [request for request in look() if request.id not in chosen and request.state != "cancelled"]
        chosen |= {request.id: request for request in found if request.state not in _TO_BEGIN}
        to_begin = [request.id for request in found if request.state in _TO_BEGIN]
        prepared = _yielding(workspace, partial(workspace.request_changes.prepare, to_begin))
        if len(to_begin) > _TOGETHER:
            _exclude_together(workspace, prepared)
        for start in range(0, len(to_begin), _TOGETHER):
            ids = to_begin[start : start + _TOGETHER]
            near = _yielding(workspace, partial(_near_duplicates, workspace, ids, prepared))
            now = workspace.clock()
            with workspace.write_transaction() as connection:
                stored = workspace.requests.by_id(ids, connection)  # again: some may have been cancelled since
                begun = [stored[each] for each in ids if stored[each].state in _TO_BEGIN]
                options: dict[str, Any] = {"audit": audit, "near_duplicates": near, "left": left}
                selections.append(workspace.request_changes.begin(connection, begun, served, now=now, **options))
            chosen |= {request.id: request for request in begun}
    _require_some(chosen)
    together = Selection.union(selections)
    deleted_now = {*together.ids, *together.subjects}  # perhaps just before another request that names them, too
    already_deleted = tuple(name for name in together.already_deleted if name not in deleted_now)
    return list(chosen.values()), replace(together, already_deleted=already_deleted)


def _exclude_together(workspace: Workspace, selections: Mapping[str, Selection]) -> None:
    """Exclude the records of many requests from the statistics at once, before any of these is begun.

    A version of wide statistics for each part of them would take longer than all the rest. If the requests are not
    begun after this, their records are included again by the next training, as those that were just added.
    """
    with workspace.write_transaction() as connection:
        stored = workspace.requests.by_id(selections, connection)
        pending = [each for name, each in selections.items() if stored[name].state == "pending"]
        workspace.records.statistics.exclude(connection, Selection.union(pending).ids)


def _near_duplicates(
    workspace: Workspace, ids: Sequence[str], selections: Mapping[str, Selection]
) -> dict[str, int]:
    """How many near duplicates each request will leave, by its id; before its records and their features go."""
    return near_duplicates(workspace, {each: selections[each].ids for each in ids if each in selections})


def _yielding(workspace: Workspace, compute: Callable[[], T]) -> T:
    """The result of what is computed before a transaction, while others may have the processor."""
    return run_with_lower_priority(compute, workspace.config.compute.nice)


def _check_backbone(served: Model, session: Session) -> None:
    """Refuse a backbone whose files were exchanged: the next model would be another one for every record.

    Where clusters are tuned it is loaded now, because it will be needed, and what cannot be loaded is to be found
    before anything is deleted.
    """
    config = session.workspace.config
    if config.constituent.kind != "none":
        session.executors.load()
    found = session.executors.for_training().backbone
    if served.matches(config) and found != served.backbone:
        raise BackboneError(
            "The backbone is not the one that the model was trained on",
            got=f"{served.backbone_name} has {found.short}, the model was trained on {served.backbone.short}; "
            "nothing was deleted",
            next_step="restore the backbone's files, or run 'lmeraser train' to use these from now on",
        )


def _open_requests(
    workspace: Workspace,
    only: Sequence[str],
    retry_failed: bool,
    after_grace: bool,
) -> list[Request]:
    requests = workspace.requests
    states: tuple[State, ...] = ("pending", "in_progress")
    if retry_failed:
        states = (*states, "failed")
    if only:
        chosen = [requests.require(name) for name in dict.fromkeys(map(parse_id, only))]
    else:
        chosen = requests.all(*states)
    if after_grace:
        now = workspace.clock()
        chosen = [request for request in chosen if not request.seconds_to_start(now)]
    return chosen


def _require_some(requests: Collection[Any]) -> None:
    if not requests:
        raise InputError(
            "Nothing to delete",
            got="no record or subject was named, and no request is open",
            next_step="give --id, --subject or --ids-file",
        )


def _require_not_cancelled(request: Request) -> Request:
    if request.state == "cancelled":
        raise InputError(
            "Request was cancelled",
            got=f"{request.id}; nothing was deleted",
            next_step="file a new request with another id, or none",
        )
    return request
