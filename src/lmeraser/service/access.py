"""Authentication and authorization of calls: one dependency that each protected route declares its scopes with.

An API key is sent as ``Authorization: Bearer KEY``. Looking it up costs the same whether it is missing, malformed,
unknown, revoked or valid (`api_keys`), and nothing else runs in the threads that do it. Calls without a valid key
are rate limited by address, all others by key.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from lmeraser.service.limits import STARTED
from lmeraser.service.problems import Problem
from lmeraser.service.service import Service, service_of
from lmeraser.workspace.api_keys import ApiKey, Scope

_bearer = HTTPBearer(auto_error=False, scheme_name="key", description="created with 'lmeraser keys create'")
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


def require_scope(*scopes: Scope) -> Callable[[Request, Credentials], Awaitable[ApiKey]]:
    """A dependency that admits API keys with one of these scopes."""

    async def authorize(request: Request, credentials: Credentials) -> ApiKey:
        service: Service = service_of(request)
        # Of two keys in one call, a proxy in front may have checked the other one.
        one = credentials is not None and len(request.headers.getlist("authorization")) == 1
        presented = credentials.credentials if credentials is not None and one else ""
        loop = asyncio.get_running_loop()
        key = await loop.run_in_executor(service.key_lookups, service.workspace.api_keys.find, presented)
        getattr(request.state, STARTED, lambda: None)()
        if key is None:
            service.rate_limiter.take(client_address(request))
            raise Problem(
                401,
                "key",
                "API key missing or not valid; send it as 'Authorization: Bearer KEY'",
                headers={"WWW-Authenticate": "Bearer"},
            )
        request.state.key = key.id
        service.rate_limiter.take(key.id)
        if not key.may(scopes):
            raise Problem(403, "scope", f"The API key lacks the required scope ({' or '.join(scopes)})")
        return key

    return authorize


def client_address(request: Request) -> str:
    """The name under which calls without a valid key are rate limited; an IPv6 address counts as its network."""
    try:
        address = ipaddress.ip_address(request.client.host if request.client else "")
    except ValueError:
        return "address unknown"
    if address.version == 6:
        return f"address {ipaddress.ip_network((address, 64), strict=False)}"
    return f"address {address}"
