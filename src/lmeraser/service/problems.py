"""Error responses as problem details (RFC 9457), which never contain anything that a caller sent.

What a person wants forgotten must not come back in an error, from where it would get into logs. A problem
therefore says what is wrong and with which field, never the value; from lmeraser's own errors it takes the
message, not the value got. Knows nothing about routes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, computed_field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from lmeraser.errors import (
    AmbiguousNameError,
    ImageError,
    InputError,
    LmeraserError,
    LockedError,
    NoModelError,
    RequestConflictError,
    StorageError,
    UnknownRecordError,
)

MAX_FAULTS = 20  # in a problem; a caller may make any number of them
MEDIA_TYPE = "application/problem+json"
_TITLES = {
    400: "Invalid request",
    401: "Valid API key required",
    403: "Permission denied",
    404: "Not found",
    405: "Method not allowed",
    408: "Request took too long to arrive",
    409: "Conflict with the current state",
    413: "Content too large",
    415: "Content type not supported",
    422: "Request cannot be processed",
    429: "Rate limit exceeded",
    500: "Internal server error",
    503: "Service temporarily unavailable",
}
_PROBLEMS_OF_ERRORS: tuple[tuple[type[LmeraserError], int, str], ...] = (
    (UnknownRecordError, 422, "unknown-identity"),
    (AmbiguousNameError, 422, "ambiguous-identity"),
    (RequestConflictError, 409, "request-conflict"),
    (ImageError, 422, "image"),
    (InputError, 400, "input"),
    (NoModelError, 503, "no-model"),
    (LockedError, 503, "busy"),
    (StorageError, 503, "storage"),
)
_RETRY = {"Retry-After": "5"}


class Fault(BaseModel):
    """One invalid field.

    Attributes:
        where: path of the field, with the positions in lists.
        message: what is wrong with it, without its value.
    """

    where: str = Field(description="Path of the field, with positions in lists.")
    message: str = Field(description="What is wrong with the field.")

    # Not `deprecated=True`, with which pydantic would warn whenever it serialises the field itself.
    @computed_field(  # type: ignore[prop-decorator]
        description="Deprecated, removed in the next release: use `message`.",
        json_schema_extra={"deprecated": True},
    )
    @property
    def rule(self) -> str:
        """The name of ``message`` in 0.1, kept for one release."""
        return self.message


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(examples=["urn:lmeraser:problem:unknown-identity"])
    title: str
    status: int
    detail: str
    faults: list[Fault] = []


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """An error that is returned to the caller.

    Args:
        status: HTTP status code.
        kind: identifies the problem for programs.
        detail: what is wrong and what to do; nothing that a caller sent.
        faults: invalid fields.
        headers: additional headers of the response.
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
        self.status = status
        self.kind = kind
        self.detail = detail
        self.faults = list(faults)[:MAX_FAULTS]
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The problem as an HTTP response."""
        details = ProblemDetails(
            type=f"urn:lmeraser:problem:{self.kind}",
            title=_TITLES.get(self.status, "Request failed"),
            status=self.status,
            detail=self.detail,
            faults=self.faults,
        )
        body = details.model_dump(exclude_defaults=True)
        return JSONResponse(body, self.status, headers=self.headers, media_type=MEDIA_TYPE)


def problem_of(error: Exception) -> Problem:
    """The problem that is returned for an exception."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, RequestValidationError):
        return invalid(error.errors())
    if isinstance(error, HTTPException):
        kind = {400: "invalid", 404: "not-found", 405: "method"}.get(error.status_code, "http")
        detail = "/openapi.json describes the available routes and methods"
        return Problem(error.status_code, kind, detail, headers=error.headers)
    for error_type, status, kind in _PROBLEMS_OF_ERRORS:
        if isinstance(error, error_type):
            return Problem(status, kind, error.message, headers=_RETRY if status == 503 else None)
    return Problem(500, "internal", "Unexpected error; the service's log has more for its operator")


async def handle_exception(request: Request, error: Exception) -> Response:
    """The exception handler of the application."""
    return problem_of(error).response()


def invalid(errors: Sequence[Any]) -> Problem:
    """The problem for pydantic's validation errors, without the values."""
    faults = [Fault(where=_path(error["loc"]), message=_message(error)) for error in errors[:MAX_FAULTS]]
    more = f"; the first {MAX_FAULTS} faults are listed" if len(errors) > MAX_FAULTS else ""
    detail = f"The request does not match the schema in /openapi.json{more}"
    return Problem(400, "invalid", detail, faults=faults)


def _path(location: Sequence[int | str]) -> str:
    """Path of a field; keys that a caller may have chosen are left out."""
    return ".".join(str(part) for part in location if isinstance(part, int) or part in _FIELDS) or "(body)"


def _message(error: Any) -> str:
    """What is wrong with a field; of pydantic's texts only parts that come from the schema."""
    context = error.get("ctx", {})
    if error["type"] == "literal_error":
        return f"Must be {context['expected']}"
    if error["type"] in _MESSAGES:
        return _MESSAGES[error["type"]]
    limits = [f" ({words} {context[name]})" for name, words in _LIMITS.items() if name in context]
    return str(error["type"]).replace("_", " ").capitalize() + "".join(limits[:1])


_TIME = "write it as in 2026-01-31T12:00:00Z"
_MESSAGES = {
    "timezone_aware": f"Time without a time zone; {_TIME}",
    "datetime_parsing": f"Malformed time; {_TIME}",
    "datetime_from_date_parsing": f"Malformed time; {_TIME}",
    "json_invalid": "Not JSON in UTF-8, nested too deeply, or a name stands twice in an object",
    "content_type_not_json": "Content type is not JSON",
    "string_unicode": "Text that is not Unicode",
}
_LIMITS = {
    "max_length": "at most",
    "min_length": "at least",
    "ge": "at least",
    "le": "at most",
    "gt": "more than",
    "lt": "less than",
}
_FIELDS: set[str] = set()


def name_fields_in_problems(model: type[BaseModel]) -> type[BaseModel]:
    """A decorator: the names of this model's fields may appear in problems."""
    _FIELDS.update(model.model_fields)
    return model


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses: problems with these statuses, and possibly others."""
    schema = {"$ref": "#/components/schemas/ProblemDetails"}
    content = {"content": {MEDIA_TYPE: {"schema": schema}}}
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": _TITLES[status], **content} for status in statuses
    }
    return {**responses, "default": {"description": "Any other problem", **content}}
