"""Who is logged in, by a signed cookie: which key they came with, until when, and the token of their forms.

A cookie names the key by its id; the key itself is in no cookie. It is signed under a random key of this process,
so a restart ends all sessions, and it ends after some hours. A form's token is derived from the session, so
another site cannot make it (cross-site request forgery). Sessions are opened before login as well, so that the
form of the login has a token; logging in opens a new one. Knows nothing about HTTP.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

LIFETIME = 8 * 3600  # seconds
_NOBODY = "-"


@dataclass(frozen=True)
class Session:
    """Somebody who uses the pages.

    Attributes:
        id: random.
        key: id of the API key that they logged in with; None before.
        until: seconds since 1970 at which it ends.
    """

    id: str
    key: str | None
    until: int


class Sessions:
    """The sessions of one process.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._secret = secrets.token_bytes(32)
        self._ended: dict[str, int] = {}
        self._lock = threading.Lock()

    def open(self, key: str | None = None) -> tuple[Session, str]:
        """A new session, and its cookie."""
        session = Session(secrets.token_hex(16), key, int(self._clock()) + LIFETIME)
        text = f"{session.id}.{session.key or _NOBODY}.{session.until}"
        return session, f"{text}.{self._sign('session', text)}"

    def read(self, cookie: str) -> Session | None:
        """The session of a cookie, if it was signed here and has not ended."""
        text, _, signature = cookie.rpartition(".")
        if not cookie.isascii() or not hmac.compare_digest(signature, self._sign("session", text)):
            return None
        name, key, until = text.split(".")
        session = Session(name, None if key == _NOBODY else key, int(until))
        return session if session.until > self._clock() and session.id not in self._ended else None

    def end(self, session: Session) -> None:
        """End a session now."""
        with self._lock:
            now = self._clock()
            self._ended = {name: until for name, until in self._ended.items() if until > now}
            self._ended[session.id] = session.until

    def token(self, session: Session) -> str:
        """What every form of a session holds."""
        return self._sign("form", session.id)

    def sent(self, session: Session, token: str) -> bool:
        """Whether a form with this token is of this session."""
        return token.isascii() and hmac.compare_digest(token, self.token(session))

    def _sign(self, what: str, text: str) -> str:
        return hmac.digest(self._secret, f"{what} {text}".encode(), "sha256").hex()
