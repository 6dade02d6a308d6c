"""The records that an estimator has been taught, and their sums.

* taught with an id or a subject: the quantized vector and label are kept, and subtracted when the record is named;
* taught without either: only a keyed digest of the quantized vector is kept. It can be subtracted by whoever has
  the vector; the digest is how a vector that was never taught is recognised and refused.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.sufficient_statistics import QuantizedEmbeddings, SufficientStatistics, stack_quantized
from lmeraser.data.canonical_names import is_missing
from lmeraser.errors import listing
from lmeraser.sklearn.errors import NotTaughtError, VectorError
from lmeraser.sklearn.identifiers import Label, Names, name_of, names_given, per_row
from lmeraser.sklearn.quantization import AT_ONCE


class Record(NamedTuple):
    """One taught record.

    Attributes:
        label: its class.
        vector: its quantized vector as bytes.
        key: its id, or a number if it only has a subject; None if it has neither.
        subject: whom it is about.
    """

    label: Label
    vector: bytes
    key: str | int | None = None
    subject: str | None = None


class ClassSums(NamedTuple):
    """Sufficient statistics, and the labels of their classes in order."""

    statistics: SufficientStatistics
    labels: list[Label]


class TaughtRecords:
    """What was taught and is not forgotten.

    Attributes:
        scale: None for "rms", or what vectors are divided by.
        made_by: digest of what has made the vectors; None: whoever gave them.
        sums: of all records.
        declared: all classes, if a list of them was given.
        named: records with an id or a subject, by key.
        unnamed: how often each other record was taught, by label and keyed digest.
    """

    def __init__(self, width: int, scale: NDArray[np.float64] | None, made_by: str | None = None) -> None:
        self.scale = scale
        self.made_by = made_by
        self.sums = ClassSums(SufficientStatistics.zero(width + 1, 0), [])
        self.declared: tuple[Label, ...] | None = None
        self.named: dict[str | int, Record] = {}
        self.unnamed: Counter[tuple[Label, bytes]] = Counter()
        self._next_key = 0
        self._secret = secrets.token_bytes(32)

    # --- what is taught ---------------------------------------------------------------------------------------

    def declare(self, classes: list[Label] | None) -> None:
        """Fix the list of classes; nothing if none is given."""
        if classes is None:
            return
        declared = tuple(sorted(set(classes)))
        if self.declared not in (None, declared):
            raise VectorError(
                "Classes differ from those given before",
                got=f"{list(declared)} (before: {list(self.declared or ())})",
                next_step="give the same list, or none",
            )
        if missing := sorted(set(self.sums.labels) - set(declared), key=str):
            raise VectorError(
                "Classes that have records are missing from the list of classes",
                got=listing([repr(label) for label in missing]),
                next_step="add them to the list, or forget their records first",
            )
        self.declared = declared

    def check_labels(self, labels: Sequence[Label]) -> None:
        """Refuse labels of another type than those that are there, or not in the list of classes."""
        known = self.declared or self.sums.labels
        if known and type(known[0]) is not type(labels[0]):
            raise VectorError(
                "Labels of another type than those before",
                got=f"{type(labels[0]).__name__} (before: {type(known[0]).__name__})",
                next_step="convert them",
            )
        if self.declared and (others := sorted(set(labels) - set(self.declared))):
            raise VectorError(
                "Labels that are not in the list of classes",
                got=listing([repr(other) for other in others]),
                next_step="correct the labels, or fit all records again with a longer list",
            )

    def names_for(
        self, count: int, ids: Names | None, subjects: Names | None
    ) -> list[tuple[str | int | None, str | None]]:
        """Key and subject of each of ``count`` new records; raises `VectorError` with all faults of the names."""
        faults: list[str] = []
        keys: list[str | int | None] = [None] * count
        about: list[str | None] = [None] * count
        if subjects is not None:
            cells = per_row(subjects, count, "Subjects")
            about = [
                None if is_missing(cell) else name_of(cell, f"subject of row {row}", faults) for row, cell in cells
            ]
            keys = [None if name is None else self._next_key + row for row, name in enumerate(about)]
        if ids is not None:
            seen: set[str] = set()
            for row, cell in per_row(ids, count, "Ids"):
                name = keys[row] = name_of(cell, f"id of row {row}", faults)
                if name is None:
                    continue
                if name in seen:
                    faults.append(f"id of row {row}: {name!r} is the id of another row, too")
                elif name in self.named:
                    faults.append(f"id of row {row}: {name!r} is taught already")
                seen.add(name)
        if faults:
            raise VectorError("Ids or subjects that cannot be used", got=listing(faults))
        return list(zip(keys, about, strict=True))

    def records(
        self,
        parts: Iterable[QuantizedEmbeddings],
        labels: Sequence[Label],
        names: Sequence[tuple[str | int | None, str | None]] | None = None,
    ) -> Iterator[Record]:
        """Records of quantized vectors with their labels and, if they have any, keys and subjects."""
        rows = (row.tobytes() for part in parts for row in part)
        for row, (label, vector) in enumerate(zip(labels, rows, strict=True)):
            yield Record(label, vector, *(names[row] if names else ()))

    # --- which are named --------------------------------------------------------------------------------------

    def named_by(self, ids: Names | None, subjects: Names | None) -> list[str | int]:
        """Keys of the records with these ids and of these subjects.

        Raises:
            NotTaughtError: with all that are unknown.
        """
        keys: dict[str | int, None] = {}
        unknown: list[str] = []
        for given in names_given(ids):
            name = name_of(given, "id")
            if name in self.named:
                keys[name] = None
            else:
                unknown.append(f"id {given!r}")
        wanted = {name_of(given, "subject"): given for given in names_given(subjects)}
        if wanted:
            of_subjects = {key: record.subject for key, record in self.named.items() if record.subject in wanted}
            keys |= dict.fromkeys(of_subjects)
            held = set(of_subjects.values())
            unknown += [f"subject {given!r}" for name, given in wanted.items() if name is None or name not in held]
        if unknown:
            raise NotTaughtError(
                "Ids or subjects that were not taught, or are forgotten already",
                got=listing(unknown),
                next_step="leave them out; nothing was changed"
                if self.named
                else "give partial_unfit the rows: no record has an id or a subject",
            )
        return list(keys)

    def found(self, records: Sequence[Record]) -> tuple[Counter[tuple[Label, bytes]], list[str | int]]:
        """Which unnamed records, and which keys, have these labels and vectors; each row takes one record."""
        rows: dict[tuple[Label, bytes], list[int]] = {}
        for row, record in enumerate(records):
            rows.setdefault((record.label, record.vector), []).append(row)
        candidates: dict[tuple[Label, bytes], list[str | int]] = {}
        for key, record in self.named.items():
            if (record.label, record.vector) in rows:
                candidates.setdefault((record.label, record.vector), []).append(key)
        unnamed: Counter[tuple[Label, bytes]] = Counter()
        keys: list[str | int] = []
        missing: list[int] = []
        ambiguous: list[int] = []
        for (label, vector), places in rows.items():
            entry = (label, self._digest(vector))
            unnamed[entry] = min(len(places), self.unnamed[entry])
            left = places[unnamed[entry] :]
            known = candidates.get((label, vector), [])
            if len(left) > len(known):
                missing += left[len(known) :]
            elif left and len(left) < len(known):
                ambiguous += left
            elif left:
                keys += known
        if missing:
            raise NotTaughtError(
                "Rows that were not taught with their labels, or are forgotten already",
                got=listing([f"row {row}" for row in sorted(missing)]),
                next_step="leave them out; nothing was changed",
            )
        if ambiguous:
            raise VectorError(
                "Rows that fit more records with different names than are to be taken out",
                got=listing([f"row {row}" for row in sorted(ambiguous)]),
                next_step="name the records with forget; nothing was changed",
            )
        return unnamed, keys

    # --- sums -------------------------------------------------------------------------------------------------

    def including(self, records: Sequence[Record]) -> ClassSums:
        """The sums with these records."""
        return self._changed(records, 1)

    def without(self, records: Sequence[Record]) -> ClassSums:
        """The sums without these records, which they include."""
        return self._changed(records, -1)

    def _changed(self, records: Sequence[Record], sign: int) -> ClassSums:
        declared = self.declared or ()
        labels = sorted({*self.sums.labels, *declared, *(record.label for record in records)})
        before = {label: column for column, label in enumerate(self.sums.labels)}
        statistics = self.sums.statistics.with_classes([before.get(label) for label in labels])
        columns = {label: column for column, label in enumerate(labels)}
        for start in range(0, len(records), AT_ONCE):
            part = records[start : start + AT_ONCE]
            vectors = stack_quantized(record.vector for record in part)
            statistics = statistics.plus(vectors, [columns[record.label] for record in part], sign)
        # A class goes with its last record, as if it had never been there.
        kept = [c for c, count in enumerate(statistics.records_by_class) if count or labels[c] in declared]
        return ClassSums(statistics.with_classes(kept), [labels[column] for column in kept])

    # --- changes ----------------------------------------------------------------------------------------------

    def add(self, records: Iterable[Record]) -> None:
        """Keep what is needed to take these records out again."""
        for record in records:
            if record.key is None:
                self.unnamed[record.label, self._digest(record.vector)] += 1
                continue
            self.named[record.key] = record
            if isinstance(record.key, int):
                self._next_key = max(self._next_key, record.key + 1)

    def drop(self, keys: Iterable[str | int]) -> None:
        """Keep nothing of these named records."""
        for key in keys:
            del self.named[key]

    def drop_unnamed(self, unnamed: Counter[tuple[Label, bytes]]) -> None:
        """Keep nothing of so many of these unnamed records."""
        self.unnamed -= unnamed  # leaves out what is 0

    def _digest(self, vector: bytes) -> bytes:
        return hashlib.blake2b(vector, digest_size=32, key=self._secret).digest()
