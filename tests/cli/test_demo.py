"""The demo runs the main job and says so truthfully."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from PIL import Image

import lmeraser.cli.demo as demo
from conftest import Run
from lmeraser.config.presets import PresetName
from lmeraser.config.schema import Config
from lmeraser.data.sources import Columns
from lmeraser.errors import InputError, SourceError

original, original_digits = demo.demo_config, demo.handwritten_digits


def quick(preset: PresetName, records: int) -> Config:
    """The demo's settings with one epoch, and a sample that leaves out a quarter of the records at least.

    With few records, few clusters and the features alone: solving for the head of all layers takes its time.
    """
    config = original(preset)
    partition: dict[str, Any] = {"sample_size": min(config.partition.sample_size, records * 3 // 4)}
    changes: dict[str, Any] = {"tuning": config.tuning.model_copy(update={"epochs": 1})}
    if records < 100:
        partition |= {"clusters": 5} if config.partition.clusters else {}
        changes["embedding"] = config.embedding.model_copy(update={"layers": ("final",)})
    changes["partition"] = config.partition.model_copy(update=partition)
    return config.model_copy(update=changes)


@pytest.mark.parametrize(
    ("records", "accuracy", "clusters"),
    [
        (96, 0.5, 4),
        pytest.param(160, 0.9, 15, marks=pytest.mark.long),
        pytest.param(10**6, 0.9, 15, marks=pytest.mark.long, id="all"),
    ],
)
def test_the_demo_from_end_to_end(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    records: int,
    accuracy: float,
    clusters: int,
) -> None:
    def some_digits() -> tuple[Dataset, Dataset]:
        private, held_out = original_digits()
        return private.take(min(records, len(private))), held_out.take(min(records * 3 // 8, len(held_out)))

    monkeypatch.setattr(demo, "handwritten_digits", some_digits)
    monkeypatch.setattr(demo, "demo_config", partial(quick, records=records))
    out = tmp_path / "demo"
    report = demo.run_demo(out)
    assert report.identical
    instant, prompts = report.modes
    assert (instant.preset, instant.clusters, instant.expected_share) == ("instant", 1, 0)
    assert [request.records for request in instant.requests] == [1, 20]
    assert not any(request.clusters_tuned or request.sample_hit for request in instant.requests)
    assert instant.accuracy > accuracy
    assert prompts.clusters >= clusters
    assert [request.records for request in prompts.requests] == [1, 1, 20]
    assert [request.sample_hit for request in prompts.requests] == [False, True, True]
    assert prompts.requests[0].clusters_tuned == 1
    for name in ("clusters.png", "sizes.png"):
        with Image.open(out / name) as picture:
            assert picture.width > 300
    assert json.loads((out / "lmeraser-demo.json").read_bytes())["identical"] is True
    demo.print_demo(report)
    assert "identical to retraining" in capsys.readouterr().out
    demo._clear(out)
    assert not out.exists(), "an earlier demo is written over"


def _table(path: Path, rows: int) -> Path:
    words = ("card lost", "refund please", "close account")
    lines = [f"{words[number % 3]} number {number},{'abc'[number % 3]}" for number in range(rows)]
    path.write_text("\n".join(["said,topic", *lines]))
    return path


@pytest.mark.long
def test_the_demo_on_texts_of_the_users_own(tmp_path: Path, run: Run) -> None:
    table = _table(tmp_path / "tickets.csv", 60)
    options = ["--text", table, "--text-column", "said", "--label-column", "topic", "--json"]
    result = run("demo", "--out", tmp_path / "demo", *options)
    assert result.code == 0
    assert result.json["identical"] is True
    assert result.json["records"] == 50
    assert [len(mode["requests"]) for mode in result.json["modes"]] == [2, 2], "all texts are in the sample"
    assert (tmp_path / "demo" / "sizes.png").is_file()


def test_texts_for_the_demo_are_checked_before_anything_is_trained(tmp_path: Path, run: Run) -> None:
    table = _table(tmp_path / "tickets.csv", 60)
    private, held_out = demo.read_texts(table, Columns(payload="said", label="topic"))
    assert (len(private), len(held_out)) == (50, 10)
    assert held_out[1] == {"id": "row-00000006", "text": "card lost number 6", "label": "a"}
    few = _table(tmp_path / "few.csv", 20)
    for arguments, message in (
        (["--text", table], "topic"),
        (["--text", few, "--text-column", "said", "--label-column", "topic"], "Too few texts for the demo"),
        (["--text-column", "said"], "Columns without a table"),
    ):
        result = run("demo", "--out", tmp_path / "demo", *arguments)
        assert (result.code, message in result.err) == (2, True), result
    table.write_text(table.read_text() + "\n ,a")
    with pytest.raises(SourceError, match="the text is empty"):
        demo.read_texts(table, Columns(payload="said", label="topic"))
    assert not (tmp_path / "demo").exists()


def test_one_audit_that_differs_is_a_failure() -> None:
    same = demo.DemoRequest("1", 1, False, 1, 1, 1.0, 1.0, 1.0, identical=True, accuracy=1.0)
    assert not all(request.identical for request in (same, replace(same, identical=False)))


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="Output folder is not empty"):
        demo.run_demo(tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_the_settings_of_the_demo_are_valid_and_small() -> None:
    assert demo.demo_config("instant").constituent.kind == "none"
    config = demo.demo_config("prompts")
    assert config.backbone.image_size <= 64
    assert config.partition.clusters is not None
    assert config.partition.clusters >= 15
