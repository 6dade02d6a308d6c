"""A workspace behind scikit-learn's methods: the same model, and all evidence."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from lmeraser import Eraser, LmeraserError
from lmeraser.errors import SourceError, UnknownRecordError
from lmeraser.sklearn import NoRecordsError, VectorError, WorkspaceClassifier

WIDTH = 6
LABELS = ["card", "money", "account"] * 8
SUBJECTS = [f"s{number % 4}" for number in range(24)]


def vectors() -> NDArray[np.float32]:
    drawn = np.random.default_rng(0).standard_normal((24, WIDTH))
    return (drawn + 3 * np.eye(3, WIDTH)[np.arange(24) % 3]).astype(np.float32)


def test_it_is_taught_forgets_and_leaves_certificates(tmp_path: Path) -> None:
    classifier = WorkspaceClassifier(tmp_path / "w").fit(vectors(), LABELS, subjects=SUBJECTS)
    assert list(classifier.classes_) == ["account", "card", "money"]
    assert classifier.score(vectors(), LABELS) > 0.9
    other = WorkspaceClassifier(str(tmp_path / "w"))  # the same workspace
    other.forget(ids=[3], subjects=["s1"])
    shares = classifier.predict_proba(vectors())
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    with classifier.open() as eraser:
        assert eraser.status().records == 24 - 6 - 1
        assert eraser.audit().identical
        digest = eraser.model_digest
        (request,) = eraser.requests()
        assert request.state == "completed"
    left = [number for number in range(24) if number != 3 and number % 4 != 1]
    fresh = clone(classifier).set_params(path=tmp_path / "fresh")
    fresh.partial_fit(vectors()[left], [LABELS[n] for n in left], ids=left, subjects=[SUBJECTS[n] for n in left])
    with Eraser(tmp_path / "fresh") as eraser:
        assert eraser.model_digest == digest
    with pytest.raises(UnknownRecordError):
        classifier.forget(ids=["nobody"])


def test_records_and_classes_are_added(tmp_path: Path) -> None:
    classifier = WorkspaceClassifier(tmp_path / "w").fit(vectors()[:12], LABELS[:12], ids=range(12))
    classifier.partial_fit(vectors()[12:], ["loan", *LABELS[13:]], ids=range(12, 24), classes=["later", "card"])
    assert set(classifier.classes_) == {"account", "card", "money", "loan", "later"}
    assert classifier.predict_proba(vectors()).shape == (24, 5)


def test_what_cannot_be_done_is_refused_and_leaves_no_workspace(tmp_path: Path) -> None:
    classifier = WorkspaceClassifier(tmp_path / "w")
    cases: tuple[tuple[Callable[[], object], str], ...] = (
        (lambda: classifier.fit(vectors(), range(24)), "Labels of a workspace are texts"),
        (lambda: classifier.fit(vectors()[:5], LABELS), "inconsistent"),
        (lambda: classifier.fit(vectors(), LABELS, ids=range(3)), "Ids and rows differ"),
        (lambda: classifier.fit(vectors() * np.nan, LABELS), "NaN"),
        (lambda: classifier.partial_fit(vectors(), LABELS), "need ids"),
        (classifier.forget, "Neither ids nor subjects"),
    )
    for wrong, message in cases:
        with pytest.raises(ValueError, match=message):
            wrong()
        assert not (tmp_path / "w").exists()
    with pytest.raises(NoRecordsError, match="There is no workspace"):
        classifier.predict(vectors())
    with pytest.raises(NotFittedError):
        classifier.forget(ids=["a"])
    assert not hasattr(classifier, "classes_")
    classifier.fit(vectors(), LABELS)
    with pytest.raises(VectorError, match="has records already"):
        classifier.fit(vectors(), LABELS)
    with pytest.raises(LmeraserError):
        classifier.partial_fit(vectors()[1:2], LABELS[1:2], ids=[0])


def test_a_first_fit_that_is_refused_fixes_neither_classes_nor_length(tmp_path: Path) -> None:
    classifier = WorkspaceClassifier(tmp_path / "w")
    with pytest.raises(SourceError, match="the same id"):
        classifier.fit(vectors()[:, :3], LABELS, ids=["one"] * 24)
    with pytest.raises(NotFittedError):
        classifier.predict(vectors())
    assert list((tmp_path / "w").iterdir()) == []
    with pytest.raises(TypeError, match=r"[Ss]parse"):
        classifier.fit(csr_array(vectors()), LABELS)


def test_texts_with_a_backbone(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    from tiny_texts import save

    folder = save("bert", tmp_path / "bert")
    texts = [f"{label} {number}" for number, label in enumerate(LABELS[:6])]
    narrow = {"embedding": {"random_features": 0}}
    classifier = WorkspaceClassifier(tmp_path / "w", settings=narrow, backbone=str(folder), modality="text")
    classifier.fit(texts, LABELS[:6], ids=texts)
    assert set(classifier.predict(texts)) <= set(LABELS)
    with classifier.open() as eraser:
        assert eraser.record_ids() == sorted(texts)


@pytest.mark.long
def test_images_in_memory_are_learned_as_they_are_predicted(tmp_path: Path) -> None:
    """A photo that says that it was turned is learned upright, and one in CMYK is no fault."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 255, (3, 40, 20, 3), dtype=np.uint8)
    turned = io.BytesIO()
    Image.fromarray(pixels[0]).save(turned, "PNG", exif=exif)
    images = [Image.open(turned), Image.fromarray(pixels[1]).convert("CMYK"), pixels[2]]
    settings = {"backbone": {"image_size": 32}}
    classifier = WorkspaceClassifier(tmp_path / "w", backbone="efficientnet-lite0", settings=settings)
    classifier.fit(images, ["a", "b", "a"])
    with classifier.open() as eraser:
        stored = eraser.workspace.records.payloads(["0", "1", "2"])
        np.testing.assert_array_equal(eraser.predict_proba(stored), eraser.predict_proba(images))
