"""The table of deletion requests, and a row of it as a `Request`."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Boolean, Column, Integer, String, Table

from lmeraser.core.digests import Digest
from lmeraser.storage.database import encrypted, schema
from lmeraser.workspace.requests.state import ModelSnapshot, Request

# In the stored words, "names" is what a selector holds, "selector" its keyed digest and "before" a model snapshot.
table = Table(
    "requests",
    schema,
    Column("id", String, primary_key=True),
    Column("regulation", String, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("received", String, nullable=False),
    Column("due", String, nullable=False),
    Column("changed", String, nullable=False),
    Column("names", Integer, nullable=False),
    Column("selector", String, nullable=False),
    Column("audit", Boolean, nullable=False),
    Column("records", Integer, nullable=True),
    Column("already_deleted", Integer, nullable=True),
    Column("before", JSON, nullable=True),
    Column("reason", String, nullable=True),
    Column("certificate", String, nullable=True),
    Column("slot", Integer, nullable=True),
    encrypted("sealed_names", what="names", slot="slot", nullable=True),
    Column("asked", String, nullable=True),
    Column("duplicates", Integer, nullable=True),
    Column("near_duplicates", Integer, nullable=True),
    *(
        Column(name, String, nullable=True)
        for name in ("starts", "filed_by", "extended", "extension_reason", "cancel_reason")
    ),
    Column("reference_slot", Integer, nullable=True),
    encrypted("sealed_reference", what="reference", slot="reference_slot", nullable=True),
)


def request_of(row: Any) -> Request:
    """The request in a row of the table."""
    mapping = row._mapping
    values = {name: mapping[name] for name in Request.__dataclass_fields__}
    if values["before"] is not None:
        values["before"] = ModelSnapshot.of_json(values["before"])
    if values["certificate"] is not None:
        values["certificate"] = Digest(values["certificate"])
    return Request(**values)
