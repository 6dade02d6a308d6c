"""Private records in a SQL database: what F is a function of.

A record is an id, an optional subject (the person it is about), a label and the image bytes as given. Beside it
lies what was derived from it alone: its features and its cluster; both go when the record goes, by foreign key.
Deleted ids and subjects stay behind only as keyed digests (the suppression list), so that importing the same
source again does not bring a deleted record back.

Follows SQLAlchemy Core; SQLite by default, with ``secure_delete`` so that freed bytes are overwritten. Knows
nothing about models or how the derived values are made.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import (
    BLOB,
    Boolean,
    Column,
    Connection,
    Engine,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

from lmeraser.errors import CorruptError, InputError, StorageError
from lmeraser.hashing import Digest, keyed_digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

T = TypeVar("T")

_IN_CHUNK = 500  # ids per SQL statement; databases limit the number of parameters

_metadata = MetaData()


def _owned(name: str, *columns: Column[Any] | Index) -> Table:
    """A table of things that belong to one record and are deleted with it."""
    owner = Column("id", String, ForeignKey("records.id", ondelete="CASCADE"), primary_key=True)
    return Table(name, _metadata, owner, *columns)


_records = Table(
    "records",
    _metadata,
    Column("id", String, primary_key=True),
    Column("subject", String, nullable=True, index=True),
    Column("label", Integer, nullable=False),
    Column("image_digest", String, nullable=False),
)
_images = _owned("images", Column("data", BLOB, nullable=False))
_features = _owned("features", Column("key", String, nullable=False), Column("vector", BLOB, nullable=False))
_assignments = _owned(
    "assignments",
    Column("partition", String, nullable=False),
    Column("cluster", Integer, nullable=False),
    Column("sampled", Boolean, nullable=False),
    Index("assignments_by_cluster", "partition", "cluster"),
)
_suppressed = Table("suppressed", _metadata, Column("digest", String, primary_key=True))
_facts = Table(
    "facts", _metadata, Column("name", String, primary_key=True), Column("value", String, nullable=False)
)


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
        path: the SQLite file; made if it is missing.
        secret: key of the suppression list.
    """

    def __init__(self, path: Path, *, secret: bytes) -> None:
        self._path = path
        self._secret = secret
        self._engine = _sqlite(path)
        with self._translated():
            _metadata.create_all(self._engine)

    def close(self) -> None:
        """Release the database's connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the database's errors into ours."""
        try:
            yield
        except (OperationalError, IntegrityError) as error:
            raise StorageError(
                "The database can be read and takes what is written to it.",
                got=f"{self._path}: {error.orig}",
                next_step="free some space or check the permissions, then run the same command again",
            ) from error
        except DatabaseError as error:
            raise CorruptError(
                "The records are an intact SQLite database.",
                got=f"{self._path}: {error.orig}",
                next_step="restore records.db from a backup",
            ) from error

    @contextlib.contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._translated(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction: committed at the end, rolled back on any exception.

        Raises:
            StorageError: the database cannot write (disk full, read-only, locked by another program).
            CorruptError: the file is damaged.
        """
        with self._translated(), self._engine.begin() as connection:
            yield connection

    # --- facts -----------------------------------------------------------------------------------------

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the labels; empty until the first import fixes them."""
        value = self._fact("classes")
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
        with self._within(connection) as inner:
            self._set_fact(inner, "classes", json.dumps(list(classes)))
            self.touch(inner)

    @property
    def revision(self) -> int:
        """Counts the changes of records and classes; a model derived at another revision is out of date."""
        return int(self._fact("revision") or 0)

    def touch(self, connection: Connection) -> None:
        """Note that records or classes have changed."""
        self._set_fact(connection, "revision", str(int(self._fact("revision", connection) or 0) + 1))

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
        with self._reading() as connection:
            return sorted(RecordRef(i, n, Digest(d)) for i, n, d in connection.execute(query))

    def find(self, ids: Iterable[str]) -> dict[str, tuple[str | None, int, Digest]]:
        """Subject, label and image digest of those ids that exist."""
        query = select(_records)
        rows = self._select_in(query, _records.c.id, ids)
        return {row.id: (row.subject, row.label, Digest(row.image_digest)) for row in rows}

    def of_subjects(self, subjects: Iterable[str]) -> dict[str, list[str]]:
        """Record ids of each subject that has any, sorted."""
        found: dict[str, list[str]] = {}
        query = select(_records.c.id, _records.c.subject)
        for row in self._select_in(query, _records.c.subject, subjects):
            found.setdefault(row.subject, []).append(row.id)
        return {subject: sorted(ids) for subject, ids in found.items()}

    def images(self, ids: Sequence[str]) -> list[bytes]:
        """Image bytes of ``ids``, in their order."""
        query = select(_images.c.id, _images.c.data)
        found = {row.id: bytes(row.data) for row in self._select_in(query, _images.c.id, ids)}
        return [found[record_id] for record_id in ids]

    # --- changing --------------------------------------------------------------------------------------

    def insert(self, connection: Connection, records: Sequence[Record]) -> None:
        """Add records whose ids are known to be new, inside the caller's transaction."""
        if not records:
            return
        rows = [
            {"id": r.id, "subject": r.subject, "label": r.label, "image_digest": str(Digest.of(r.image))}
            for r in records
        ]
        connection.execute(insert(_records), rows)
        connection.execute(insert(_images), [{"id": r.id, "data": r.image} for r in records])

    def delete(self, ids: Sequence[str], *, subjects: Sequence[str] = ()) -> None:
        """Delete records with all that belongs to them, and suppress their ids and these subjects.

        One transaction: after a crash either all are deleted or none.
        """
        with self.transaction() as connection:
            for chunk in _chunks(ids):
                connection.execute(delete(_records).where(_records.c.id.in_(chunk)))
            names = [*(("record", i) for i in ids), *(("subject", s) for s in subjects)]
            digests = {str(self._suppression(kind, name)) for kind, name in names}
            known = {row.digest for row in self._select_in(select(_suppressed), _suppressed.c.digest, digests)}
            if digests - known:
                connection.execute(insert(_suppressed), [{"digest": d} for d in sorted(digests - known)])
            self.touch(connection)
            self._set_fact(connection, "compaction", "due")

    def suppressed(self, kind: str, names: Iterable[str]) -> set[str]:
        """Those names ('record' ids or 'subject's) that were deleted here before."""
        by_digest = {str(self._suppression(kind, name)): name for name in names}
        rows = self._select_in(select(_suppressed), _suppressed.c.digest, by_digest)
        return {by_digest[row.digest] for row in rows}

    def lift_suppression(self, connection: Connection, kind: str, names: Iterable[str]) -> None:
        """Allow deleted ids or subjects to be added again."""
        for chunk in _chunks([str(self._suppression(kind, name)) for name in names]):
            connection.execute(delete(_suppressed).where(_suppressed.c.digest.in_(chunk)))

    @property
    def compaction_due(self) -> bool:
        """Whether records were deleted since the database was last compacted."""
        return self._fact("compaction") == "due"

    def compact(self) -> None:
        """Rewrite the database without free space and empty its log, so that no deleted byte stays in it.

        ``secure_delete`` overwrites freed cells; only rewriting also removes copies that the B-tree left
        behind in the gaps of pages that are still in use. It stays due until both are done.

        Raises:
            StorageError: there is no space for the rewritten file, or another program reads the old one.
        """
        with self._translated(), self._engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM")
        self._empty_log()
        with self.transaction() as connection:
            self._set_fact(connection, "compaction", "done")
        self._empty_log()

    def _empty_log(self) -> None:
        with self._translated(), self._engine.connect() as connection:
            result = connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(
                "PRAGMA wal_checkpoint(TRUNCATE)"
            )
            busy = result.one()[0]
        if busy:
            raise StorageError(
                "The database's log can be emptied, so that no deleted byte stays in it.",
                got=f"another program is reading {self._path}",
                next_step="let it finish, then run 'lmeraser purge'",
            )

    # --- what was derived from one record --------------------------------------------------------------

    def features(self, ids: Sequence[str], *, key: str) -> dict[str, NDArray[np.float32]]:
        """Stored features, float32 [d], of those ids that have them under ``key``."""
        import numpy as np

        query = select(_features.c.id, _features.c.vector).where(_features.c.key == key)
        rows = self._select_in(query, _features.c.id, ids)
        return {row.id: np.frombuffer(row.vector, dtype=np.float32) for row in rows}

    def store_features(self, vectors: Mapping[str, NDArray[np.float32]], *, key: str) -> None:
        """Store the features, float32 [d], of these records under ``key``, replacing older ones."""
        rows = [{"id": i, "key": key, "vector": v.astype("float32").tobytes()} for i, v in vectors.items()]
        self._replace(_features, rows)

    def forget_features(self) -> None:
        """Delete all stored features; they will be computed again when they are needed."""
        with self.transaction() as connection:
            connection.execute(delete(_features))

    def assignments(self, partition: Digest, ids: Sequence[str] | None = None) -> dict[str, int]:
        """Cluster of each record (or of ``ids``) under ``partition``, where it is known."""
        query = select(_assignments.c.id, _assignments.c.cluster)
        query = query.where(_assignments.c.partition == str(partition))
        if ids is not None:
            return {row.id: row.cluster for row in self._select_in(query, _assignments.c.id, ids)}
        with self._reading() as connection:
            return {row.id: row.cluster for row in connection.execute(query)}

    def members(self, partition: Digest, clusters: Iterable[int]) -> dict[str, int]:
        """The records of these clusters under ``partition``, each with its cluster."""
        query = select(_assignments.c.id, _assignments.c.cluster)
        query = query.where(_assignments.c.partition == str(partition))
        return {row.id: row.cluster for row in self._select_in(query, _assignments.c.cluster, clusters)}

    def any_sampled(self, partition: Digest, ids: Iterable[str]) -> bool:
        """Whether one of ``ids`` is in the sample that shaped ``partition``."""
        query = select(_assignments.c.id).where(_assignments.c.partition == str(partition), _assignments.c.sampled)
        return any(True for _ in self._select_in(query, _assignments.c.id, ids))

    def store_assignments(self, clusters: Mapping[str, int], *, partition: Digest, sampled: bool = False) -> None:
        """Store the cluster of these records under ``partition``, replacing older ones.

        Args:
            clusters: cluster number of each record.
            partition: key of the partition.
            sampled: whether these records shaped it.
        """
        common = {"partition": str(partition), "sampled": sampled}
        self._replace(_assignments, [{"id": i, "cluster": c, **common} for i, c in clusters.items()])

    def forget_assignments(self, *, keep: Digest) -> None:
        """Delete the clusters of every other partition than the one with the key ``keep``."""
        with self.transaction() as connection:
            connection.execute(delete(_assignments).where(_assignments.c.partition != str(keep)))

    # --- helpers ---------------------------------------------------------------------------------------

    def _suppression(self, kind: str, name: str) -> Digest:
        return keyed_digest(self._secret, ["suppressed", kind, name])

    def _replace(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        with self.transaction() as connection:
            for chunk in _chunks(rows):
                connection.execute(delete(table).where(table.c.id.in_([row["id"] for row in chunk])))
                connection.execute(insert(table), chunk)

    def _select_in(self, query: Any, column: Any, values: Iterable[Any]) -> Iterator[Any]:
        with self._reading() as connection:
            for chunk in _chunks(list(values)):
                yield from connection.execute(query.where(column.in_(chunk))).all()

    def _scalar(self, query: Any) -> int:
        with self._reading() as connection:
            return int(connection.execute(query).scalar_one())

    @contextlib.contextmanager
    def _within(self, connection: Connection | None) -> Iterator[Connection]:
        if connection is not None:
            yield connection
        else:
            with self.transaction() as own:
                yield own

    def _fact(self, name: str, connection: Connection | None = None) -> str | None:
        query = select(_facts.c.value).where(_facts.c.name == name)
        if connection is not None:
            return connection.execute(query).scalar_one_or_none()
        with self._reading() as own:
            return own.execute(query).scalar_one_or_none()

    def _set_fact(self, connection: Connection, name: str, value: str) -> None:
        changed = connection.execute(update(_facts).where(_facts.c.name == name).values(value=value))
        if changed.rowcount == 0:
            connection.execute(insert(_facts).values(name=name, value=value))


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, _IN_CHUNK)):
        yield chunk


def _sqlite(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        # Without foreign keys features would outlive their record; without secure_delete its bytes would.
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", "secure_delete=ON", "synchronous=FULL"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine
