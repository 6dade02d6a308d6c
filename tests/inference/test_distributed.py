"""Workers evaluate as this process does, bit for bit, quarantine and all, and may die meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import DIGIT_CLASSES, DIGIT_COLUMNS, digits, tiny_config
from lmeraser import Columns, Eraser
from lmeraser.errors import CorruptError, SourceError
from lmeraser.inference.served import distributed_predictor

POOLED = {"executor": "processes", "processes": 2}
IMAGES = digits(range(60, 100))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained workspace; a deletion from it was accepted."""
    folder = tmp_path_factory.mktemp("pooled") / "w"
    config = tiny_config(partition={"clusters": 4, "sample_size": 10}, global_head={"weight": 0.5})
    with Eraser.create(folder, config, classes=DIGIT_CLASSES) as eraser:
        eraser.add(digits(range(40)), columns=DIGIT_COLUMNS)
        eraser.train()
        eraser.request(ids=["digit-0003"])
    return folder


@pytest.fixture(scope="module")
def pooled(root: Path) -> Iterator[Eraser]:
    with Eraser(root, compute=POOLED) as eraser:
        yield eraser


def test_the_report_is_that_of_one_process(root: Path, pooled: Eraser) -> None:
    with Eraser(root) as eraser:
        assert eraser.quarantined()
        expected = eraser.evaluate(IMAGES, columns=DIGIT_COLUMNS)
    assert pooled.evaluate(IMAGES, columns=DIGIT_COLUMNS) == expected
    assert expected.linear_accuracy is not None
    assert not pooled.session.executors.is_loaded, "this process needs no backbone for it"


def test_probabilities_are_the_same_bits_whatever_is_lost(root: Path, pooled: Eraser) -> None:
    payloads = [pooled.workspace.records.payloads(pooled.record_ids()[start::3]) for start in range(3)]
    with Eraser(root) as eraser:
        expected = list(eraser.predictor().batches(payloads))
    answers = distributed_predictor(pooled.session).batches(payloads * 2)
    found = [next(answers)]
    os.kill(multiprocessing.active_children()[0].pid or 0, 9)
    found += answers
    for ours, theirs in zip(found, expected * 2, strict=True):
        np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)
        np.testing.assert_array_equal(ours.features, theirs.features)
        np.testing.assert_array_equal(ours.clusters, theirs.clusters)
        assert ours.rerouted.any() == theirs.rerouted.any()


def test_faults_of_the_source_are_all_listed(pooled: Eraser) -> None:
    wrong = digits(range(6)).add_column("wrong", [str(20 + n) for n in range(6)])
    with pytest.raises(SourceError) as caught:
        pooled.evaluate(wrong, columns=Columns(id="id", label="wrong"))
    assert len(caught.value.faults) == 6


def test_an_artifact_that_is_gone_is_an_error(root: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(root, tmp_path / "w"))
    for path in (copy / "artifacts").rglob("*.safetensors"):
        path.unlink()
    with (
        Eraser(copy, compute={**POOLED, "processes": 1}) as eraser,
        pytest.raises(CorruptError, match="derives them again"),
    ):
        eraser.evaluate(IMAGES, columns=DIGIT_COLUMNS)
