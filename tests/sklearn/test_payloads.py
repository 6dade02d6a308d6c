"""Texts and images in the estimators: their vectors are those of workspaces, and exactness is the same."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from conftest import digits
from lmeraser.errors import BackboneError
from lmeraser.sklearn import ExactUnlearningClassifier, NotTaughtError, VectorError

TEXTS = [f"{word} {number}" for number in range(5) for word in ("lost card", "transfer money", "close account")]
LABELS = ["card", "money", "account"] * 5
IDS = [f"t{number}" for number in range(15)]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a tiny network for texts."""
    pytest.importorskip("tokenizers")
    from tiny_texts import save

    return str(save("bert", tmp_path_factory.mktemp("bert")))


@pytest.fixture
def classifier(backbone: str) -> ExactUnlearningClassifier:
    """Not fitted."""
    return ExactUnlearningClassifier(backbone=backbone, modality="text")


def parameters_of(classifier: Any) -> list[bytes]:
    return [getattr(classifier, name).tobytes() for name in ("class_count_", "coef_", "intercept_")]


def test_texts_are_forgotten_to_the_bit(classifier: ExactUnlearningClassifier) -> None:
    classifier.fit(TEXTS[:9], LABELS[:9], ids=IDS[:9])
    classifier.partial_fit(TEXTS[9:], LABELS[9:], ids=IDS[9:])
    classifier.forget(ids=["t3", "t14"])
    classifier.partial_unfit([TEXTS[0]], [LABELS[0]])
    left = [number for number in range(15) if number not in (0, 3, 14)]
    once = clone(classifier).fit([TEXTS[n] for n in reversed(left)], [LABELS[n] for n in reversed(left)])
    assert parameters_of(classifier) == parameters_of(once)
    assert (classifier.predict(TEXTS) == LABELS).mean() > 0.6
    np.testing.assert_array_equal(classifier.predict_proba(TEXTS[4:5])[0], classifier.predict_proba(TEXTS)[4])
    with pytest.raises(NotTaughtError):
        classifier.partial_unfit([TEXTS[3]], [LABELS[3]])
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.decision_function(TEXTS), classifier.decision_function(TEXTS))


def test_a_list_may_be_a_series_a_column_or_an_array(classifier: ExactUnlearningClassifier) -> None:
    expected = parameters_of(classifier.fit(TEXTS, LABELS))
    for X in (pd.Series(TEXTS), pd.DataFrame({"text": TEXTS}), np.array(TEXTS), np.array(TEXTS, object)[:, None]):
        assert parameters_of(classifier.fit(X, LABELS)) == expected
    assert 0 <= cross_val_score(classifier, TEXTS, LABELS, cv=2).mean() <= 1


def test_the_vectors_are_those_of_workspaces(classifier: ExactUnlearningClassifier, tmp_path: Path) -> None:
    from lmeraser import Eraser

    classifier.fit(TEXTS, LABELS, ids=IDS)
    with Eraser.create(tmp_path / "w", classifier._embedding().config, classes=sorted(set(LABELS))) as eraser:
        eraser.add([{"id": i, "text": t, "label": y} for i, t, y in zip(IDS, TEXTS, LABELS, strict=True)])
        eraser.train()
        rows = eraser.workspace.records.statistics.quantized_embeddings(["t3"])
        assert bytes(rows[0]) == classifier._memory.named["t3"].vector


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("one text", "not a list"),
        ([], "0 sample"),
        ([*TEXTS[:14], 3], "row 14"),
        (TEXTS[:14], "inconsistent"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(classifier: ExactUnlearningClassifier, X: Any, message: str) -> None:
    classifier.fit(TEXTS, LABELS, ids=IDS)
    before = parameters_of(classifier)
    with pytest.raises(ValueError, match=message):
        classifier.fit(X, LABELS)
    assert parameters_of(classifier) == before


def test_parameters_that_do_not_go_together_are_refused(backbone: str) -> None:
    for options, message in (
        ({"backbone": backbone}, "What the backbone takes is not known"),
        ({"backbone": backbone, "modality": "vector"}, "possible: image, text"),
        ({"backbone": backbone, "modality": "text", "scale": 2.0}, "scale of their own"),
    ):
        with pytest.raises(VectorError, match=message):
            ExactUnlearningClassifier(**options).fit(TEXTS, LABELS)
    with pytest.raises(BackboneError):
        ExactUnlearningClassifier(backbone="no/such/folder", modality="text").fit(TEXTS, LABELS)


def test_another_backbone_needs_another_fit(classifier: ExactUnlearningClassifier, tmp_path: Path) -> None:
    from tiny_texts import save

    classifier.fit(TEXTS[:9], LABELS[:9])
    other = save("bert", tmp_path / "other", num_hidden_layers=1)
    classifier.set_params(backbone=str(other))
    with pytest.raises(VectorError, match="backbone has changed"):
        classifier.partial_fit(TEXTS[9:], LABELS[9:])


@pytest.mark.parametrize("network", ["tiny", pytest.param("efficientnet-lite0", marks=pytest.mark.long)])
def test_images_may_be_paths_bytes_arrays_or_pictures(tmp_path: Path, network: str) -> None:
    if network == "tiny":
        from make_workspaces import backbone as save_backbone

        network = str(tmp_path / "network")
        save_backbone(tmp_path / "network")
    pictures = [row["image"].convert("RGB") for row in digits(range(2))]
    paths = [tmp_path / "0.png", tmp_path / "1.png"]
    for picture, path in zip(pictures, paths, strict=True):
        picture.save(path)
    classifier = ExactUnlearningClassifier(backbone=network, modality="image").fit(pictures, [0, 1])
    expected = classifier.decision_function(pictures)
    mixed: list[Any] = [str(paths[0]), np.asarray(pictures[1])]
    np.testing.assert_array_equal(classifier.decision_function(mixed), expected)
    mixed = [paths[0].read_bytes(), paths[1]]
    np.testing.assert_array_equal(classifier.decision_function(mixed), expected)
    with pytest.raises(VectorError, match="row 1"):
        classifier.predict([Image.new("RGB", (8, 8)), b"no image"])
