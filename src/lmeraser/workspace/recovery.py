"""Recovery after a crash: what a writer completes before it changes anything.

A crash may leave three things undone:
1. keys that a transaction scheduled for erasure, files of values that it replaced, and entries that wait in the
   ledger's outbox;
2. the ledger's first entry, if creation was interrupted after ``workspace.json`` was written;
3. the entry that records a generation, if its manifest was published just before.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime

from sqlalchemy import Connection

from lmeraser.data.identities import note_drawn_numbers
from lmeraser.data.name_lookup import note_new_workspace
from lmeraser.evidence.dsse import PublicKey
from lmeraser.evidence.entries import GenerationPublished, WorkspaceCreated
from lmeraser.evidence.ledger import Ledger
from lmeraser.models.manifest import Model
from lmeraser.storage.database import Database
from lmeraser.workspace.creation import FORMAT
from lmeraser.workspace.key_files import check_value

_RECORDED_GENERATION = (
    "told_generation"  # the name in the database of the model that the ledger's last entry records
)


class Recovery:
    """The steps of recovery, for the one writer; each is harmless to repeat.

    Args:
        database: of the workspace.
        ledger: of the workspace.
        clock: tells the time.
    """

    def __init__(self, database: Database, ledger: Ledger, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._ledger = ledger
        self._clock = clock

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One transaction, completed at once."""
        with self._database.transaction() as connection:
            yield connection
        with self.completing():
            pass

    @contextlib.contextmanager
    def completing(self) -> Iterator[Connection]:
        """One transaction that begins by completing earlier ones (1). If it is rolled back, the next one does."""
        with self._database.transaction() as connection:
            self._database.erase(connection)
            self._ledger.flush(connection)
            yield connection
        self._database.discard_files()  # others need not wait for this

    def creation_recorded(self, connection: Connection) -> bool:
        """Whether the ledger has its first entry."""
        return self._database.get_metadata("ledger", connection) is not None

    def record_creation(self, connection: Connection, key: PublicKey, *, secret: bytes) -> None:
        """Record that the workspace was created (2)."""
        self._ledger.note(connection, WorkspaceCreated(format=FORMAT, key=key.key_id), now=self._clock())
        self._database.set_metadata(connection, "secret", check_value(secret))
        note_new_workspace(self._database, connection)
        note_drawn_numbers(self._database, connection)

    def record_generation(self, connection: Connection, model: Model) -> None:
        """Record the served generation, unless it is the one recorded last (3)."""
        digest = model.public_digest
        if self._database.get_metadata(_RECORDED_GENERATION, connection) == digest:
            return
        name = "model" if model.nonce is None else "manifest"
        published = GenerationPublished(generation=model.generation, records=model.records, **{name: digest})
        self._ledger.note(connection, published, now=self._clock())
        self._database.set_metadata(connection, _RECORDED_GENERATION, digest)


def forget_recorded_generation(database: Database, connection: Connection) -> None:
    """Let the next generation be recorded even if its digest is that of the last one."""
    database.set_metadata(connection, _RECORDED_GENERATION, "")
