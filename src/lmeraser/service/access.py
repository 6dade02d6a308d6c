"""Who calls, and whether they may: one dependency that every guarded route names its scopes to.

A key comes as ``Authorization: Bearer KEY``. Whether it is missing, malformed, unknown, revoked or right, the same
work is done (`api_keys`). Failed calls are counted by address, others by key. Follows `api_keys` and `limits`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from lmeraser.service.problems import Problem
from lmeraser.service.service import Service, service_of
from lmeraser.workspace.api_keys import ApiKey, Scope

_bearer = HTTPBearer(auto_error=False, scheme_name="key", description="made with 'lmeraser keys create'")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


def needs(*scopes: Scope) -> Callable[[Request, Credentials], Awaitable[ApiKey]]:
    """A dependency that lets keys with one of these scopes pass."""

    async def guard(request: Request, credentials: Credentials) -> ApiKey:
        service: Service = service_of(request)
        presented = credentials.credentials if credentials is not None else ""
        key = await run_in_threadpool(service.workspace.api_keys.find, presented)
        if key is None:
            service.buckets.take(f"address {request.client.host if request.client else ''}")
            challenge = {"WWW-Authenticate": "Bearer"}
            raise Problem(401, "key", "A call has a key: Authorization: Bearer KEY.", headers=challenge)
        request.state.key = key.id
        service.buckets.take(key.id)
        if not key.may(scopes):
            raise Problem(403, "scope", f"This needs a key with the scope {' or '.join(scopes)}.")
        return key

    return guard
