"""A reference to a record: what decides which stages have to run, without the record's payload.

Knows nothing about databases, so that the training function can be used without one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lmeraser.core.digests import Digest


@dataclass(frozen=True, slots=True, order=True)
class RecordRef:
    """A record without its payload.

    Attributes:
        id: the record's id.
        label: class index.
        payload_digest: digest of the payload's bytes.
        number: its place in the store, drawn at random; records are read and written fastest in this order. It
            identifies nothing and decides nothing.
    """

    id: str
    label: int
    payload_digest: Digest
    number: int = field(default=0, compare=False)
