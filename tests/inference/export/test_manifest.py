"""A changed export does not load, whatever of it was changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lmeraser.core.digests import Digest
from lmeraser.errors import FormatError, InputError, LmeraserError, VerificationError
from lmeraser.evidence.dsse import SigningKey
from lmeraser.inference.export.manifest import (
    ExportedBackbone,
    ExportedCluster,
    ExportManifest,
    read_export,
    sign,
)

KEY = SigningKey.new()
FILES = {"artifacts/ab/abc.safetensors": b"tensors", "backbone/config.json": b"{}"}
MANIFEST = ExportManifest(
    export="00000000-0000-4000-8000-000000000001",
    created="2026-01-31T12:00:00Z",
    software="lmeraser 0",
    model_digest=Digest.of(b"model"),
    generation=3,
    records=10,
    classes=("cat", "dog`\x1b"),
    settings={"data": {"modality": "vector", "length": 3}},
    backbone=ExportedBackbone(name="identity", digest=Digest.of(b"b"), included=False, license=None),
    partition=Digest.of(b"p"),
    global_head=None,
    clusters=(ExportedCluster(number=0, path="0", constituent=Digest.of(b"c")),),
    fingerprints=(Digest.of(b"f"),),
    evaluation=None,
    files={name: Digest.of(data) for name, data in FILES.items()},
)


def write(folder: Path, manifest: ExportManifest = MANIFEST, key: SigningKey = KEY) -> Path:
    for name, data in {**FILES, **sign(manifest, key)}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_what_was_written_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "out")
    (folder / "README.md").write_text("anything")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "left").write_text("by a download tool")
    assert read_export(folder) == read_export(folder, key=KEY.public) == MANIFEST


def test_another_key_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "out", key=SigningKey.new())
    read_export(folder)
    with pytest.raises(VerificationError):
        read_export(folder, key=KEY.public)


@pytest.mark.parametrize("name", [*FILES, "export.json", "export.sig", "signing.pub"])
def test_a_changed_or_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "out")
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:])
    with pytest.raises(LmeraserError):
        read_export(folder)
    (folder / name).unlink()
    with pytest.raises(LmeraserError):
        read_export(folder)


def test_another_file_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "out")
    (folder / "backbone" / "adapter_config.json").write_text("{}")
    with pytest.raises(VerificationError, match=r"adapter_config\.json does not belong to it"):
        read_export(folder)


def test_files_of_another_export_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "out")
    other = write(tmp_path / "other", MANIFEST.model_copy(update={"generation": 4}))
    shutil.copy(other / "export.json", folder / "export.json")
    with pytest.raises(VerificationError, match="signs another"):
        read_export(folder)


def test_a_folder_that_is_no_export_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Not an exported model"):
        read_export(tmp_path)


def test_an_export_of_a_newer_version_says_so(tmp_path: Path) -> None:
    write(tmp_path / "new", MANIFEST.model_copy(update={"format": 2}))
    with pytest.raises(FormatError, match="newer version"):
        read_export(tmp_path / "new")


def test_the_model_of_a_manifest_has_what_prediction_needs() -> None:
    model = MANIFEST.model("identity:x")
    assert (model.generation, model.classes, model.backbone) == (3, MANIFEST.classes, MANIFEST.backbone.digest)
    assert model.clusters[0].constituent is not None
    assert model.clusters[0].constituent.artifact == Digest.of(b"c")
    assert json.loads(MANIFEST.to_bytes())["format"] == 1
