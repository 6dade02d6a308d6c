"""Sessions of the web pages, in cookies signed with itsdangerous, and the CSRF tokens of their forms.

A cookie holds the id of an API key, never the key. It is signed under a random key of this process, so that a
restart ends all sessions, and it expires after some hours. The CSRF token of a session's forms is derived from its
id, so that another site cannot forge it. There is a session before login, too, so that the login form has a token;
logging in opens a new one (against session fixation). Knows nothing about HTTP.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from itsdangerous import BadData, Signer, URLSafeSerializer

LIFETIME = 8 * 3600  # seconds
_MAX_ENDED = 10_000  # ended sessions that are remembered
_SIGNER: dict[str, Any] = {"key_derivation": "hmac", "digest_method": hashlib.sha256}


@dataclass(frozen=True)
class Session:
    """A session of a browser.

    Attributes:
        id: random.
        key: id of the API key that was used to log in; None before login.
        expires: seconds since 1970.
    """

    id: str
    key: str | None
    expires: int


class Sessions:
    """The sessions of one process.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        secret = secrets.token_bytes(32)
        self._cookies = URLSafeSerializer(secret, salt="session", signer_kwargs=_SIGNER)
        self._csrf = Signer(secret, salt="form", **_SIGNER)
        self._ended: dict[str, int] = {}  # the expiry of sessions that were ended before it
        self._all_ended = 0  # sessions that expire by this time are ended
        self._lock = threading.Lock()

    def open(self, key: str | None = None) -> tuple[Session, str]:
        """A new session, and its cookie."""
        session = Session(secrets.token_hex(16), key, int(self._clock()) + LIFETIME)
        return session, self._encode(session)

    def read(self, cookie: str) -> Session | None:
        """The session of a cookie, if this process signed it and it has not ended."""
        try:
            session = Session(*self._cookies.loads(cookie))
        except BadData:
            return None
        if self._encode(session) != cookie:  # base64 has several spellings of the same signature
            return None
        ended = session.id in self._ended or session.expires <= max(self._clock(), self._all_ended)
        return None if ended else session

    def end(self, session: Session) -> None:
        """End a session now; one without a key opens nothing and is left to expire.

        The sessions to remember are limited: with too many, the older half of all sessions is ended, too.
        """
        if session.key is None:
            return
        with self._lock:
            self._ended[session.id] = session.expires
            if len(self._ended) > _MAX_ENDED:
                self._all_ended = sorted(self._ended.values())[len(self._ended) // 2]
                self._ended = {one: expires for one, expires in self._ended.items() if expires > self._all_ended}

    def csrf_token(self, session: Session) -> str:
        """The token that every form of a session contains."""
        return self._csrf.get_signature(session.id).decode("ascii")

    def verify_csrf_token(self, session: Session, token: str) -> bool:
        """Whether a token belongs to a session."""
        return secrets.compare_digest(token.encode(), self.csrf_token(session).encode())

    def _encode(self, session: Session) -> str:
        return str(self._cookies.dumps([session.id, session.key, session.expires]))
