"""An export predicts as its workspace does, and holds nothing that says who is in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lmeraser
from conftest import DIGIT_COLUMNS, NOW, Run, Template, digits
from lmeraser import Eraser
from lmeraser.config.schema import parse
from lmeraser.core.digests import Digest
from lmeraser.core.tensors import from_bytes
from lmeraser.errors import BackboneError, InputError, NoModelError, RequestConflictError, StorageError
from lmeraser.inference.export.backbone_files import copy_files, license_of
from lmeraser.unlearning.residue import scan
from modality_records import LENGTH, classes_of, columns_of, records_of

VECTORS: dict[str, Any] = {
    "data": {"modality": "vector", "length": LENGTH},
    "partition": {"clusters": 3, "sample_size": 8},
    "tuning": {"epochs": 1},
    "compute": {"workers": 1},
}


def train_vectors(root: Path) -> None:
    with Eraser.create(root, VECTORS, classes=classes_of("vector"), preset="prompts", clock=lambda: NOW) as eraser:
        eraser.add(records_of("vector", range(16)), columns=columns_of("vector"))
        eraser.train()


@pytest.fixture
def vectors(template: Template, tmp_path: Path) -> Iterator[Eraser]:
    """A trained workspace of 16 vectors."""
    root = shutil.copytree(template("vectors", train_vectors), tmp_path / "workspace")
    with Eraser(root, clock=lambda: NOW) as opened:
        yield opened


def queries(count: int = 6) -> list[Any]:
    return [record["vector"] for record in records_of("vector", range(100, 100 + count))]


def test_images_get_the_bits_of_the_workspace(eraser: Eraser, tmp_path: Path) -> None:
    report = eraser.export(tmp_path / "out")
    assert report.backbone_needed == "efficientnet-lite0"
    loaded = lmeraser.load_predictor(tmp_path / "out", key=eraser.workspace.root / "signing.pub")
    images = eraser.workspace.records.payloads(eraser.record_ids()[:5])
    np.testing.assert_array_equal(loaded.predict_proba(images), eraser.predict_proba(images))
    assert loaded.predict(images) == eraser.predict(images)
    assert loaded.predict_top_k(images, 2) == eraser.predict_top_k(images, 2)
    assert loaded.classes == eraser.classes
    assert loaded.model_digest == eraser.model_digest == report.model_digest
    assert loaded.same_environment


@pytest.mark.usefixtures("in_pages")
def test_a_model_in_pages_gets_the_bits_of_the_workspace(vectors: Eraser, tmp_path: Path) -> None:
    vectors.unlearn(ids=vectors.record_ids()[:1])
    assert len(vectors.workspace.generations.require().pages) > 1
    report = vectors.export(tmp_path / "out")
    loaded = lmeraser.load_predictor(tmp_path / "out")
    np.testing.assert_array_equal(loaded.predict_proba(queries()), vectors.predict_proba(queries()))
    assert loaded.model_digest == vectors.model_digest == report.model_digest


@pytest.mark.long
def test_a_model_of_many_clusters_gets_the_bits_of_the_workspace(tmp_path: Path) -> None:
    chosen: dict[str, Any] = {**VECTORS, "partition": {"method": "random", "clusters": 700}}
    with Eraser.create(tmp_path / "w", chosen, classes=classes_of("vector"), preset="prompts") as eraser:
        eraser.add(records_of("vector", range(2500)), columns=columns_of("vector"))
        eraser.train()
        eraser.unlearn(ids=eraser.record_ids()[:3])
        assert len(eraser.workspace.generations.require().pages) > 1
        report = eraser.export(tmp_path / "out")
        loaded = lmeraser.load_predictor(tmp_path / "out")
        np.testing.assert_array_equal(loaded.predict_proba(queries()), eraser.predict_proba(queries()))
        assert loaded.model_digest == eraser.model_digest == report.model_digest


@pytest.mark.parametrize(
    "chosen",
    [
        {"partition": {"method": "class_tree", "max_records": 4}, "global_head": {"weight": 0.5}},
        {"partition": {"method": "random", "clusters": 3}, "aggregation": {"route": "one"}},
        {"constituent": {"kind": "shared_head"}},
        {"constituent": {"kind": "network"}, "partition": {"method": "single", "clusters": 1}},
    ],
    ids=["class_tree", "one", "shared_head", "network"],
)
@pytest.mark.long
def test_every_kind_of_model_gets_the_bits_of_the_workspace(tmp_path: Path, chosen: dict[str, Any]) -> None:
    from make_workspaces import backbone as save_backbone

    backbone = tmp_path / "backbone"
    save_backbone(backbone)
    base: dict[str, Any] = {
        "backbone": {"name": str(backbone), "image_size": 32, "micro_batch": 4},
        "partition": {"clusters": 3, "sample_size": 8},
        "tuning": {"epochs": 1},
    }
    with Eraser.create(tmp_path / "w", {**base, **chosen}, preset="prompts") as eraser:
        eraser.add(digits(range(24)), columns=DIGIT_COLUMNS)
        eraser.train()
        eraser.export(tmp_path / "out", with_backbone=True)
        images = eraser.workspace.records.payloads(eraser.record_ids())
        expected = eraser.predict_proba(images)
    shutil.rmtree(backbone)
    loaded = lmeraser.load_predictor(tmp_path / "out")
    np.testing.assert_array_equal(loaded.predict_proba(images), expected)


def test_copied_files_of_a_backbone_are_no_pickles(tmp_path: Path) -> None:
    network = tmp_path / "network"
    network.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "pytorch_model.bin", "code.py", "LICENSE"):
        (network / name).write_bytes(name.encode())
    (network / "README.md").write_text("---\nlicense: 'mit'\n---\n")
    config = parse({"backbone": {"name": str(network)}})
    copy_files(config, network, tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {
        *("config.json", "model.safetensors", "tokenizer.json", "LICENSE", "README.md")
    }
    assert license_of(str(network), network) == "mit"


@pytest.mark.long
def test_texts_get_the_bits_of_the_workspace_from_copied_files(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    from tiny_texts import save

    network = save("bert", tmp_path / "bert")
    (network / "README.md").write_text("---\nlicense: 'mit'\n---\n")
    (network / "pytorch_model.bin").write_bytes(b"pickled")
    chosen: dict[str, Any] = {
        "data": {"modality": "text"},
        "backbone": {"name": str(network), "micro_batch": 4},
        "text": {"max_tokens": 32, "windows": 3},
        "compute": {"workers": 1},
    }
    with Eraser.create(tmp_path / "w", chosen, classes=classes_of("text"), preset="instant") as eraser:
        eraser.add(records_of("text", range(12)), columns=columns_of("text"))
        eraser.train()
        eraser.export(tmp_path / "alone")
        eraser.export(tmp_path / "whole", with_backbone=True)
        texts = [record["text"] for record in records_of("text", range(30, 36))]
        expected = eraser.predict_proba(texts)
    assert str(tmp_path) not in (tmp_path / "alone" / "export.json").read_text()
    assert not list((tmp_path / "whole").rglob("*.bin"))
    moved = network.rename(tmp_path / "elsewhere")
    with pytest.raises(BackboneError, match="does not include its backbone"):
        lmeraser.load_predictor(tmp_path / "alone")
    given = lmeraser.load_predictor(tmp_path / "alone", backbone=moved)
    whole = lmeraser.load_predictor(tmp_path / "whole")
    assert whole.manifest.backbone.license == "mit"
    for loaded in (given, whole):
        np.testing.assert_array_equal(loaded.predict_proba(texts), expected)


def test_vectors_get_the_bits_of_the_workspace(vectors: Eraser, tmp_path: Path) -> None:
    vectors.export(tmp_path / "out")
    loaded = lmeraser.load_predictor(tmp_path / "out", workers=1)
    np.testing.assert_array_equal(loaded.predict_proba(queries()), vectors.predict_proba(queries()))
    assert repr(loaded) == "ExportedPredictor(generation 0, 3 classes)"


def test_an_export_names_no_record_and_holds_no_secret(vectors: Eraser, tmp_path: Path) -> None:
    out = tmp_path / "out"
    vectors.export(out)
    root, model = vectors.workspace.root, vectors.workspace.generations.require()
    names = [*vectors.record_ids(), "w0", str(tmp_path)]
    keyed = [str(result.key) for result in model.stages.values()]
    secrets = {name: (root / name).read_bytes() for name in ("secret.key", "signing.key", "records.keys")}
    payloads = vectors.workspace.records.payloads(vectors.record_ids())
    probes = {**secrets, **{f"payload {n}": payload for n, payload in enumerate(payloads)}}
    found = scan(out, probes, [*names, *keyed])
    assert found.finds == ()
    suffixes = {path.suffix for path in out.rglob("*") if path.is_file()}
    assert suffixes == {".safetensors", ".json", ".sig", ".pub", ".md"}


def test_which_sampled_record_is_in_which_cluster_stays_in_the_workspace(vectors: Eraser, tmp_path: Path) -> None:
    vectors.export(tmp_path / "out")
    model = vectors.workspace.generations.require()
    assert "sample_clusters" in from_bytes(vectors.workspace.store.read(model.partition.artifact))
    tensors = [from_bytes(path.read_bytes()) for path in (tmp_path / "out").rglob("*.safetensors")]
    names = {name for each in tensors for name in each}
    assert "prototypes" in names
    assert not [name for name in names if "sample" in name]


def test_the_manifest_says_what_was_exported(vectors: Eraser, tmp_path: Path) -> None:
    report = vectors.export(tmp_path / "out", license="cc-by-4.0")
    stated = json.loads((tmp_path / "out" / "export.json").read_bytes())
    model = vectors.workspace.generations.require()
    assert stated["model_digest"] == model.model_digest
    assert (stated["generation"], stated["records"]) == (model.generation, model.records)
    assert stated["settings"] == model.settings
    assert stated["fingerprints"] == list(model.fingerprints)
    assert stated["export"] == report.export
    assert report.manifest == Digest.of((tmp_path / "out" / "export.json").read_bytes())
    assert "records" not in stated["clusters"][0]


def test_a_place_that_is_not_free_is_refused_and_stays_as_it_is(vectors: Eraser, tmp_path: Path) -> None:
    full, file, empty = (tmp_path / name for name in ("full", "file", "empty"))
    for folder in (full, empty):
        folder.mkdir()
    (full / "notes").write_text("mine")
    file.write_text("mine")
    for out in (full, file):
        with pytest.raises(InputError, match="not free"):
            vectors.export(out)
    with pytest.raises(InputError, match="inside the workspace"):
        vectors.export(vectors.workspace.root / "out")
    assert (full / "notes").read_text() == file.read_text() == "mine"
    vectors.export(empty)
    assert lmeraser.load_predictor(empty)


def test_an_export_that_the_disk_refuses_leaves_nothing(
    vectors: Eraser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lmeraser.inference.export.folder.sign", refuse)
    (tmp_path / "place").mkdir()
    with pytest.raises(StorageError):
        vectors.export(tmp_path / "place" / "out")
    assert list((tmp_path / "place").iterdir()) == []


def test_while_a_deletion_is_open_nothing_is_exported(vectors: Eraser, tmp_path: Path) -> None:
    request = vectors.request(ids=["digit-0003"])
    with pytest.raises(RequestConflictError, match="open deletion requests: 1"):
        vectors.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    vectors.cancel(request.id)
    vectors.export(tmp_path / "out")


def test_without_a_model_nothing_is_exported(tmp_path: Path) -> None:
    with Eraser.create(tmp_path / "w", VECTORS, classes=classes_of("vector"), preset="prompts") as eraser:
        with pytest.raises(NoModelError):
            eraser.export(tmp_path / "out")
        eraser.train()
        with pytest.raises(NoModelError, match="empty"):
            eraser.export(tmp_path / "out")


def test_a_backbone_without_files_is_not_copied(vectors: Eraser, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no files to copy"):
        vectors.export(tmp_path / "out", with_backbone=True)
    assert list(tmp_path.glob(".tmp-*")) == []


def test_the_command_exports(vectors: Eraser, tmp_path: Path, run: Run) -> None:
    root = vectors.workspace.root
    done = run("-w", root, "export", tmp_path / "out", "--json")
    assert done.code == 0
    assert done.json["generation"] == 0
    again = run("-w", root, "export", tmp_path / "out")
    assert again.code == 2
    assert "not free" in again.err
