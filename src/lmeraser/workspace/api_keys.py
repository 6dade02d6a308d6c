"""API keys of the HTTP service, and the scopes of each.

A key is ``lme_ID_SECRET``: ID names its row, SECRET is 256 random bits. The database keeps an HMAC of the whole
key under a key derived from the workspace's secret, so a copy of the database alone neither reveals keys nor lets
guesses be tested. A slow hash would protect passwords, which can be guessed; 256 random bits cannot be, whatever a
guess costs (``docs/adr/0017-service.md``). A key is shown once, when it is created.

Looking up a key costs one HMAC and one comparison in constant time, whether the key exists or not.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import Column, LargeBinary, String, Table, bindparam, insert, select, update

from lmeraser.core.time import to_text
from lmeraser.data.canonical_names import canonical_name
from lmeraser.errors import InputError
from lmeraser.storage.database import Database, schema

Scope = Literal["predict", "submit", "request", "find", "records", "read", "confirm", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_LONGEST_NAME = 100  # characters
_PATTERN = re.compile(r"lme_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_NO_DIGEST = bytes(32)  # stands for the digest of a key that does not exist; no HMAC is this

_keys = Table(
    "api_keys",
    schema,
    Column("id", String, primary_key=True),
    Column("name", String, nullable=False),
    Column("scopes", String, nullable=False),
    Column("made", String, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("revoked", String, nullable=True),
)
_KEY_BY_ID = select(_keys).where(_keys.c.id == bindparam("wanted"))  # for every call; to build it takes longer


@dataclass(frozen=True)
class ApiKey:
    """A key, without its secret.

    Attributes:
        id: identifies it, also in logs.
        name: for people.
        scopes: what it allows.
        made: when it was created, RFC 3339 in UTC.
        revoked: when it was revoked.
    """

    id: str
    name: str
    scopes: tuple[Scope, ...]
    made: str
    revoked: str | None = None

    def may(self, wanted: Collection[Scope]) -> bool:
        """Whether it has one of these scopes; 'admin' includes all of them."""
        return "admin" in self.scopes or not set(wanted).isdisjoint(self.scopes)


class ApiKeys:
    """The keys of one workspace.

    Args:
        database: holds them.
        secret: of the workspace.
    """

    def __init__(self, database: Database, *, secret: bytes) -> None:
        self._database = database
        self._pepper = hmac.digest(secret, b"api keys", "sha256")

    def create(self, name: str, scopes: Iterable[str], *, now: datetime) -> tuple[ApiKey, str]:
        """Create a key; returns it with its text, which cannot be recovered later.

        Raises:
            InputError: no or unknown scopes, or what cannot be a name (`canonical_names`).
        """
        key = ApiKey(secrets.token_hex(6), _check_name(name), _parse_scopes(scopes), to_text(now))
        text = f"lme_{key.id}_{secrets.token_urlsafe(32)}"
        row = {**key.__dict__, "scopes": " ".join(key.scopes), "digest": self._digest(text)}
        with self._database.transaction() as connection:
            connection.execute(insert(_keys).values(**row))
        return key, text

    def all(self) -> list[ApiKey]:
        """All keys, the oldest first."""
        query = select(_keys).order_by(_keys.c.made, _keys.c.id)
        return self._database.fetch(query, _key)

    def any_active(self) -> bool:
        """Whether there is a key that is not revoked."""
        with self._database.reading() as connection:
            return connection.execute(select(_keys.c.id).where(_keys.c.revoked.is_(None))).first() is not None

    def revoke(self, key_id: str, *, now: datetime) -> ApiKey:
        """Revoke a key at once; harmless to repeat.

        Raises:
            InputError: there is no such key.
        """
        chosen = _keys.c.id == key_id
        with self._database.transaction() as connection:
            connection.execute(update(_keys).where(chosen, _keys.c.revoked.is_(None)).values(revoked=to_text(now)))
            row = connection.execute(select(_keys).where(chosen)).one_or_none()
        if row is None:
            raise InputError("API key not found", got=repr(key_id), next_step="'lmeraser keys' lists them")
        return _key(row)

    def find(self, text: str) -> ApiKey | None:
        """The key with this text, if it exists and is not revoked."""
        match = _PATTERN.fullmatch(text)
        with self._database.reading() as connection:
            row = connection.execute(_KEY_BY_ID, {"wanted": match[1] if match else ""}).one_or_none()
        same = hmac.compare_digest(self._digest(text), row.digest if row is not None else _NO_DIGEST)
        return _key(row) if same and row is not None and row.revoked is None else None

    def get(self, key_id: str) -> ApiKey | None:
        """The key with this id, if it exists and is not revoked."""
        query = select(_keys).where(_keys.c.id == key_id, _keys.c.revoked.is_(None))
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        return _key(row) if row is not None else None

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self._pepper, text.encode(errors="surrogatepass"), "sha256")


def _key(row: Any) -> ApiKey:
    return ApiKey(row.id, row.name, tuple(row.scopes.split()), row.made, row.revoked)


def _parse_scopes(scopes: Iterable[str]) -> tuple[Scope, ...]:
    wanted = set(scopes)
    if not wanted or wanted - set(SCOPES):
        raise InputError(
            "Missing or unknown scope of an API key",
            got=f"{', '.join(sorted(wanted)) or 'none'} (there are: {', '.join(SCOPES)})",
            next_step="give --scope, once for each",
        )
    return tuple(scope for scope in SCOPES if scope in wanted)


def _check_name(given: str) -> str:
    try:
        name = canonical_name(given)
        if len(name) > _LONGEST_NAME:
            raise ValueError(f"it is longer than {_LONGEST_NAME} characters")
    except ValueError as error:
        raise InputError(
            "Invalid name of an API key", got=str(error), next_step="choose another name, for example 'crm'"
        ) from error
    return name
