"""Which records a name means, however it is spelled, and which names are held that look like it.

Rules (`canonical_names` has the canonical form):
- an id is held in its canonical form; a source in which ids differ in white space alone keeps them as they are
  written, and so does a workspace of before 0.2, because the model depends on ids;
- a subject is found by the keyed digest of its canonical form; its record's metadata keep the source's spelling;
- rows of before 0.2 have the digest of the subject as it was spelled, until `merge_subjects` replaces it;
- an id that is held exactly as it was given means that record and no other; one that was deleted exactly as it was
  given means none; any other spelling means the record whose id has the same canonical form, and all of them if
  there are several: the caller asks which one.

Names are encrypted, so other spellings of before 0.2 are found by decrypting all names. A workspace without any
remembers that this would find nothing (metadata ``names``).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import Connection, func, select, update

from lmeraser.data.canonical_names import canonical_or_none, near_key, show
from lmeraser.data.identities import NOT_INDEXED, RecordIndex, RecordMetadata, records_table
from lmeraser.data.suppression import SuppressionList
from lmeraser.storage.database import Database

NameKind = Literal["id", "subject"]

_STATE = "names"  # in the workspace's metadata; missing: nothing is known of the names, as before 0.2
_SUBJECTS_FOUND = "subjects"  # all subjects are found by their canonical form
_CANONICAL = "canonical"  # and all ids are in canonical form


def note_new_workspace(database: Database, connection: Connection) -> None:
    """Remember that a workspace without records holds no other spellings, inside the caller's transaction."""
    database.set_metadata(connection, _STATE, _CANONICAL)


@dataclass(frozen=True, order=True)
class NearMiss:
    """A name that is held and looks like one that was given, but is another one.

    Attributes:
        kind: of both names.
        given: as it was given.
        held: as it is held.
    """

    kind: NameKind
    given: str
    held: str

    def __str__(self) -> str:
        """The two names, as a warning shows them."""
        words = "record id" if self.kind == "id" else "subject"
        return f"{words} {self.given!r} looks like {show(self.held, beside=self.given)}, which is not selected"


@dataclass(frozen=True)
class NameSurvey:
    """The names of a workspace that are not held, or not found, in their canonical form.

    Attributes:
        respelled: for the canonical form of a subject, its other spellings, each of which is found on its own.
        merging: for each of these subjects that is held in several spellings, all of them; they would become one.
        ids: for the canonical form of an id, the ids that have it, where that is not just the canonical form. They
            stay as they are, because the model depends on ids.
    """

    respelled: dict[str, frozenset[str]] = field(default_factory=dict)
    merging: dict[str, frozenset[str]] = field(default_factory=dict)
    ids: dict[str, frozenset[str]] = field(default_factory=dict)

    def describe_merging(self) -> list[str]:
        """A line for each subject that is held in several spellings."""
        return [
            f"{name!r} is written {', '.join(map(ascii, sorted(ways)))}"
            for name, ways in sorted(self.merging.items())
        ]

    def to_json(self) -> dict[str, object]:
        """The survey as JSON values: spellings by canonical form."""
        return {
            "subjects": {name: sorted(ways) for name, ways in sorted((self.respelled | self.merging).items())},
            "ids": {name: sorted(ways) for name, ways in sorted(self.ids.items())},
        }


class NameLookup:
    """The names of the records of one workspace.

    Args:
        index: metadata of the records.
        suppression: what was deleted.
    """

    def __init__(self, index: RecordIndex, suppression: SuppressionList) -> None:
        self._index = index
        self._suppression = suppression
        self._database = index.database

    # --- what a name means -----------------------------------------------------------------------------

    def matches(self, kind: NameKind, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """What each of these names means, as it is held; names that mean nothing here are left out.

        Args:
            kind: of the names.
            names: in any spelling.
        """
        given = set(names)
        canonical = {name: form for name in given if (form := canonical_or_none(name)) is not None}
        held = self._held(kind, given.union(canonical.values()))
        exact = {name: (name,) for name in given & held if kind == "id" or name not in canonical}
        absent = given.difference(exact)
        deleted = self._suppression.find("record", absent) if kind == "id" else set()
        open_names = {name: canonical[name] for name in absent - deleted if name in canonical}
        others = self._other_spellings(kind) if self._may_be_spelled_otherwise(kind, open_names) else {}
        found = {
            name: tuple(sorted(others.get(form, frozenset()) | ({form} & held)))
            for name, form in open_names.items()
        }
        return exact | {name: meant for name, meant in found.items() if meant}

    def ids_of_subjects(self, subjects: Iterable[str]) -> dict[str, list[str]]:
        """Ids, sorted, of the records of each of these subjects that has any.

        Until spellings are merged, one that is held exactly so means its own records alone, as when it was named.
        """
        names = set(subjects)
        exact = set() if not names or self.merged else self._held("subject", names)
        by_digest: dict[bytes, set[str]] = {}
        for name in names:
            found_by = self._index.lookup_digest("subject", name) if name in exact else None
            by_digest.setdefault(found_by or self._index.subject_digest(name), set()).add(name)
        found: dict[str, list[str]] = {}
        rows = self._database.fetch_where_in(
            self._names_query,
            records_table.c.subject,
            by_digest,
            lambda row: (row.subject, self._decrypt(row).id),
        )
        for digest, record_id in rows:
            for subject in by_digest[digest]:
                found.setdefault(subject, []).append(record_id)
        return {subject: sorted(ids) for subject, ids in found.items()}

    def near_misses(self, kind: NameKind, names: Iterable[str], *, meant: Collection[str] = ()) -> list[NearMiss]:
        """Names that are held and look like one of these, sorted.

        Args:
            kind: of the names.
            names: as they were given.
            meant: names that are held and were meant by these, which are no near misses.
        """
        given: dict[str, list[str]] = {}
        for name in names:
            given.setdefault(near_key(name), []).append(name)
        excluded = {*meant, *(canonical_or_none(name) for name in meant if kind == "subject")}

        def looks_alike(row: Any) -> tuple[str, str] | None:
            metadata = self._decrypt(row)
            held = metadata.id if kind == "id" else metadata.subject
            if held is None or (key := near_key(held)) not in given:
                return None
            name = held if kind == "id" else canonical_or_none(held) or held
            return None if name in excluded else (key, name)

        column = records_table.c.near_id if kind == "id" else records_table.c.near_subject
        digests = {self._index.near_digest(kind, of_key[0]) for of_key in given.values()}
        found = set(self._database.fetch_where_in(self._names_query, column, digests, looks_alike))
        if given:
            found |= set(self._database.fetch(self._names_query.where(NOT_INDEXED), looks_alike))
        pairs = {pair for pair in found if pair is not None}
        return sorted(NearMiss(kind, name, held) for key, held in pairs for name in given[key])

    # --- spellings -------------------------------------------------------------------------------------

    @property
    def merged(self) -> bool:
        """Whether all subjects are found by their canonical form."""
        return self._database.get_metadata(_STATE) in (_SUBJECTS_FOUND, _CANONICAL)

    def survey(self) -> NameSurvey:
        """The names that are not held, or not found, in their canonical form; decrypts all names."""
        if self._database.get_metadata(_STATE) == _CANONICAL:
            return NameSurvey()
        ids, subjects = self._other_spellings("id"), self._other_spellings("subject")
        held_ids, held_subjects = self._held("id", ids), self._held("subject", subjects)
        with_canonical = {form: names | ({form} & held_subjects) for form, names in subjects.items()}
        return NameSurvey(
            respelled=subjects,
            merging={form: names for form, names in with_canonical.items() if len(names) > 1},
            ids={form: names | ({form} & held_ids) for form, names in ids.items()},
        )

    def merge_subjects(self, connection: Connection) -> None:
        """Find all subjects by their canonical form from now on, inside the caller's transaction."""
        for row in connection.execute(self._names_query).all():
            subject = self._decrypt(row).subject
            if subject is not None and (found_by := self._index.subject_digest(subject)) != row.subject:
                its_row = records_table.c.number == row.number
                connection.execute(update(records_table).where(its_row).values(subject=found_by))
        spelled_ids = self._other_spellings("id", connection)
        self._database.set_metadata(connection, _STATE, _SUBJECTS_FOUND if spelled_ids else _CANONICAL)

    def note_spelled_ids(self, connection: Connection) -> None:
        """Remember that ids are held that are not in canonical form, inside the caller's transaction."""
        if self._database.get_metadata(_STATE, connection) == _CANONICAL:
            self._database.set_metadata(connection, _STATE, _SUBJECTS_FOUND)

    def subjects_before(
        self, subjects: Collection[str], entry: int, connection: Connection
    ) -> Iterator[tuple[str, str]]:
        """Canonical form and one spelling of those of these subjects that had records before a ledger entry.

        Args:
            subjects: in canonical form.
            entry: position of the ledger entry.
            connection: of the caller's transaction.
        """
        by_digest = {self._index.subject_digest(subject): subject for subject in subjects}
        first = (
            select(func.min(records_table.c.number).label("number"))
            .where(records_table.c.entry < entry)
            .group_by(records_table.c.subject)
        )
        numbers = self._database.fetch_where_in(
            first, records_table.c.subject, by_digest, lambda row: row.number, connection
        )
        rows = self._database.fetch_where_in(
            self._names_query, records_table.c.number, list(numbers), lambda row: row, connection
        )
        for row in rows:
            spelling = self._decrypt(row).subject
            assert spelling is not None
            yield by_digest[row.subject], spelling

    _names_query = select(records_table.c.number, records_table.c.subject, records_table.c.card)

    def _decrypt(self, row: Any) -> RecordMetadata:
        return RecordMetadata.decrypt(self._database.keys, row)

    def _held(self, kind: NameKind, names: Iterable[str]) -> set[str]:
        """Those of these names that are held, or found, exactly so."""
        by_digest = {self._index.lookup_digest(kind, name): name for name in names}
        column = records_table.c[kind]
        found = self._database.fetch_where_in(
            select(column).distinct(), column, by_digest, lambda row: by_digest[row[0]]
        )
        return set(found)

    def _may_be_spelled_otherwise(self, kind: NameKind, names: Collection[str]) -> bool:
        if not names:
            return False
        state = self._database.get_metadata(_STATE)
        return state != _CANONICAL and not (kind == "subject" and state == _SUBJECTS_FOUND)

    def _other_spellings(self, kind: NameKind, connection: Connection | None = None) -> dict[str, frozenset[str]]:
        """For each canonical form, the names held that have it and are spelled otherwise; decrypts all names."""

        def each(row: Any) -> tuple[str, str] | None:
            metadata = self._decrypt(row)
            name = metadata.id if kind == "id" else metadata.subject
            if name is None or (form := canonical_or_none(name)) is None or form == name:
                return None
            if kind == "subject" and row.subject == self._index.lookup_digest("subject", form):
                return None
            return form, name

        found: dict[str, set[str]] = {}
        for pair in self._database.fetch(self._names_query, each, connection):
            if pair is not None:
                found.setdefault(pair[0], set()).add(pair[1])
        return {form: frozenset(names) for form, names in found.items()}
