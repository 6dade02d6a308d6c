"""The state of a workspace in numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import DIGIT_COLUMNS, digits, tiny_config
from fake import Fake
from lmeraser import Eraser


def test_before_the_first_training(tmp_path: Path) -> None:
    with Eraser.create(tmp_path / "w", tiny_config()) as eraser:
        status = eraser.status()
    assert (status.generation, status.model_digest, status.up_to_date) == (None, None, False)
    assert (status.records, status.clusters, status.expected_share) == (0, 0, 0.0)


def test_after_training(eraser: Eraser) -> None:
    status = eraser.status()
    sizes = [cluster.records for cluster in eraser.workspace.generations.require().clusters]
    assert status.records == sum(sizes) == 40
    assert status.subjects == 5
    assert status.largest_cluster == max(sizes)
    missed = sum(size * (size - 1) for size in sizes) / 40**2
    hit = status.sample_hit_probability
    assert status.expected_share == pytest.approx((1 - hit) * missed + hit * 39 / 40)
    assert status.sample_hit_probability == 12 / 40
    assert 0 < status.p50 <= status.p95 <= status.max == 39, "a sample hit counts as tuning all others"
    assert status.fingerprint == eraser.executor().fingerprint
    assert "12 private records" in status.fitted_on
    wanted = {
        "model_digest",
        "manifest_digest",
        "generation",
        "records",
        "clusters",
        "largest_cluster",
        "expected_share",
        "fingerprint",
    }
    assert wanted <= status.to_json().keys()


def test_a_renamed_key_is_still_reported_under_its_old_name(tmp_path: Path) -> None:
    with Eraser.create(tmp_path / "w", tiny_config()) as eraser:
        values = eraser.status().to_json()
    assert values["rewriting_due"] is values["compaction_due"] is False


def test_what_was_interrupted_is_told_with_what_is_left(tmp_path: Path) -> None:
    config = tiny_config(global_head={"weight": 0.5})
    with Eraser.create(tmp_path / "w", config) as eraser:
        eraser.add(digits(range(30)), columns=DIGIT_COLUMNS)
        assert eraser.status().unfinished == ()
        eraser.session.executors.use(Fake(stop_after=1))
        with pytest.raises(KeyboardInterrupt):
            eraser.train()
        (told,) = eraser.status().unfinished
        assert told.startswith("training: 30 of 30 records embedded, 3 stages finished; left: the rest")
        eraser.session.executors.use(Fake())
        eraser.train()
        assert eraser.status().unfinished == ()
        ordinary = sorted(set(eraser.record_ids()) - set(eraser.sampled_ids()))[0]
        eraser.session.executors.use(Fake(stop_after=0))
        with pytest.raises(KeyboardInterrupt):
            eraser.unlearn(ids=[ordinary])
        told = eraser.status().unfinished[0]
        assert told == (
            "1 request in progress: the records are deleted; left: the model without them, purge and certificates"
        )
        assert eraser.status().to_json()["unfinished"]
        eraser.session.executors.use(Fake())
        eraser.unlearn()
        assert eraser.status().unfinished == ()
