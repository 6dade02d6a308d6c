"""A reader sees the generation before or the one after, and a damaged manifest is said to be damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmeraser.config.schema import preset
from lmeraser.core import atomic_files as files
from lmeraser.core.digests import Digest
from lmeraser.errors import CorruptError, FormatError, NoModelError, StorageError
from lmeraser.models.manifest import Cluster, Model, StageResult
from lmeraser.workspace import registry as module
from lmeraser.workspace.registry import Generations

RESULT = StageResult(key=Digest.of(b"key"), artifact=Digest.of(b"artifact"), fingerprint=Digest.of(b"here"))


def model(generation: int, **changes: Any) -> Model:
    values: dict[str, Any] = {
        "generation": generation,
        "parent": Digest.of(b"parent") if generation else None,
        "settings": preset("prompts").model_settings(),
        "classes": ("a", "b"),
        "backbone": Digest.of(b"backbone"),
        "backbone_name": "efficientnet-lite0",
        "partition": RESULT,
        "clusters": (Cluster(number=0, path="0", records=4, constituent=RESULT),),
        "revision": 1,
    }
    return Model(**{**values, **changes})


def names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "generations").iterdir())


def test_before_the_first_training_there_is_none(tmp_path: Path) -> None:
    generations = Generations(tmp_path / "generations")
    assert generations.current() is None
    assert generations.outdated() == []
    with pytest.raises(NoModelError, match="lmeraser train"):
        generations.require()


def test_what_is_published_is_served_as_it_was(tmp_path: Path) -> None:
    generations = Generations(tmp_path / "generations")
    for number in range(3):
        generations.publish(model(number))
        assert generations.current() == generations.require() == model(number)
        assert generations.require().model_digest == model(number).model_digest
    assert names(tmp_path) == ["00000000.json", "00000001.json", "00000002.json", "current"]
    assert [path.name for path in generations.outdated()] == ["00000000.json", "00000001.json"]


def test_a_manifest_keeps_the_field_names_of_its_format(tmp_path: Path) -> None:
    key = Digest.of(b"embeddings")
    generations = Generations(tmp_path / "generations")
    generations.publish(model(0, embedding_key=key))
    stored = json.loads((tmp_path / "generations" / "00000000.json").read_bytes())
    assert stored["code_key"] == key
    assert "embedding_key" not in stored
    assert generations.require().embedding_key == key


@pytest.mark.parametrize("write", [1, 2])
def test_a_publication_that_fails_leaves_the_served_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    generations = Generations(tmp_path / "generations")
    generations.publish(model(0))
    real, calls = files.write_atomic, 0

    def full(path: Path, data: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == write:
            raise StorageError("The disk has space.")
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomic", full)
        with pytest.raises(StorageError):
            generations.publish(model(1))
    assert generations.current() == model(0)
    generations.publish(model(1))
    assert generations.current() == model(1)
    assert [path.name for path in generations.outdated()] == ["00000000.json"]


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b"{}", b'{"format": 1}', b'"text"'])
def test_a_damaged_manifest_says_what_to_do(tmp_path: Path, data: bytes) -> None:
    generations = Generations(tmp_path / "generations")
    generations.publish(model(0))
    (tmp_path / "generations" / "00000000.json").write_bytes(data)
    with pytest.raises(CorruptError, match=r"00000000\.json") as caught:
        generations.current()
    assert "generations" in caught.value.next_step


@pytest.mark.parametrize(
    "change",
    [
        {"backbone": "sha256:short"},
        {"clusters": [{"number": 0}]},
        {"unknown": 1},
        {"generation": "many"},
        {"parent": 1},
    ],
)
def test_a_manifest_with_a_wrong_value_is_damaged(tmp_path: Path, change: dict[str, Any]) -> None:
    generations = Generations(tmp_path / "generations")
    generations.publish(model(0))
    path = tmp_path / "generations" / "00000000.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    with pytest.raises(CorruptError):
        generations.current()


@pytest.mark.parametrize("data", [b"", b"\xff\n", b".\n", b"00000007.json\n", b"../workspace.json\n", b"a\x00b"])
def test_a_damaged_pointer_is_not_taken_for_an_untrained_workspace(tmp_path: Path, data: bytes) -> None:
    generations = Generations(tmp_path / "generations")
    generations.publish(model(0))
    (tmp_path / "workspace.json").write_text('{"format": 1}')
    (tmp_path / "generations" / "current").write_bytes(data)
    with pytest.raises(CorruptError):
        generations.current()


def test_a_reader_that_is_overtaken_gets_the_next_generation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between reading the pointer and the manifest, another process publishes and purges."""
    generations = Generations(tmp_path / "generations")
    generations.publish(model(0))
    real = Path.read_bytes

    def overtaken(path: Path) -> bytes:
        if path.name == "00000000.json" and path.exists():
            generations.publish(model(1))
            path.unlink()
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", overtaken)
    assert generations.current() == model(1)


@pytest.mark.parametrize("more", [{}, {"something_new": [1]}])
def test_a_manifest_of_a_newer_format_is_refused(tmp_path: Path, more: dict[str, Any]) -> None:
    generations = Generations(tmp_path / "generations")
    generations.publish(model(0))
    path = tmp_path / "generations" / "00000000.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "format": 3, **more}))
    (path.parent / "current").write_text(f"{path.name} {Digest.of(path.read_bytes())}\n")
    with pytest.raises(FormatError, match="upgrade"):
        generations.current()
