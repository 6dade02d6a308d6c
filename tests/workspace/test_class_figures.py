"""Pictures of classes, evaluations and requests."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmeraser import Eraser
from lmeraser.core.time import to_text
from lmeraser.evidence.hash_chain import Entry
from lmeraser.workspace.class_figures import RequestHistory, draw_confusion, draw_reliability, draw_requests
from modality_records import classes_of, columns_of, records_of

START = datetime(2026, 1, 1, tzinfo=UTC)


def is_drawn(path: Path) -> bool:
    with Image.open(path) as picture:
        return len(set(picture.convert("L").tobytes())) > 5


@pytest.fixture
def instant(tmp_path: Path) -> Eraser:
    settings = {"data": {"modality": "vector", "length": 6}}
    with Eraser.create(tmp_path / "w", settings, classes=classes_of("vector")) as made:
        made.add(records_of("vector", range(24)), columns=columns_of("vector"))
        made.train()
    return Eraser(tmp_path / "w")


def test_of_instant_there_is_a_plane_with_classes_and_the_last_evaluation(instant: Eraser) -> None:
    from lmeraser.inference.summary import save_summary

    with instant as eraser:
        names = [path.name for path in eraser.draw()]
        assert names == ["plane.png", "classes.png", "requests.png"]
        report = eraser.evaluate(records_of("vector", range(24)), columns=columns_of("vector"), linear=False)
        save_summary(eraser.workspace.reports, eraser.model_digest, report)
        drawn = eraser.draw()
        assert [path.name for path in drawn] == [*names[:2], "confusion.png", "requests.png"]
        assert all(is_drawn(path) for path in drawn)
        eraser.unlearn(ids=["digit-0003"])
        assert not any(path.exists() for path in drawn)  # pictures of records go with them
        eraser.unlearn(ids=[i for i in eraser.record_ids() if int(i[-4:]) % 3])  # one class is left
        assert [path.name for path in eraser.draw()] == ["classes.png", "requests.png"]


def test_an_evaluation_counts_what_was_taken_for_what(instant: Eraser) -> None:
    with instant as eraser:
        report = eraser.evaluate(records_of("vector", range(24)), columns=columns_of("vector"), linear=False)
    confusion = np.array(report.confusion)
    assert confusion.sum() == 24
    assert np.trace(confusion) / 24 == pytest.approx(report.accuracy)
    assert confusion.sum(axis=1).tolist() == [8, 8, 8]
    assert sum(count for _, _, count in report.reliability) == 24
    gaps = [abs(sure - right) * count / 24 for sure, right, count in report.reliability]
    assert sum(gaps) == pytest.approx(report.calibration_error)
    assert not {"classes", "confusion", "reliability"} & report.to_json().keys()


@pytest.mark.parametrize("classes", [1, 3, 60])
def test_confusion_and_reliability_of_any_size(classes: int, tmp_path: Path) -> None:
    names = [f"class with a long name {number}" for number in range(classes)]
    draw_confusion(np.eye(classes, dtype=int).tolist(), names, tmp_path / "confusion.png")
    draw_reliability([(0.5, 0.25, 4), (0.95, 1.0, 20)], tmp_path / "reliability.png")
    assert is_drawn(tmp_path / "confusion.png")
    assert is_drawn(tmp_path / "reliability.png")


def entry(day: int, kind: str, **body: object) -> Entry:
    return Entry(day, None, to_text(START + timedelta(days=day)), kind, body)


def ledger(digest: Callable[[int], str]) -> list[Entry]:
    asked = {"regulation": "gdpr", "received": "2026-01-01T00:00:00Z", "due": "2026-02-01T00:00:00Z", "names": 1}
    return [
        entry(0, "generation", generation=1, manifest=digest(0), records=10),
        entry(1, "request", request="a", **asked),
        entry(2, "request", request="b", **asked),
        entry(3, "deleted", requests=["a"], removed={"0": [digest(1), digest(2)]}),
        entry(4, "generation", generation=2, manifest=digest(3), records=8),
        entry(5, "completed", request="a", certificate=digest(4)),
        entry(6, "cancelled", request="b"),
    ]


def test_the_history_of_requests_is_what_the_ledger_says(tmp_path: Path) -> None:
    entries = ledger(lambda number: f"sha256:{number:064x}")
    history = RequestHistory.of(entries)
    assert [records for _, records in history.generations] == [10, 8]
    assert [when.day for when in history.accepted] == [2, 3]
    assert [(when.day, days, size) for when, days, size in history.answered] == [(6, 4.0, 2)]
    assert [count for _, count in history.open] == [1, 2, 1, 0]
    for number, part in enumerate((entries, entries[:1], [])):
        draw_requests(part, tmp_path / f"{number}.png")
        assert is_drawn(tmp_path / f"{number}.png")
