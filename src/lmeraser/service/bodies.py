"""JSON bodies: read after the API key was checked, and checked against their schema without holding others up.

Rules:
1. nothing of a body is read before its caller is known and has the right scope (`access`);
2. a body costs its caller tokens of the rate limit by its size and by the names in it, before it is checked;
3. a small body is checked at once, a large one in a thread of its own, of which there is one for all callers;
4. before a list is checked, its length is; so the work, and the faults found, are bounded by the permitted length;
5. no name stands twice in an object: a proxy in front may have checked the one that does not count here.

Knows nothing about single routes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from lmeraser.core.digests import parse_json
from lmeraser.errors import InputError
from lmeraser.service.limits import tokens_of_body
from lmeraser.service.problems import Fault, Problem, invalid
from lmeraser.service.service import Service, service_of
from lmeraser.workspace.api_keys import ApiKey
from lmeraser.workspace.requests.draft import RequestDraft

M = TypeVar("M", bound=BaseModel)

_AT_ONCE = 16 << 10  # bytes that are checked in less than a millisecond
_NAMES_PER_TOKEN = 20  # each name is looked up in the transaction that accepts the request
_SECONDS = 30.0  # for a body to arrive
_JSON = ("application/json", "+json")


def json_body(schema: type[M], authorize: Callable[..., Awaitable[ApiKey]]) -> Callable[..., Awaitable[M]]:
    """A dependency: the body of a call, of this schema.

    FastAPI would read and parse it before the dependency that checks the key, and on the event loop.

    Args:
        schema: of the body; its field ``subject_identities``, if it has one, is limited to ``service.max_names``.
        authorize: the dependency that admits the caller.
    """

    async def read(request: Request, key: ApiKey = Depends(authorize)) -> M:  # noqa: B008 - FastAPI's form
        service = service_of(request)
        data = await _receive(request)
        if cost := tokens_of_body(len(data)):
            service.rate_limiter.take(key.id, cost)
        if len(data) <= _AT_ONCE:
            return _parse(schema, data, service, key)
        return await service.body_parser.run(key.id, _parse, schema, data, service, key)

    return read


def json_body_schema(schema: type[BaseModel]) -> dict[str, Any]:
    """The OpenAPI description of such a body; `app` adds the schema to the components."""
    reference = {"$ref": f"#/components/schemas/{schema.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": reference}}}}


def is_json(request: Request) -> bool:
    """Whether the body of a call is declared as JSON."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower().endswith(_JSON)


async def _receive(request: Request) -> bytes:
    """The body of a call.

    Raises:
        Problem: it is not declared as JSON, or takes too long to arrive.
    """
    if not is_json(request):
        raise invalid([{"loc": (), "type": "content_type_not_json"}])
    try:
        async with asyncio.timeout(_SECONDS):
            return await request.body()
    except TimeoutError:
        raise Problem(408, "slow", "The body took too long", headers={"Connection": "close"}) from None


def _parse(schema: type[M], data: bytes, service: Service, key: ApiKey) -> M:
    """Check a body.

    Raises:
        Problem: it does not match the schema, or has more names than the caller's rate permits now.
    """
    try:
        values = parse_json(data.decode())
    except ValueError:
        raise invalid([{"loc": (), "type": "json_invalid"}]) from None
    identities = values.get("subject_identities") if isinstance(values, dict) else None
    if isinstance(identities, list):
        check_identity_count(len(identities), service)
        if cost := len(identities) // _NAMES_PER_TOKEN:
            service.rate_limiter.take(key.id, cost)
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False)) from None


def check_identity_count(count: int, service: Service) -> None:
    """Enforce the limit of identities in one request.

    Raises:
        Problem: there are too many.
    """
    if count > service.config.max_names:
        raise Problem(422, "too-many", f"Too many identities in one request (at most {service.config.max_names})")


def check_times(draft: RequestDraft, service: Service) -> None:
    """Refuse a time at which nobody can have made the request (`draft.OLDEST`, `draft.FARTHEST`).

    Raises:
        Problem: it is too long ago or in the future.
    """
    try:
        draft.check_times(now=service.workspace.clock())
    except InputError as error:
        fault = Fault(where="submitted_time", message=error.message)
        raise Problem(422, "submitted-time", f"{error.message}; correct submitted_time", faults=[fault]) from None
