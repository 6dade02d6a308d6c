"""Pictures and a table of an evaluation: confusion matrix and reliability diagram. Imports no torch."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from lmeraser.workspace.class_figures import draw_confusion, draw_reliability
from lmeraser.workspace.figures import write_figure

if TYPE_CHECKING:
    from lmeraser.inference.evaluate import EvaluationReport


def draw_evaluation(report: EvaluationReport, folder: Path) -> list[Path]:
    """Write ``confusion.png``, ``confusion.csv`` and ``reliability.png``.

    Args:
        report: the evaluation.
        folder: made if it is missing.

    Returns:
        The files.

    Raises:
        StorageError: the folder cannot be written to.
    """
    picture, table, diagram = (folder / name for name in ("confusion.png", "confusion.csv", "reliability.png"))
    draw_confusion(report.confusion, report.classes, picture)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["label", *report.classes])
    writer.writerows([name, *row] for name, row in zip(report.classes, report.confusion, strict=True))
    write_figure(text.getvalue().encode(), table)
    draw_reliability(report.reliability, diagram)
    return [picture, table, diagram]
