"""Keys of those who may use the HTTP service, and what each of them may do.

A key is ``lme_ID_SECRET``: ID names its row, SECRET is 256 random bits. The database keeps an HMAC of the whole
key under a key that is derived from the workspace's secret, so a copy of the database alone neither tells keys nor
allows to test guesses. A slow hash would protect what people choose and can be guessed; nobody guesses 256 random
bits, whatever a guess costs (``docs/adr/0017-service.md``). A key is shown once, when it is made.

Whatever is presented costs one HMAC and one comparison in constant time, known or not. Follows `database`.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from sqlalchemy import Column, LargeBinary, String, Table, insert, select, update

from lmeraser.core.time import to_text
from lmeraser.errors import InputError
from lmeraser.storage.database import Database, schema

Scope = Literal["predict", "request", "read", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_PATTERN = re.compile(r"lme_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
_NOBODY = bytes(32)  # compared with what is presented for a key that does not exist; no HMAC is this

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


@dataclass(frozen=True)
class ApiKey:
    """A key, without its secret.

    Attributes:
        id: names it, also in logs.
        name: for people.
        scopes: what it may do.
        made: when it was made, RFC 3339 in UTC.
        revoked: when it was revoked.
    """

    id: str
    name: str
    scopes: tuple[Scope, ...]
    made: str
    revoked: str | None = None

    def may(self, wanted: Collection[Scope]) -> bool:
        """Whether one of these scopes is among its own; 'admin' is all of them."""
        return "admin" in self.scopes or not set(wanted).isdisjoint(self.scopes)


class ApiKeys:
    """The keys of one workspace.

    Args:
        database: where they are.
        secret: of the workspace.
    """

    def __init__(self, database: Database, *, secret: bytes) -> None:
        self._database = database
        self._pepper = hmac.digest(secret, b"api keys", "sha256")

    def make(self, name: str, scopes: Iterable[str], *, now: datetime) -> tuple[ApiKey, str]:
        """A new key, and its text, which nobody can find again.

        Raises:
            InputError: no or unknown scopes, or no printable name.
        """
        key = ApiKey(secrets.token_hex(6), _printable(name), _known(scopes), to_text(now))
        text = f"lme_{key.id}_{secrets.token_urlsafe(32)}"
        row = {**key.__dict__, "scopes": " ".join(key.scopes), "digest": self._digest(text)}
        with self._database.transaction() as connection:
            connection.execute(insert(_keys).values(**row))
        return key, text

    def all(self) -> list[ApiKey]:
        """All of them, the oldest first."""
        query = select(_keys).order_by(_keys.c.made, _keys.c.id)
        return self._database.fetch(query, _key)

    def active(self) -> bool:
        """Whether there is a key that may be used."""
        with self._database.reading() as connection:
            return connection.execute(select(_keys.c.id).where(_keys.c.revoked.is_(None))).first() is not None

    def revoke(self, key_id: str, *, now: datetime) -> ApiKey:
        """End a key at once; harmless to repeat.

        Raises:
            InputError: there is no such key.
        """
        mine = _keys.c.id == key_id
        with self._database.transaction() as connection:
            connection.execute(update(_keys).where(mine, _keys.c.revoked.is_(None)).values(revoked=to_text(now)))
            row = connection.execute(select(_keys).where(mine)).one_or_none()
        if row is None:
            raise InputError(
                "A key is one that this workspace has made.",
                got=repr(key_id),
                next_step="'lmeraser keys' lists them",
            )
        return _key(row)

    def find(self, text: str) -> ApiKey | None:
        """The key with this text, if there is one and it is not revoked."""
        match = _PATTERN.fullmatch(text)
        query = select(_keys).where(_keys.c.id == (match[1] if match else ""))
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        same = hmac.compare_digest(self._digest(text), row.digest if row is not None else _NOBODY)
        return _key(row) if same and row is not None and row.revoked is None else None

    def named(self, key_id: str) -> ApiKey | None:
        """The key with this id, if there is one and it is not revoked."""
        query = select(_keys).where(_keys.c.id == key_id, _keys.c.revoked.is_(None))
        with self._database.reading() as connection:
            row = connection.execute(query).one_or_none()
        return _key(row) if row is not None else None

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self._pepper, text.encode(errors="surrogatepass"), "sha256")


def _key(row: Any) -> ApiKey:
    return ApiKey(row.id, row.name, tuple(row.scopes.split()), row.made, row.revoked)


def _known(scopes: Iterable[str]) -> tuple[Scope, ...]:
    wanted = set(scopes)
    if not wanted or wanted - set(SCOPES):
        raise InputError(
            f"A key has one or several of the scopes {', '.join(SCOPES)}.",
            got=", ".join(sorted(wanted)) or "none",
            next_step="give --scope, once for each",
        )
    return tuple(scope for scope in SCOPES if scope in wanted)


def _printable(name: str) -> str:
    if not (0 < len(name) <= 100 and name.isprintable()):
        raise InputError("A key's name is 1 to 100 printable characters.", got=f"{len(name)} characters")
    return name
