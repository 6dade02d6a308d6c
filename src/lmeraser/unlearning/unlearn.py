"""Unlearning: delete records, derive the model of the rest, remove every byte that came from them, certify it.

Steps, each of which may be interrupted; running `unlearn` or `train` again continues:
1. preflight: the requests name known records, and the backbone loads; nothing has changed so far;
2. in one transaction: accept the request, delete the records of all requests to carry out, with their features,
   keys and clusters, suppress their names, and note it for the ledger; requests that are accepted later stay
   pending;
3. derive the model of the retained records (`update`): clusters whose members did not change are found in the
   store; publish the new generation and purge what only the old one used;
4. audit the model, if a request asks for it;
5. for every request in progress: sign and write its certificate, then mark the request as completed.

Between 2 and 3 the old generation is still served, without the clusters that held the records (quarantine).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from lmeraser.core.digests import Digest
from lmeraser.core.time import from_text
from lmeraser.errors import BackboneError, InputError
from lmeraser.models.manifest import Model
from lmeraser.unlearning.completion import update_and_complete
from lmeraser.unlearning.duplicates import near_duplicates
from lmeraser.unlearning.update import TrainReport
from lmeraser.workspace.certificate_forms import certificate_path
from lmeraser.workspace.requests.draft import RequestDraft
from lmeraser.workspace.requests.selection import Selection, resolve
from lmeraser.workspace.requests.state import Request, State, parse_id
from lmeraser.workspace.session import Session
from lmeraser.workspace.workspace import Workspace


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
        if draft is None:
            workspace.requests.prepare(_open_requests(workspace, only, retry_failed, after_grace))
        near = _near_duplicates(workspace, draft, only)
        served = workspace.generations.current()
        if served is not None:
            _check_backbone(served, session)
        now = workspace.clock()
        with workspace.write_transaction() as connection:
            if draft is not None:
                accepted = workspace.requests.accept(draft, now=now, connection=connection)
                chosen = [_require_not_cancelled(accepted)]
            else:  # looked up again: some may have been accepted or cancelled meanwhile
                chosen = _open_requests(workspace, only, retry_failed, after_grace, connection)
            to_begin = [request for request in chosen if request.state in ("pending", "failed")]
            selection = workspace.requests.begin(
                connection, to_begin, served, now=now, audit=audit, near_duplicates=near
            )
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


def _near_duplicates(workspace: Workspace, draft: RequestDraft | None, only: Sequence[str]) -> dict[str, int]:
    """How many near duplicates each request will leave, by its id; before its records and their features go."""
    if draft is not None:
        assert draft.request_id is not None
        return near_duplicates(workspace, {draft.request_id: resolve(workspace.records, draft.selector).ids})
    wanted = {parse_id(name) for name in only}
    pending = [one for one in workspace.requests.all("pending") if not wanted or one.id in wanted]
    selections = workspace.requests.selections(pending)
    return near_duplicates(workspace, {one.id: each.ids for one, each in zip(pending, selections, strict=True)})


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
    connection: Connection | None = None,
) -> list[Request]:
    requests = workspace.requests
    states: tuple[State, ...] = ("pending", "in_progress")
    if retry_failed:
        states = (*states, "failed")
    if only:
        chosen = [requests.require(name, connection) for name in only]
    else:
        chosen = requests.all(*states, connection=connection)
    if after_grace:
        now = workspace.clock()
        chosen = [request for request in chosen if not request.seconds_to_start(now)]
    if not chosen:
        raise InputError(
            "Nothing to delete",
            got="no record or subject was named, and no request is open",
            next_step="give --id, --subject or --ids-file",
        )
    return [_require_not_cancelled(request) for request in chosen]


def _require_not_cancelled(request: Request) -> Request:
    if request.state == "cancelled":
        raise InputError(
            "Request was cancelled",
            got=f"{request.id}; nothing was deleted",
            next_step="file a new request with another id, or none",
        )
    return request
