"""A deletion request before it is accepted: which records it selects, and its options.

Every edge maps what it is handed to a `RequestDraft` in one place: the command line (`cli.commands.deletion`), the
facade (`eraser`), HTTP (`service.opendsr_requests`) and the pages (`service.dashboard.filing`, by way of HTTP's
model). A dry run needs no more than the `Selector`.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Self

from lmeraser.config.deployment import RequestsConfig
from lmeraser.core.digests import keyed_digest
from lmeraser.data.canonical_names import as_text
from lmeraser.errors import InputError, listing
from lmeraser.workspace.requests.state import Regulation

Name = object  # a text, or what `canonical_names.as_text` takes as one
OLDEST = timedelta(days=3653)  # ten years: a request that was made before is a mistyped or missing date
LONGEST_REFERENCE = 200  # characters
_NOT_TEXT = {"Cc", "Cs", "Zl", "Zp"}  # categories of control characters, surrogates and line ends
FARTHEST = timedelta(days=1)  # ahead of this clock, which the caller's clock or time zone explains


@dataclass(frozen=True)
class Selector:
    """What a request names, as it was given; make it with `of`. `selection` finds what the names mean.

    Attributes:
        ids: record ids, sorted, each once.
        subjects: people all of whose records are selected, sorted, each once.
        duplicates: whether the other records with the payload of a selected one are selected, too.
        known_duplicates: ids of the duplicates that were held when the request was accepted, so that they are
            deleted even if another request deletes the named record first; not part of what was named.

    >>> Selector.of(ids=["b", "a", "b"]).ids
    ('a', 'b')
    """

    ids: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    duplicates: bool = False
    known_duplicates: tuple[str, ...] = ()

    @classmethod
    def of(cls, ids: Iterable[Name] = (), subjects: Iterable[Name] = (), *, duplicates: bool = False) -> Self:
        """From names in any order, repeated or not; numbers are the names that they are written as.

        Raises:
            InputError: some of them are neither texts nor whole numbers; all of them are listed.
        """
        faults: list[str] = []
        named = cls(_texts("record id", ids, faults), _texts("subject", subjects, faults), duplicates)
        if faults:
            raise InputError(
                "Not a name; nothing was done", got=listing(faults), next_step="give texts or whole numbers"
            )
        return named

    @property
    def empty(self) -> bool:
        """Whether it names nothing."""
        return not self.ids and not self.subjects

    @property
    def names(self) -> int:
        """How many names it has."""
        return len(self.ids) + len(self.subjects)

    def digest(self, secret: bytes) -> str:
        """The keyed digest by which a repeated request is recognised; it does not reveal the names."""
        records = [["record", _encodable(name)] for name in self.ids]
        subjects = [["subject", _encodable(name)] for name in self.subjects]
        options = [["duplicates"]] if self.duplicates else []
        return str(keyed_digest(secret, ["selector", *records, *subjects, *options]))

    def to_bytes(self) -> bytes:
        """The stored form, JSON; the database keeps it encrypted."""
        names: dict[str, object] = {"ids": self.ids, "subjects": self.subjects}
        if self.duplicates:
            names["duplicates"] = self.known_duplicates
        return json.dumps(names, ensure_ascii=False).encode()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """From the stored form."""
        names = json.loads(data)
        stored = cls.of(names["ids"], names["subjects"], duplicates="duplicates" in names)
        return replace(stored, known_duplicates=tuple(names.get("duplicates", ())))


def _texts(what: str, names: Iterable[Name], faults: list[str]) -> tuple[str, ...]:
    """Names as texts, sorted, each once; what is none is added to ``faults``."""
    texts = set()
    for name in names:
        try:
            texts.add(as_text(name))
        except ValueError as error:
            faults.append(f"{what} {name!r}: {error}")
    return tuple(sorted(texts))


def _encodable(name: str) -> str:
    """A name that can be encoded; others, with lone surrogates, are held nowhere, and refused after this."""
    return name.encode(errors="backslashreplace").decode()


@dataclass(frozen=True)
class RequestDraft:
    """A request as it is handed in.

    Attributes:
        selector: the records to delete.
        request_id: a UUID; None: a new one. Repeating an id with the same selector is harmless.
        regulation: the law that the request invokes.
        received: when it was received; None: now.
        audit: audit the model before the request is completed.
        asked: when the person asked, if that was before the request was received; None: when it was received. The
            period for the answer begins then.
        grace: how long it can be taken back before the service carries it out.
        by: id of the API key that files it; None: a command.
        reference: the desk's own name for the request, one line; kept encrypted, and erased when it is closed, or
            `requests.reference_days` later.
    """

    selector: Selector
    request_id: str | None = None
    regulation: Regulation = "other"
    received: datetime | None = None
    audit: bool = False
    asked: datetime | None = None
    grace: timedelta = timedelta()
    by: str | None = None
    reference: str | None = None

    def check_reference(self) -> None:
        """Refuse a reference that cannot be stored or printed.

        Raises:
            InputError: it is too long, or has control characters or lone surrogates.
        """
        text = self.reference or ""
        if not isinstance(text, str):
            raise InputError(
                "Reference is not a text", got=f"a value of type {type(text).__name__}", next_step="give one line"
            )
        if len(text) > LONGEST_REFERENCE or any(unicodedata.category(one) in _NOT_TEXT for one in text):
            raise InputError(
                "Reference is too long, or has control characters",
                got=f"{len(text)} characters (at most {LONGEST_REFERENCE})",
                next_step="give one line of text",
            )

    def check_times(self, *, now: datetime) -> None:
        """Refuse times that cannot be meant: `OLDEST` and `FARTHEST` are the bounds.

        Raises:
            InputError: it was received, or the person asked, too long ago or in the future.
        """
        for what, moment in (("received", self.received), ("asked", self.asked)):
            if moment is not None and not now - OLDEST <= moment <= now + FARTHEST:
                raise InputError(
                    "Time of the request is in the future or more than ten years ago",
                    got=f"{what} {moment.isoformat()}",
                    next_step="correct the date; up to a day in the future is taken as now",
                )

    def received_at(self, *, now: datetime) -> datetime:
        """When it was received; a time in the future is the caller's clock, and taken as now."""
        return min(self.received or now, now)

    def asked_at(self, *, now: datetime) -> datetime:
        """When the person asked, at the latest when the request was received."""
        received = self.received_at(now=now)
        return min(self.asked or received, received)

    def due(self, config: RequestsConfig, *, now: datetime) -> datetime:
        """When the answer is due.

        Args:
            config: the periods of the regulations.
            now: when the request is received, unless the draft says otherwise.
        """
        return config.due(self.regulation, self.asked_at(now=now))
