"""The last evaluation of the served model, kept for the service's pages and for exports. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from lmeraser.core.atomic_files import write_atomic
from lmeraser.core.digests import Digest

if TYPE_CHECKING:
    from lmeraser.inference.evaluate import EvaluationReport

_SUMMARY = "evaluation.json"


class EvaluationSummary(BaseModel):
    """The part of an evaluation that is saved until the next generation.

    Attributes:
        model_digest: of the model that was evaluated.
        images: as in `EvaluationReport`.
        accuracy: as in `EvaluationReport`.
        linear_accuracy: as in `EvaluationReport`.
        confusion: as in `EvaluationReport`; empty in files of before 0.2.
    """

    model_digest: Digest
    images: int
    accuracy: float
    linear_accuracy: float | None
    confusion: tuple[tuple[int, ...], ...] = ()


def save_summary(reports: Path, digest: Digest, report: EvaluationReport) -> None:
    """Save a summary in the folder of reports, which is purged with every generation."""
    summary = EvaluationSummary(
        model_digest=digest,
        images=report.images,
        accuracy=report.accuracy,
        linear_accuracy=report.linear_accuracy,
        confusion=report.confusion,
    )
    write_atomic(reports / _SUMMARY, summary.model_dump_json().encode())


def load_summary(reports: Path, digest: Digest) -> EvaluationSummary | None:
    """The summary of the last evaluation, if it was of the model with this digest."""
    try:
        summary = EvaluationSummary.model_validate_json((reports / _SUMMARY).read_bytes())
    except (OSError, ValueError):  # pydantic's errors are ValueErrors
        return None
    return summary if summary.model_digest == digest else None
