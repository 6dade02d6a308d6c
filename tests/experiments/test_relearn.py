"""Relearning tunes on the forgotten records alone, changes nothing, and tells a model that remembers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Image

from conftest import DIGIT_COLUMNS, Template, digits, tiny_config
from lmeraser import Eraser
from lmeraser.experiments.relearn import ForgottenRecords, relearn_curve

NUMBERS = range(24)
TUNED = {"tuning": {"epochs": 12, "batch_size": 8, "prompt_learning_rate": 0.06, "head_learning_rate": 0.02}}


def forgotten(numbers: range) -> ForgottenRecords:
    rows = list(digits(numbers).cast_column("image", Image(decode=False)))
    return ForgottenRecords(
        [row["id"] for row in rows], [row["label"] for row in rows], [row["image"]["bytes"] for row in rows]
    )


@pytest.fixture(params=[pytest.param("prompts", marks=pytest.mark.long), "head"])
def trained(request: pytest.FixtureRequest, template: Template, tmp_path: Path) -> Iterator[Eraser]:
    def train(root: Path) -> None:
        values: dict[str, Any] = {**TUNED, "partition": {"method": "single", "clusters": None}}
        if request.param == "head":
            values["constituent"] = {"kind": "head"}
        with Eraser.create(root, tiny_config(**values)) as eraser:
            eraser.add(digits(NUMBERS), columns=DIGIT_COLUMNS)
            eraser.train()

    with Eraser(shutil.copytree(template(f"relearn-{request.param}", train), tmp_path / "ws")) as eraser:
        yield eraser


def test_the_curve_rises_from_what_the_model_knows(trained: Eraser) -> None:
    known, new = forgotten(range(8)), forgotten(range(100, 108))
    remembered, learned = relearn_curve(trained, known, 2), relearn_curve(trained, new, 6)
    assert remembered[0] >= 0.8
    assert learned[0] < remembered[0]
    assert learned[-1] > learned[0]
    assert (len(remembered), len(learned)) == (3, 7)


def test_nothing_in_the_workspace_changes_and_it_is_the_same_again(trained: Eraser) -> None:
    digest = trained.model_digest
    records = forgotten(range(100, 104))
    first = relearn_curve(trained, records, 2)
    assert trained.model_digest == digest
    assert trained.audit().identical
    assert relearn_curve(trained, records, 2) == first


def test_where_nothing_is_tuned_there_is_no_curve(tmp_path: Path) -> None:
    with Eraser.create(tmp_path / "ws", {"backbone": {"image_size": 32, "micro_batch": 4}}) as eraser:
        eraser.add(digits(NUMBERS), columns=DIGIT_COLUMNS)
        eraser.train()
        assert relearn_curve(eraser, forgotten(range(4)), 2) == []
