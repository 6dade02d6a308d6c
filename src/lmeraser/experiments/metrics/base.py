"""Description of a metric: definition, range, target value and source.

Published code disagrees on nearly all of these, so every metric carries them as data and reports print them beside
the number.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Direction(StrEnum):
    """The value that a metric should be close to."""

    ZERO = "0"
    ONE = "1"
    RETRAINED = "the retrained model's value"  # deviations in either direction are failures
    NONE = "nothing: it describes the data"


@dataclass(frozen=True)
class Metric:
    """The description of one metric.

    Attributes:
        key: name in tables and JSON.
        name: name in prose.
        definition: definition in one line.
        low: smallest possible value.
        high: largest possible value; None: unbounded.
        direction: value that it should be close to.
        source: paper or public file that defines it.
    """

    key: str
    name: str
    definition: str
    low: float
    high: float | None
    direction: Direction
    source: str

    def to_json(self) -> dict[str, object]:
        """The description as JSON values."""
        return asdict(self)
