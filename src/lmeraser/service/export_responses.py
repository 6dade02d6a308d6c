"""What the service says of copies of the model: to those who list them, and to holders whose copy is recalled.

Knows nothing about HTTP.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from lmeraser.config.deployment import ServiceConfig
from lmeraser.evidence.copies import CopyState, OutsideCopy
from lmeraser.workspace.exports import HeldCopy

_EXAMPLE: dict[str, Any] = {
    "id": "6f1c2f0e-8f5e-4b60-9a2e-0d7c5d7b5d11",
    "generation": 3,
    "exported": "2026-01-31T12:00:00Z",
    "records_erased": 2,
    "records_rectified": 0,
    "since": "2026-02-14T09:30:00Z",
}


class _Copy(BaseModel):
    id: str
    generation: int
    exported: str
    records_erased: int
    records_rectified: int
    since: str | None


class ExportRecall(_Copy):
    """The body of a recall: which copy holds the influence of how many erased records, and since when.

    Attributes:
        event: what this is.
        controller_id: of the maker of the copy.
        id: of the copy, as its manifest has it.
        generation: that it is a copy of.
        exported: when the copy was made.
        records_erased: how many records with influence on it were deleted since.
        records_rectified: how many were given another label since.
        since: when the first of them was.
        confirm: path of the service, to be called with POST once the copy is deleted.
    """

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    event: Literal["export.recalled"] = "export.recalled"
    controller_id: str
    confirm: str

    @classmethod
    def of(cls, copy: OutsideCopy, config: ServiceConfig) -> Self:
        """The recall of a copy."""
        values: dict[str, Any] = copy.to_json()
        return cls(
            **{name: values[name] for name in _Copy.model_fields},
            controller_id=config.controller_id,
            confirm=f"/exports/{copy.id}/confirm",
        )


class ExportStatus(_Copy):
    """A copy and what has become of it; see `OutsideCopy`. Only whoever may list all of them sees holders."""

    model_config = ConfigDict(json_schema_extra={"examples": [{**_EXAMPLE, "state": "recalled"}]})

    state: CopyState
    format: str
    manifest: str
    told: str | None
    told_of: int
    confirmed: str | None
    holder_url: str | None = None
    holder_contact: str | None = None

    @classmethod
    def of(cls, held: HeldCopy, *, with_holder: bool) -> Self:
        """The status of a copy."""
        values = held.to_json() if with_holder else held.copy.to_json()
        return cls.model_validate(values)
