"""The interface of payload formats: what the bytes of a record are, and how they are shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any


class PayloadFormat(ABC):
    """The payloads of one modality.

    Attributes:
        noun: what one payload is called in messages, for instance 'image'.
        columns: usual names of its column in a table, in the order of preference.
        suffix: of a file with one payload.
        media_type: of such a file.
        in_files: whether a payload is a file of its own, so that tables may name it by its path.
    """

    noun: str
    columns: tuple[str, ...]
    suffix: str
    media_type: str
    in_files: bool = False

    @abstractmethod
    def payload(self, value: Any) -> bytes:
        """The payload of a cell of a table, or of another value in memory.

        Raises:
            ValueError: it is none; says why.
        """

    @abstractmethod
    def check(self, payload: bytes) -> None:
        """Refuse bytes that are no payload.

        Raises:
            ValueError: they are none; says why.
        """

    @abstractmethod
    def describe(self, payload: bytes) -> str:
        """A payload in one line, for lists and plans; without control characters."""

    def probes(self, payload: bytes) -> Sequence[bytes]:
        """The byte strings in which a payload may be left on a disk, for the search for residue."""
        return (payload,)
