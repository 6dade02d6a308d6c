"""Private records: what F is a function of.

A record is an id, an optional subject (the person it is about), a label and the image bytes as given. Beside it
lies what was derived from it alone: its features, its code and its place. All of it goes when the record goes, by
foreign key, and its key is erased, under which everything but the place is sealed. The ledger names a record only
by a commitment under that key, so that once the record is deleted nobody can link the two. Deleted ids, subjects
and images stay behind only as keyed digests (the suppression list), so that importing the same source again does
not bring a deleted record back.

Follows `cards` and `database`; knows nothing about models or how the derived values are made.
"""

from __future__ import annotations

import hmac
import itertools
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Index,
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

from lmeraser.core.digests import Digest, keyed_digest
from lmeraser.data.changelog import Changes
from lmeraser.data.identities import RecordIndex, RecordMetadata
from lmeraser.data.identities import records as cards
from lmeraser.data.references import RecordRef
from lmeraser.data.statistics import StatisticsStore
from lmeraser.errors import InputError
from lmeraser.storage.database import Database, Sorted, chunked, encrypted, owned, tables
from lmeraser.storage.keystore import KeyStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Named = Literal["record", "subject", "image"]  # what a suppression names

_images = owned("images", encrypted("data", what="images"))
_features = owned("features", Column("key", String, nullable=False), encrypted("data", what="features"))
_trie_keys = owned(
    "places",  # under the served partition, and under one that is being derived
    Column("partition", Sorted, primary_key=True),
    Column("place", Sorted, nullable=False),
    Column("sampled", Boolean, nullable=False),
    Index("places_by_place", "partition", "place", "number"),  # all that a plan reads
)
_suppressed = Table("suppressed", tables, Column("digest", String, primary_key=True))


@dataclass(frozen=True, slots=True)
class Record:
    """One private record with its payload."""

    id: str
    subject: str | None
    label: int
    image: bytes


class Records:
    """The records of one workspace.

    Args:
        database: where they are.
        secret: key of the suppression list.
    """

    def __init__(self, database: Database, *, secret: bytes) -> None:
        self.database = database
        self._index = RecordIndex(database, secret=secret)
        self.statistics = StatisticsStore(self._index)
        self.changes = Changes(database)
        self._secret = secret

    # --- facts -----------------------------------------------------------------------------------------

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the labels; empty until the first import fixes them."""
        value = self.database.get_metadata("classes")
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
            self.database.set_metadata(inner, "classes", json.dumps(list(classes)))
            self.changes.note(inner)

    # --- reading ---------------------------------------------------------------------------------------

    def count(self) -> int:
        """Number of records."""
        return self._scalar(select(func.count()).select_from(cards))

    def count_subjects(self) -> int:
        """Number of different subjects."""
        return self._scalar(select(func.count(cards.c.subject.distinct())))

    def index(self) -> list[RecordRef]:
        """All records without payload, sorted by id (code points, as Python sorts)."""
        return sorted(RecordRef(card.id, card.label, card.image_digest) for card in self._index.every())

    def refs(self, ids: Iterable[str]) -> list[RecordRef]:
        """These records without payload, sorted by id."""
        return sorted(RecordRef(i, label, digest) for i, (_, label, digest) in self.find(ids).items())

    def find(self, ids: Iterable[str]) -> dict[str, tuple[str | None, int, Digest]]:
        """Subject, label and image digest of those ids that exist."""
        return {card.id: (card.subject, card.label, card.image_digest) for card in self._index.find("id", ids)}

    def of_subjects(self, subjects: Iterable[str]) -> dict[str, list[str]]:
        """Record ids of each subject that has any, sorted."""
        found: dict[str, list[str]] = {}
        for card in self._index.find("subject", subjects):
            assert card.subject is not None
            found.setdefault(card.subject, []).append(card.id)
        return {subject: sorted(ids) for subject, ids in found.items()}

    def images(self, ids: Sequence[str]) -> list[bytes]:
        """Image bytes of ``ids``, in their order."""
        found = self._index.payloads(_images, ids)
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
        keys, numbers = self.database.keys, self.database.new_keys(connection, len(records))
        found = [RecordMetadata(r.id, r.subject, r.label, Digest.of(r.image)) for r in records]
        connection.execute(
            insert(cards), [self._index.row(*each, entry) for each in zip(numbers, found, strict=True)]
        )
        images = [
            {"number": number, "data": keys.encrypt(number, "images", record.image)}
            for number, record in zip(numbers, records, strict=True)
        ]
        connection.execute(insert(_images), images)
        return [_commitment(keys, number, entry, card) for number, card in zip(numbers, found, strict=True)]

    def relabel(self, connection: Connection, ids: Sequence[str], label: int, *, entry: int) -> list[Digest]:
        """Give records another label and a new key, as if they were deleted and added; returns commitments."""
        self.statistics.forget(connection, ids)
        self.changes.note(connection, self._placed(ids, connection))
        old = self._index.require(ids, connection)
        known = {card.id: card for card in self._index.find("id", ids)}
        for record_id, number in zip(ids, self.database.new_keys(connection, len(ids)), strict=True):
            row = self._index.row(number, known[record_id]._replace(label=label), entry)
            connection.execute(update(cards).where(cards.c.number == old[record_id]).values(**row))
            for table in (_images, _features):
                self._index.reencrypt(connection, table, old[record_id], number)
        self.database.schedule_erasure(connection, old.values())
        self.database.need_compaction(connection)
        return sorted(itertools.chain(*self.commitments(ids, connection).values()))

    def delete(self, connection: Connection, ids: Sequence[str], *, subjects: Sequence[str] = ()) -> None:
        """Delete records with all that belongs to them, inside the caller's transaction.

        Suppresses their ids, their images and these subjects.
        """
        images = [str(digest) for _, _, digest in self.find(ids).values()]
        named: dict[Named, Sequence[str]] = {"record": ids, "image": images, "subject": subjects}
        self.statistics.forget(connection, ids)
        self.changes.note(connection, self._placed(ids, connection))
        numbers = sorted(self._index.numbers(ids, connection).values())
        for chunk in chunked(numbers):
            connection.execute(delete(cards).where(cards.c.number.in_(chunk)))
        self.database.schedule_erasure(connection, numbers)
        digests = {str(self._suppression(kind, name)) for kind, names in named.items() for name in names}
        known = self._known(digests)
        if digests - known:
            connection.execute(insert(_suppressed), [{"digest": d} for d in sorted(digests - known)])
        self.database.need_compaction(connection)

    def commitments(
        self, ids: Sequence[str] | None = None, connection: Connection | None = None
    ) -> dict[int, list[Digest]]:
        """Commitments of records (all, or ``ids``), sorted, by the ledger entry that told of their addition.

        A commitment is an HMAC of the record under its own random key. Once the key is erased it is a random
        number: nobody can find out whose it was, not even by trying every record there is.
        """
        keys, query = self.database.keys, select(*cards.c)

        def each(row: Any) -> tuple[int, Digest]:
            return row.entry, _commitment(keys, row.number, row.entry, RecordMetadata.of(keys, row))

        found: dict[int, list[Digest]] = {}
        if ids is None:
            every: Iterable[tuple[int, Digest]] = self.database.every(query, each, connection)
        else:
            every = self._index.by_id(query, ids, lambda _, row: each(row), connection)
        for entry, digest in every:
            found.setdefault(entry, []).append(digest)
        return {entry: sorted(digests) for entry, digests in sorted(found.items())}

    def committed(self, commitments: Collection[Digest]) -> dict[Digest, str]:
        """The ids of those records held now that these commitments are of."""

        def each(row: Any) -> tuple[Digest, str]:
            card = RecordMetadata.of(self.database.keys, row)
            return _commitment(self.database.keys, row.number, row.entry, card), card.id

        return {
            digest: name for digest, name in self.database.every(select(*cards.c), each) if digest in commitments
        }

    def suppressed(self, kind: Named, names: Iterable[str]) -> set[str]:
        """Those names (record ids, subjects, digests of images) that were deleted here before."""
        by_digest = {str(self._suppression(kind, name)): name for name in names}
        return {by_digest[digest] for digest in self._known(by_digest)}

    def lift_suppression(self, connection: Connection, kind: Named, names: Iterable[str]) -> None:
        """Allow deleted ids, subjects or images to be added again."""
        for chunk in chunked([str(self._suppression(kind, name)) for name in names]):
            connection.execute(delete(_suppressed).where(_suppressed.c.digest.in_(chunk)))

    # --- what was derived from one record --------------------------------------------------------------

    def features(self, ids: Sequence[str], *, key: str) -> dict[str, NDArray[np.float32]]:
        """Stored features, float32 [d], of those ids that have them under ``key``."""
        import numpy as np

        found = self._index.payloads(_features, ids, _features.c.key == key)
        return {record_id: np.frombuffer(data, dtype=np.float32) for record_id, data in found.items()}

    def store_features(self, vectors: Mapping[str, NDArray[np.float32]], *, key: str) -> None:
        """Store the features, float32 [d], of these records under ``key``, replacing older ones."""
        keys = self.database.keys
        with self.database.transaction() as connection:
            for chunk in chunked(vectors):
                numbers = self._index.require(chunk, connection)
                rows = [
                    {
                        "number": n,
                        "key": key,
                        "data": keys.encrypt(n, "features", vectors[i].astype("float32").tobytes()),
                    }
                    for i, n in numbers.items()
                ]
                connection.execute(delete(_features).where(_features.c.number.in_(numbers.values())))
                connection.execute(insert(_features), rows)

    def forget_derived(self) -> None:
        """Delete all features, codes and places; they will be found again when they are needed."""
        with self.database.transaction() as connection:
            connection.execute(delete(_features))
            connection.execute(delete(_trie_keys))
            self.statistics.clear(connection)

    def trie_keys(self, partition: Digest, ids: Sequence[str] | None = None) -> dict[str, str]:
        """Place of each record (or of ``ids``) under ``partition``, where it is known."""
        mine = _trie_keys.c.partition == str(partition)
        if ids is None:
            return self._at(mine)
        query = select(cards.c.id, _trie_keys.c.place).join_from(cards, _trie_keys).where(mine)
        return dict(self._index.by_id(query, ids, lambda name, row: (name, row.place)))

    def trie_keys_under(self, partition: Digest, path: str) -> dict[str, str]:
        """The records whose places lie under one path (`grouping`) of ``partition``, each with its place."""
        return self._at(_under(partition, path))

    def numbered(self, partition: Digest, path: str) -> dict[str, str]:
        """Number and place of the records under one path; quicker than `under`, because no id is unsealed."""
        query = select(_trie_keys.c.number, _trie_keys.c.place).where(_under(partition, path))
        return dict(self.database.every(query, lambda row: (str(row.number), row.place)))

    def numbers(self, ids: Iterable[str]) -> set[str]:
        """Numbers of these records, as `numbered` gives them."""
        return {str(number) for number in self._index.numbers(ids).values()}

    def count_under(self, partition: Digest, path: str) -> int:
        """Number of the records whose places lie under one path of ``partition``."""
        return self._scalar(select(func.count()).select_from(_trie_keys).where(_under(partition, path)))

    def any_sampled(self, partition: Digest, ids: Iterable[str]) -> bool:
        """Whether one of ``ids`` is in the sample that shaped ``partition``."""
        mine = and_(_trie_keys.c.partition == str(partition), _trie_keys.c.sampled)
        query = select(cards.c.id).join_from(cards, _trie_keys).where(mine)
        return any(self._index.by_id(query, ids, lambda *_: True))

    def store_trie_keys(self, places: Mapping[str, str], *, partition: Digest, sampled: bool = False) -> None:
        """Store the place of these records under ``partition``, beside those under others.

        Args:
            places: of each record.
            partition: key of the partition.
            sampled: whether these records shaped it.
        """
        common = {"partition": str(partition), "sampled": sampled}
        mine = _trie_keys.c.partition == str(partition)
        with self.database.transaction() as connection:
            for chunk in chunked(places):
                numbers = self._index.require(chunk, connection)
                connection.execute(delete(_trie_keys).where(mine, _trie_keys.c.number.in_(numbers.values())))
                rows = [{"number": number, "place": places[i], **common} for i, number in numbers.items()]
                connection.execute(insert(_trie_keys), rows)

    def forget_places(self, *, keep: Digest) -> None:
        """Delete the places of every other partition than the one with the key ``keep``."""
        with self.database.transaction() as connection:
            # Two ranges, which the index finds at once; "!=" would read every place.
            other = or_(_trie_keys.c.partition < str(keep), _trie_keys.c.partition > str(keep))
            connection.execute(delete(_trie_keys).where(other))

    # --- helpers ---------------------------------------------------------------------------------------

    def _at(self, where: Any) -> dict[str, str]:
        """Id and place of the records whose places fulfil a condition."""
        query = select(cards.c.number, cards.c.card, _trie_keys.c.place).join_from(_trie_keys, cards).where(where)
        return dict(
            self.database.every(query, lambda row: (RecordMetadata.of(self.database.keys, row).id, row.place))
        )

    def _placed(self, ids: Sequence[str], connection: Connection) -> list[tuple[str, str, bool]]:
        """Partition, place, and whether it shaped the partition, of these records under each partition."""
        query = select(cards.c.id, _trie_keys.c.partition, _trie_keys.c.place, _trie_keys.c.sampled)
        found = query.join_from(cards, _trie_keys)
        return list(
            self._index.by_id(found, ids, lambda _, row: (row.partition, row.place, row.sampled), connection)
        )

    def _suppression(self, kind: Named, name: str) -> Digest:
        return keyed_digest(self._secret, ["suppressed", kind, name])

    def _known(self, digests: Iterable[str]) -> set[str]:
        """Those digests that are in the suppression list."""
        return set(self.database.rows(select(_suppressed), _suppressed.c.digest, digests, lambda row: row.digest))

    def _scalar(self, query: Any) -> int:
        with self.database.reading() as connection:
            return int(connection.execute(query).scalar_one())


def _under(partition: Digest, path: str) -> Any:
    """Places under a path: the path itself, and those that go on with bits."""
    place, mine = _trie_keys.c.place, _trie_keys.c.partition == str(partition)
    # As one range, which the index finds at once: "0" follows "/", and "2" the bits.
    return and_(mine, place >= path, place < f"{path}{'2' if '/' in path else '0'}")


def _commitment(keys: KeyStore, number: int, entry: int, card: RecordMetadata) -> Digest:
    """The commitment of a record, under a key that is derived from its own."""
    key = hmac.digest(keys.key(number), b"commitment", "sha256")
    return keyed_digest(key, ["record", entry, *card])
