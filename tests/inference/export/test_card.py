"""The model card is read by the hub's own library, whatever a class is called."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard

from lmeraser.core.digests import Digest
from lmeraser.inference.export.card import card
from lmeraser.inference.export.manifest import (
    ExportedBackbone,
    ExportedCluster,
    ExportedEvaluation,
    ExportManifest,
)

MANIFEST = ExportManifest(
    export="00000000-0000-4000-8000-000000000001",
    created="2026-01-31T12:00:00Z",
    software="lmeraser 0",
    model_digest=Digest.of(b"model"),
    generation=3,
    records=10,
    classes=("cat", "dog`\x1b", *(f"class {n}" for n in range(60))),
    settings={},
    backbone=ExportedBackbone(name="vit-b-22k", digest=Digest.of(b"b"), included=False, license="apache-2.0"),
    partition=Digest.of(b"p"),
    global_head=None,
    clusters=(ExportedCluster(number=0, path="0", constituent=None),),
    fingerprints=(),
    evaluation=ExportedEvaluation(images=40, accuracy=0.975, linear_accuracy=0.9),
    files={},
)


def test_the_hub_reads_the_metadata(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    path.write_text(card(MANIFEST, license="cc-by-4.0"))
    read = ModelCard.load(path)
    assert read.data.to_dict() == {
        "library_name": "lmeraser",
        "pipeline_tag": "image-classification",
        "tags": ["lmeraser", "machine-unlearning"],
        "license": "cc-by-4.0",
        "base_model": "google/vit-base-patch16-224-in21k",
    }


def test_the_text_says_what_the_manifest_says() -> None:
    text = card(MANIFEST)
    for fact in (
        *("**Generation**: 3", "10 private records", "0.9750 of 40 labelled images", "licence: apache-2.0"),
        *("**Licence**: not stated", "and 12 more", "`vit-b-22k`", MANIFEST.export, str(MANIFEST.model_digest)),
    ):
        assert fact in text
    assert "\x1b" not in text
    assert "license:" not in text
    spans = next(line for line in text.splitlines() if "**Classes**" in line)
    assert spans.count("`") == 2, "a class name closes no code span"


def test_a_model_that_was_not_evaluated_says_so() -> None:
    changed = {"evaluation": None, "settings": {"data": {"modality": "text"}}}
    text = card(MANIFEST.model_copy(update=changed))
    assert "not evaluated before the export" in text
    assert "text-classification" in text
