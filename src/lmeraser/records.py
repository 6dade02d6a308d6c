"""Private records: what F is a function of.

A record is an id, an optional subject (the person it is about), a label and the image bytes as given. Beside it
lies what was derived from it alone, its features, its code and its place, and a random key; all of it goes when
the record goes, by foreign key. The ledger names a record only by a commitment under that key, so that once the
record is deleted nobody can link the two. Deleted ids, subjects and images stay behind only as keyed digests (the
suppression list), so that importing the same source again does not bring a deleted record back.

Follows `database`; knows nothing about models or how the derived values are made.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import (
    BLOB,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    String,
    Table,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)

from lmeraser.changes import Changes
from lmeraser.counted import Counted
from lmeraser.database import Database, chunked, metadata, owned
from lmeraser.errors import InputError
from lmeraser.hashing import Digest, keyed_digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_KEY_BYTES = 32

Named = Literal["record", "subject", "image"]  # what a suppression names


_records = Table(
    "records",
    metadata,
    Column("id", String, primary_key=True),
    Column("subject", String, nullable=True, index=True),
    Column("label", Integer, nullable=False),
    Column("image_digest", String, nullable=False),
    Column("key", BLOB, nullable=False),
    Column("entry", Integer, nullable=False),
)
_images = owned("images", Column("data", BLOB, nullable=False))
_features = owned("features", Column("key", String, nullable=False), Column("vector", BLOB, nullable=False))
_places = owned(
    "places",  # under the served partition, and under one that is being derived
    Column("partition", String, primary_key=True),
    Column("place", String, nullable=False),
    Column("sampled", Boolean, nullable=False),
    Index("places_by_place", "partition", "place"),
)
_suppressed = Table("suppressed", metadata, Column("digest", String, primary_key=True))


@dataclass(frozen=True, slots=True)
class Record:
    """One private record with its payload."""

    id: str
    subject: str | None
    label: int
    image: bytes


@dataclass(frozen=True, slots=True, order=True)
class RecordRef:
    """A record without its payload: all that F needs to know to decide what has to run."""

    id: str
    label: int
    image_digest: Digest


class Records:
    """The records of one workspace.

    Args:
        database: where they are.
        secret: key of the suppression list.
    """

    def __init__(self, database: Database, *, secret: bytes) -> None:
        self.database = database
        self.counted = Counted(database)
        self.changes = Changes(database)
        self._secret = secret

    # --- facts -----------------------------------------------------------------------------------------

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the labels; empty until the first import fixes them."""
        value = self.database.fact("classes")
        return tuple(json.loads(value)) if value else ()

    def set_classes(self, classes: Sequence[str], connection: Connection | None = None) -> None:
        """Fix or extend the list of classes.

        Raises:
            InputError: names are empty or repeated, or a known class would move or vanish.
        """
        known = self.classes
        if not classes or len(set(classes)) != len(classes) or not all(classes):
            raise InputError(
                "The classes are a list of different, non-empty names.",
                got=repr(list(classes)),
                next_step="give each class once",
            )
        if tuple(classes[: len(known)]) != known:
            raise InputError(
                "Known classes keep their place: a list of classes can only be extended at its end.",
                got=f"{list(classes)!r}; known: {list(known)!r}",
                next_step="put the known classes first, in their order",
            )
        if tuple(classes) == known:
            return
        with self.database.transaction(connection) as inner:
            self.database.set_fact(inner, "classes", json.dumps(list(classes)))
            self.changes.note(inner)

    # --- reading ---------------------------------------------------------------------------------------

    def count(self) -> int:
        """Number of records."""
        return self._scalar(select(func.count()).select_from(_records))

    def count_subjects(self) -> int:
        """Number of different subjects."""
        return self._scalar(select(func.count(_records.c.subject.distinct())))

    def index(self) -> list[RecordRef]:
        """All records without payload, sorted by id (code points, as Python sorts)."""
        query = select(_records.c.id, _records.c.label, _records.c.image_digest)
        with self.database.reading() as connection:
            return sorted(RecordRef(i, n, Digest(d)) for i, n, d in connection.execute(query))

    def refs(self, ids: Iterable[str]) -> list[RecordRef]:
        """These records without payload, sorted by id."""
        return sorted(RecordRef(i, label, digest) for i, (_, label, digest) in self.find(ids).items())

    def find(self, ids: Iterable[str]) -> dict[str, tuple[str | None, int, Digest]]:
        """Subject, label and image digest of those ids that exist."""
        query = select(_records)
        rows = self.database.rows(query, _records.c.id, ids)
        return {row.id: (row.subject, row.label, Digest(row.image_digest)) for row in rows}

    def of_subjects(self, subjects: Iterable[str]) -> dict[str, list[str]]:
        """Record ids of each subject that has any, sorted."""
        found: dict[str, list[str]] = {}
        query = select(_records.c.id, _records.c.subject)
        for row in self.database.rows(query, _records.c.subject, subjects):
            found.setdefault(row.subject, []).append(row.id)
        return {subject: sorted(ids) for subject, ids in found.items()}

    def images(self, ids: Sequence[str]) -> list[bytes]:
        """Image bytes of ``ids``, in their order."""
        query = select(_images.c.id, _images.c.data)
        found = {row.id: bytes(row.data) for row in self.database.rows(query, _images.c.id, ids)}
        return [found[record_id] for record_id in ids]

    # --- changing --------------------------------------------------------------------------------------

    def insert(self, connection: Connection, records: Sequence[Record], *, entry: int) -> list[Digest]:
        """Add records whose ids are known to be new, inside the caller's transaction.

        Args:
            connection: of the transaction.
            records: what to add.
            entry: position of the ledger's entry that tells of it.

        Returns:
            The commitment of each.
        """
        if not records:
            return []
        rows = [
            {
                "id": record.id,
                "subject": record.subject,
                "label": record.label,
                "image_digest": str(Digest.of(record.image)),
                "key": secrets.token_bytes(_KEY_BYTES),
                "entry": entry,
            }
            for record in records
        ]
        connection.execute(insert(_records), rows)
        connection.execute(insert(_images), [{"id": r.id, "data": r.image} for r in records])
        return [_commitment(row) for row in rows]

    def relabel(self, connection: Connection, ids: Sequence[str], label: int, *, entry: int) -> list[Digest]:
        """Give records another label and a new key, as if they were deleted and added; returns commitments."""
        self.counted.forget(connection, ids)
        self.changes.note(connection, self._placed(ids, connection))
        for record_id in ids:
            values = {"label": label, "key": secrets.token_bytes(_KEY_BYTES), "entry": entry}
            connection.execute(update(_records).where(_records.c.id == record_id).values(**values))
        self.database.need_compaction(connection)
        return sorted(itertools.chain(*self.commitments(ids, connection).values()))

    def delete(self, connection: Connection, ids: Sequence[str], *, subjects: Sequence[str] = ()) -> None:
        """Delete records with all that belongs to them, inside the caller's transaction.

        Suppresses their ids, their images and these subjects.
        """
        images = [str(digest) for _, _, digest in self.find(ids).values()]
        named: dict[Named, Sequence[str]] = {"record": ids, "image": images, "subject": subjects}
        self.counted.forget(connection, ids)
        self.changes.note(connection, self._placed(ids, connection))
        for chunk in chunked(ids):
            connection.execute(delete(_records).where(_records.c.id.in_(chunk)))
        digests = {str(self._suppression(kind, name)) for kind, names in named.items() for name in names}
        known = {row.digest for row in self.database.rows(select(_suppressed), _suppressed.c.digest, digests)}
        if digests - known:
            connection.execute(insert(_suppressed), [{"digest": d} for d in sorted(digests - known)])
        self.database.need_compaction(connection)

    def commitments(
        self, ids: Sequence[str] | None = None, connection: Connection | None = None
    ) -> dict[int, list[Digest]]:
        """Commitments of records (all, or ``ids``), sorted, by the ledger entry that told of their addition.

        A commitment is an HMAC of the record under its own random key. Once the key is deleted it is a random
        number: nobody can find out whose it was, not even by trying every record there is.
        """
        found: dict[int, list[Digest]] = {}
        query = select(*_records.c)
        with self.database.transaction(connection) as inner:
            parts = [query] if ids is None else [query.where(_records.c.id.in_(part)) for part in chunked(ids)]
            for part in parts:
                for row in inner.execute(part):
                    found.setdefault(row.entry, []).append(_commitment(row._asdict()))
        return {entry: sorted(digests) for entry, digests in sorted(found.items())}

    def suppressed(self, kind: Named, names: Iterable[str]) -> set[str]:
        """Those names (record ids, subjects, digests of images) that were deleted here before."""
        by_digest = {str(self._suppression(kind, name)): name for name in names}
        rows = self.database.rows(select(_suppressed), _suppressed.c.digest, by_digest)
        return {by_digest[row.digest] for row in rows}

    def lift_suppression(self, connection: Connection, kind: Named, names: Iterable[str]) -> None:
        """Allow deleted ids, subjects or images to be added again."""
        for chunk in chunked([str(self._suppression(kind, name)) for name in names]):
            connection.execute(delete(_suppressed).where(_suppressed.c.digest.in_(chunk)))

    # --- what was derived from one record --------------------------------------------------------------

    def features(self, ids: Sequence[str], *, key: str) -> dict[str, NDArray[np.float32]]:
        """Stored features, float32 [d], of those ids that have them under ``key``."""
        import numpy as np

        query = select(_features.c.id, _features.c.vector).where(_features.c.key == key)
        rows = self.database.rows(query, _features.c.id, ids)
        return {row.id: np.frombuffer(row.vector, dtype=np.float32) for row in rows}

    def store_features(self, vectors: Mapping[str, NDArray[np.float32]], *, key: str) -> None:
        """Store the features, float32 [d], of these records under ``key``, replacing older ones."""
        rows = [{"id": i, "key": key, "vector": v.astype("float32").tobytes()} for i, v in vectors.items()]
        with self.database.transaction() as connection:
            for chunk in chunked(rows):
                connection.execute(delete(_features).where(_features.c.id.in_([row["id"] for row in chunk])))
                connection.execute(insert(_features), chunk)

    def forget_derived(self) -> None:
        """Delete all features, codes and places; they will be found again when they are needed."""
        with self.database.transaction() as connection:
            connection.execute(delete(_features))
            connection.execute(delete(_places))
            self.counted.clear(connection)

    def places(self, partition: Digest, ids: Sequence[str] | None = None) -> dict[str, str]:
        """Place of each record (or of ``ids``) under ``partition``, where it is known."""
        query = select(_places.c.id, _places.c.place).where(_places.c.partition == str(partition))
        if ids is not None:
            return {row.id: row.place for row in self.database.rows(query, _places.c.id, ids)}
        with self.database.reading() as connection:
            return {row.id: row.place for row in connection.execute(query)}

    def at_places(self, partition: Digest, places: Iterable[str]) -> dict[str, str]:
        """The records at exactly these places under ``partition``, each with its place."""
        query = select(_places.c.id, _places.c.place).where(_places.c.partition == str(partition))
        return {row.id: row.place for row in self.database.rows(query, _places.c.place, places)}

    def under(self, partition: Digest, path: str) -> dict[str, str]:
        """The records whose places lie under one path (`grouping`) of ``partition``, each with its place."""
        query = select(_places.c.id, _places.c.place).where(_under(partition, path))
        with self.database.reading() as connection:
            return {row.id: row.place for row in connection.execute(query)}

    def count_under(self, partition: Digest, path: str) -> int:
        """Number of the records whose places lie under one path of ``partition``."""
        return self._scalar(select(func.count()).select_from(_places).where(_under(partition, path)))

    def any_sampled(self, partition: Digest, ids: Iterable[str]) -> bool:
        """Whether one of ``ids`` is in the sample that shaped ``partition``."""
        query = select(_places.c.id).where(_places.c.partition == str(partition), _places.c.sampled)
        return any(True for _ in self.database.rows(query, _places.c.id, ids))

    def store_places(self, places: Mapping[str, str], *, partition: Digest, sampled: bool = False) -> None:
        """Store the place of these records under ``partition``, beside those under others.

        Args:
            places: of each record.
            partition: key of the partition.
            sampled: whether these records shaped it.
        """
        common = {"partition": str(partition), "sampled": sampled}
        mine = _places.c.partition == str(partition)
        with self.database.transaction() as connection:
            for chunk in chunked(places.items()):
                connection.execute(delete(_places).where(mine, _places.c.id.in_([i for i, _ in chunk])))
                connection.execute(insert(_places), [{"id": i, "place": place, **common} for i, place in chunk])

    def forget_places(self, *, keep: Digest) -> None:
        """Delete the places of every other partition than the one with the key ``keep``."""
        with self.database.transaction() as connection:
            # Two ranges, which the index finds at once; "!=" would read every place.
            other = or_(_places.c.partition < str(keep), _places.c.partition > str(keep))
            connection.execute(delete(_places).where(other))

    # --- helpers ---------------------------------------------------------------------------------------

    def _placed(self, ids: Sequence[str], connection: Connection) -> list[tuple[str, str, bool]]:
        """Partition, place, and whether it shaped the partition, of these records under each partition."""
        query = select(_places.c.partition, _places.c.place, _places.c.sampled)
        parts = (connection.execute(query.where(_places.c.id.in_(part))) for part in chunked(ids))
        return [(row.partition, row.place, row.sampled) for part in parts for row in part]

    def _suppression(self, kind: Named, name: str) -> Digest:
        return keyed_digest(self._secret, ["suppressed", kind, name])

    def _scalar(self, query: Any) -> int:
        with self.database.reading() as connection:
            return int(connection.execute(query).scalar_one())


def _under(partition: Digest, path: str) -> Any:
    """Places under a path: the path itself, and those that go on with bits."""
    place, mine = _places.c.place, _places.c.partition == str(partition)
    # As a range, which the index finds at once: "0" follows "/", and "2" the bits.
    if "/" in path:
        return and_(mine, place >= path, place < f"{path}2")
    return and_(mine, or_(place == path, and_(place >= f"{path}/", place < f"{path}0")))


def _commitment(row: Mapping[str, Any]) -> Digest:
    """The commitment of a row of ``records``."""
    names = ("entry", "id", "subject", "label", "image_digest")
    return keyed_digest(row["key"], ["record", *(row[name] for name in names)])
