"""Whether a draft repeats the request that was accepted with its id.

Repeating a request is harmless if it says the same. With other content it is an error, because what it names
besides would not be deleted.
"""

from __future__ import annotations

from lmeraser.config.deployment import RequestsConfig
from lmeraser.core.time import from_text, to_text
from lmeraser.errors import RequestConflictError
from lmeraser.workspace.requests.draft import RequestDraft
from lmeraser.workspace.requests.state import Request

_NEXT_STEP = "choose another id, or leave it out to have one made"


def check_repetition(
    request: Request, draft: RequestDraft, config: RequestsConfig, *, same_names: bool, same_reference: bool
) -> None:
    """Refuse a draft that says something else than the request with its id.

    Args:
        request: as it is now.
        draft: with the same id.
        config: the periods in which answers are due.
        same_names: whether both name the same records.
        same_reference: whether the draft has no reference, or the request's.

    Raises:
        RequestConflictError: the request is cancelled, or has other content.
    """
    if request.state == "cancelled":
        raise RequestConflictError(
            "Request id belongs to a cancelled request",
            got=f"{request.id}; nothing was deleted",
            next_step=_NEXT_STEP,
        )
    same = {
        "names": same_names,
        "regulation": draft.regulation == request.regulation,
        "dates": _same_dates(request, draft, config),
        # What is carried out may be audited although its request did not ask for it.
        "audit": draft.audit == request.audit or (request.audit and request.state != "pending"),
        "reference": same_reference,
    }
    others = [what for what, is_same in same.items() if not is_same]
    if others:
        raise RequestConflictError(
            "Request id belongs to a request with other content",
            got=f"{request.id} was accepted with other {', '.join(others)}; nothing was deleted",
            next_step=_NEXT_STEP,
        )


def _same_dates(request: Request, draft: RequestDraft, config: RequestsConfig) -> bool:
    """Whether a draft says of no day something else than the request."""
    received = from_text(request.received)
    if draft.received is not None and to_text(draft.received) != request.received:
        return False
    asked = min(draft.asked or received, received)
    if request.asked is not None:
        return to_text(asked) == request.asked
    # Accepted by a version before 0.2, which stored only what follows from it.
    return to_text(config.due(draft.regulation, asked)) == request.due
