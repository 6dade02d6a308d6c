"""Training brings the served generation up to date, does nothing twice, and continues where it was stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from conftest import DIGIT_COLUMNS, digits, tiny_config
from lmeraser import Eraser
from lmeraser.config.toml_file import to_toml
from lmeraser.errors import ConfigError, NoModelError, StorageError


def rewrite(eraser: Eraser, **changes: dict[str, Any]) -> Eraser:
    """The same workspace opened again with other settings."""
    (eraser.workspace.root / "lmeraser.toml").write_text(to_toml(tiny_config(**changes)))
    return Eraser(eraser.workspace.root)


def test_training_twice_is_training_once(eraser: Eraser) -> None:
    report = eraser.train()
    assert not report.changed
    assert report.stage_counts == {"assigned": 0, "tuned": 0, "tuned_records": 0}
    assert eraser.status().generation == 0


def test_generations_only_move_forward_and_name_their_parent(eraser: Eraser) -> None:
    first = eraser.status().manifest_digest
    eraser.add(digits([50, 51]), columns=DIGIT_COLUMNS)
    assert not eraser.status().up_to_date
    eraser.train()
    status = eraser.status()
    assert (status.generation, status.parent, status.up_to_date) == (1, first, True)


def test_an_empty_workspace_says_what_to_do(tmp_path: Path) -> None:
    with Eraser.create(tmp_path / "w", tiny_config()) as eraser, pytest.raises(NoModelError, match="lmeraser add"):
        eraser.train()


def test_other_settings_are_another_model(eraser: Eraser) -> None:
    with rewrite(eraser, tuning={"epochs": 3}) as other:
        assert not other.status().up_to_date
        report = other.train()
        assert report.changed
        assert "embedded" not in report.stage_counts
        assert "fitted" not in report.stage_counts
        assert report.stage_counts["tuned"] == other.status().clusters


def test_where_it_is_computed_is_not_part_of_the_model(eraser: Eraser) -> None:
    with rewrite(eraser, compute={"workers": 1, "image_memory_mb": 1}) as other:
        assert other.status().up_to_date
        assert not other.train().changed


def test_an_interrupted_training_continues(tmp_path: Path) -> None:
    def stop(step: str, done: int, total: int | None) -> None:
        if step == "tuning clusters" and total and done > 0.9 * total:
            raise KeyboardInterrupt

    config = tiny_config(compute={"workers": 1})
    with Eraser.create(tmp_path / "w", config, progress=stop) as eraser:
        eraser.add(digits(range(24)), columns=DIGIT_COLUMNS)
        with pytest.raises(KeyboardInterrupt):
            eraser.train()
        assert eraser.status().generation is None
    with Eraser(tmp_path / "w") as eraser:
        report = eraser.train()
        assert 0 < report.stage_counts["tuned"] < eraser.status().clusters
        assert "embedded" not in report.stage_counts
        assert eraser.audit().identical
    with Eraser.create(tmp_path / "straight", config) as straight:
        straight.add(digits(range(24)), columns=DIGIT_COLUMNS)
        assert straight.train().model.model_digest == report.model.model_digest


def test_a_full_disk_leaves_the_served_generation(eraser: Eraser, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    digest = eraser.model_digest
    eraser.add(digits([50, 51]), columns=DIGIT_COLUMNS)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StorageError, match="No space left"):
            eraser.train()
    assert eraser.model_digest == digest
    assert not list(eraser.workspace.root.rglob(".tmp-*"))
    eraser.train()
    assert eraser.audit().identical


def test_deriving_again_where_the_environment_is_another(eraser: Eraser) -> None:
    import json

    for path in (eraser.workspace.root / "memo").rglob("*.json"):
        entry = json.loads(path.read_bytes())
        path.write_text(json.dumps({**entry, "fingerprint": "sha256:" + "0" * 64}))
    digest = eraser.model_digest
    kept = eraser.train()
    assert "embedded" not in kept.stage_counts
    assert kept.stage_counts["tuned"] == 0
    again = eraser.train(rederive=True)
    assert again.stage_counts["tuned"] == eraser.status().clusters
    assert again.stage_counts["fitted"] == 1
    assert eraser.model_digest == digest
    assert eraser.status().fingerprint == eraser.executor().fingerprint


def test_more_classes_on_purpose_tune_every_head_again(eraser: Eraser) -> None:
    eraser.extend_classes(["letter a"])
    report = eraser.train()
    assert report.stage_counts["tuned"] == eraser.status().clusters
    assert report.model.classes[-1] == "letter a"
    assert eraser.audit().identical


def test_faulty_settings_are_refused_before_anything_is_done(eraser: Eraser) -> None:
    (eraser.workspace.root / "lmeraser.toml").write_text("[tuning]\nepochs = 0\nrate = 1\n")
    with Eraser(eraser.workspace.root) as other, pytest.raises(ConfigError, match="rate"):
        other.train()
