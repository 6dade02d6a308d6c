"""What a metric is: its definition, its range, which way is better, and where it comes from.

Published code disagrees on nearly all of these, so every metric carries them as data, and a report prints them
beside the number. Knows nothing about how any metric is computed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Direction(StrEnum):
    """What a metric should be close to."""

    ZERO = "0"
    ONE = "1"
    RETRAINED = "the retrained model's value"  # above it and below it are both failures
    NONE = "nothing: it describes the data"


@dataclass(frozen=True)
class Metric:
    """The description of one metric.

    Attributes:
        key: its name in tables and JSON.
        name: its name in prose.
        definition: one line.
        low: the smallest value it can have.
        high: the largest; None if there is none.
        direction: what it should be close to.
        source: the paper, or the public file, that defines it.
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
