"""Errors as callers get them: problem details (RFC 9457), which never hold anything that a caller sent.

What a person asked to be forgotten must not come back in an error, from where it gets into logs. So a problem has
the rule that was broken and the name of the field, never the value; of lmeraser's own errors it takes the rule,
not what was got. Knows nothing about routes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from lmeraser.errors import (
    ImageError,
    InputError,
    LmeraserError,
    LockedError,
    NoModelError,
    StorageError,
    UnknownRecordError,
)

MEDIA_TYPE = "application/problem+json"
_TITLES = {
    400: "The request cannot be understood",
    401: "A valid key is needed",
    403: "The key may not do this",
    404: "There is nothing of this name",
    405: "This is not done here",
    409: "The request contradicts what is there",
    413: "The request is too large",
    415: "This kind of content is not taken",
    422: "The request cannot be carried out",
    429: "Too many calls",
    500: "Something is wrong with this service",
    503: "Not at the moment",
}
_KINDS: tuple[tuple[type[LmeraserError], int, str], ...] = (
    (UnknownRecordError, 422, "unknown-identity"),
    (ImageError, 422, "image"),
    (InputError, 400, "input"),
    (NoModelError, 503, "no-model"),
    (LockedError, 503, "busy"),
    (StorageError, 503, "storage"),
)
_RETRY = {"Retry-After": "5"}


class Fault(BaseModel):
    """One field that is wrong.

    Attributes:
        where: the field, with positions in lists.
        rule: what has to hold for it.
    """

    where: str
    rule: str


class ProblemDetails(BaseModel):
    """What an error looks like (RFC 9457)."""

    type: str = Field(examples=["urn:lmeraser:problem:unknown-identity"])
    title: str
    status: int
    detail: str
    faults: list[Fault] = []


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """An error that a caller is told of.

    Args:
        status: of HTTP.
        kind: names the problem for programs.
        detail: the rule that was broken, and what to do; nothing that a caller sent.
        faults: single fields that are wrong.
        headers: more of the answer.
    """

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        *,
        faults: Sequence[Fault] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(kind)
        self.status, self.kind, self.detail = status, kind, detail
        self.faults, self.headers = list(faults), dict(headers or {})

    def response(self) -> Response:
        """As an answer."""
        body = ProblemDetails(
            type=f"urn:lmeraser:problem:{self.kind}",
            title=_TITLES.get(self.status, "Refused"),
            status=self.status,
            detail=self.detail,
            faults=self.faults,
        )
        values = body.model_dump(exclude_defaults=True)
        return JSONResponse(values, self.status, headers=self.headers, media_type=MEDIA_TYPE)


def problem_of(error: Exception) -> Problem:
    """What a caller is told of an error."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return invalid(error.errors())
    if isinstance(error, HTTPException):
        kind = {400: "invalid", 404: "not-found", 405: "method"}.get(error.status_code, "http")
        return Problem(error.status_code, kind, "What is answered here: /openapi.json.", headers=error.headers)
    for raised, status, kind in _KINDS:
        if isinstance(error, raised):
            return Problem(status, kind, error.message, headers=_RETRY if status == 503 else None)
    return Problem(500, "internal", "The operator finds more in the log of the service.")


async def answer(request: Request, error: Exception) -> Response:
    """A problem as the handler of exceptions."""
    return problem_of(error).response()


def invalid(errors: Sequence[Any]) -> Problem:
    """What pydantic found wrong, without the values."""
    faults = [Fault(where=_where(error["loc"]), rule=_rule(error)) for error in errors]
    return Problem(400, "invalid", "Every field has the form that /openapi.json describes.", faults=faults)


def _where(location: Sequence[int | str]) -> str:
    """The field; names that a caller may have chosen are left out."""
    return ".".join(str(part) for part in location if isinstance(part, int) or part in _FIELDS) or "(body)"


def _rule(error: Any) -> str:
    """What has to hold; of pydantic's texts only those parts that it was told here."""
    context = error.get("ctx", {})
    if error["type"] == "literal_error":
        return f"one of {context['expected']}"
    limit = next((context[name] for name in _LIMITS if name in context), None)
    return str(error["type"]).replace("_", " ") + (f" ({limit})" if limit is not None else "")


_LIMITS = ("max_length", "min_length", "ge", "le", "gt", "lt")
_FIELDS: set[str] = set()


def knows_fields(model: type[BaseModel]) -> type[BaseModel]:
    """Names of a model's fields may be named in problems."""
    _FIELDS.update(model.model_fields)
    return model


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: these problems, and that there may be others."""
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    content = {"content": {MEDIA_TYPE: {"schema": schema}}}
    found: dict[int | str, dict[str, Any]] = {s: {"description": _TITLES[s], **content} for s in statuses}
    return {**found, "default": {"description": "Any other problem", **content}}
