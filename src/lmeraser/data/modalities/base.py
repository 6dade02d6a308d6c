"""The interface of payload formats: what the bytes of a record are, and how they are shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class PayloadFormat(ABC):
    """The payloads of one modality.

    Attributes:
        noun: what one payload is called in messages, for instance 'image'.
        columns: usual names of its column in a table, in the order of preference.
        suffix: of a file with one payload.
            has_pictures: whether `picture` gives one.
        in_files: whether a payload is a file of its own, so that tables may name it by its path.
        wire_field: the list of payloads in a JSON body of the service; None: they are uploaded as files.
        wire_bytes: of one payload there, at most.
    """

    noun: str
    columns: tuple[str, ...]
    suffix: str
    in_files: bool = False
    has_pictures: bool = False
    wire_field: str | None = None
    wire_bytes: int = 0

    @abstractmethod
    def payload(self, value: Any) -> bytes:
        """The payload of a cell of a table, or of another value in memory.

        Raises:
            ValueError: it is none; says why.
        """

    def path_of(self, value: Any) -> str | None:
        """The path by which a cell of a table names a file; None: the cell holds the payload itself."""
        return None

    @abstractmethod
    def check(self, payload: bytes) -> None:
        """Refuse bytes that are no payload.

        Raises:
            ValueError: they are none; says why.
        """

    @abstractmethod
    def describe(self, payload: bytes) -> str:
        """A payload in one line, for lists and plans; without control characters."""

    @abstractmethod
    def noise(self, count: int) -> list[bytes]:
        """Payloads that depend on their number alone, for measurements and self-tests."""

    @abstractmethod
    def queries(self, arguments: Sequence[str], passed_over: Counter[str]) -> list[tuple[str, Any]]:
        """Names and values of what is to be classified, from arguments of the command line.

        Args:
            arguments: as written.
            passed_over: gets the numbers of files and folders of each kind that are left out.

        Raises:
            InputError: one of them cannot be read.
        """

    def picture(self, payload: bytes, side: int) -> NDArray[np.uint8]:
        """A picture of a payload for figures, uint8 [side, side, 3]; only where ``has_pictures``."""
        raise NotImplementedError

    def of_file(self, data: bytes) -> bytes | None:
        """The payload of a record that a file with this content would be; None if it would be none."""
        try:
            self.check(data)
        except ValueError:
            return None
        return data

    def of_json(self, value: Any) -> bytes:
        """The payload of a value in a JSON body.

        Raises:
            ValueError: it is none; says why without repeating any of it.
        """
        raise NotImplementedError

    def json_schema(self) -> dict[str, Any]:
        """JSON Schema of such a value, with an example."""
        raise NotImplementedError

    def encodings(self, payload: bytes) -> Mapping[str, bytes]:
        """Other byte strings in which a payload may be left on a disk, by names, for the search for residue."""
        return {}
