"""A deletion request before it is accepted: which records it selects, and its options.

Every edge maps what it is handed to a `RequestDraft` in one place: the command line (`cli.commands.deletion`), the
facade (`eraser`), HTTP (`service.opendsr_requests`) and the pages (`service.dashboard.filing`, by way of HTTP's
model). A dry run needs no more than the `Selector`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from lmeraser.config.deployment import RequestsConfig
from lmeraser.core.digests import keyed_digest
from lmeraser.workspace.requests.state import Regulation


@dataclass(frozen=True)
class Selector:
    """What a request names; make it with `of`.

    Attributes:
        ids: record ids, sorted, each once.
        subjects: people all of whose records are selected, sorted, each once.

    >>> Selector.of(ids=["b", "a", "b"]).ids
    ('a', 'b')
    """

    ids: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()

    @classmethod
    def of(cls, ids: Iterable[str] = (), subjects: Iterable[str] = ()) -> Self:
        """From names in any order, repeated or not."""
        return cls(tuple(sorted(set(ids))), tuple(sorted(set(subjects))))

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
        records = [["record", name] for name in self.ids]
        subjects = [["subject", name] for name in self.subjects]
        return str(keyed_digest(secret, ["selector", *records, *subjects]))

    def to_bytes(self) -> bytes:
        """The stored form, JSON; the database keeps it encrypted."""
        names = {"ids": self.ids, "subjects": self.subjects}
        return json.dumps(names, ensure_ascii=False).encode()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """From the stored form."""
        names = json.loads(data)
        return cls.of(names["ids"], names["subjects"])


@dataclass(frozen=True)
class RequestDraft:
    """A request as it is handed in.

    Attributes:
        selector: the records to delete.
        request_id: a UUID; None: a new one. Repeating an id with the same selector is harmless.
        regulation: the law that the request invokes.
        received: when it was received; None: now.
        audit: audit the model before the request is completed.
        period_began: when the period for the answer began, where that was before the request was received.
    """

    selector: Selector
    request_id: str | None = None
    regulation: Regulation = "other"
    received: datetime | None = None
    audit: bool = False
    period_began: datetime | None = None

    def due(self, config: RequestsConfig, *, now: datetime) -> datetime:
        """When the answer is due.

        Args:
            config: the periods of the regulations.
            now: when the request is received, unless the draft says otherwise.
        """
        received = self.received or now
        return config.due(self.regulation, min(received, self.period_began or received))
