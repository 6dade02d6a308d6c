"""An artifact is what its digest says, a memo entry never dangles, and what nothing names is swept."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmeraser.core.atomic_files import TEMPORARY
from lmeraser.core.digests import Digest
from lmeraser.errors import CorruptError, StorageError
from lmeraser.storage.artifacts import ArtifactStore, BlobStore, MemoEntry, MemoryStore, StageOutput
from lmeraser.storage.blobs import Folder

KEY = Digest.of(b"inputs")
OTHER = Digest.of(b"other inputs")
PRINT = Digest.of(b"environment")


def store_in(root: Path) -> BlobStore:
    return BlobStore(Folder(root / "artifacts"), Folder(root / "memo"))


def put(store: ArtifactStore, key: Digest, data: bytes, seconds: float = 0.0) -> MemoEntry:
    return store.put({key: StageOutput(data, seconds)}, fingerprint=PRINT)[key]


def files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def path_of(root: Path, digest: Digest) -> Path:
    return next(root.rglob(f"{digest.hex}.*"))


@pytest.fixture(params=["files", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    return store_in(tmp_path) if request.param == "files" else MemoryStore()


def test_what_is_kept_is_found_and_read(store: ArtifactStore) -> None:
    assert store.find(KEY) is None
    entry = put(store, KEY, b"result", 0.25)
    assert entry.artifact == Digest.of(b"result")
    assert store.find(KEY) == entry
    assert (entry.fingerprint, entry.seconds) == (PRINT, 0.25)
    assert store.read(entry.artifact) == b"result"
    assert store.find(OTHER) is None


def test_equal_results_of_different_inputs_are_one_artifact(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    put(store, KEY, b"result")
    put(store, OTHER, b"result")
    assert len(files(tmp_path / "artifacts")) == 1
    assert len(files(tmp_path / "memo")) == 2


def test_a_later_result_for_the_same_inputs_replaces_the_memo(store: ArtifactStore) -> None:
    put(store, KEY, b"result")
    entry = put(store, KEY, b"other")
    assert store.find(KEY) == entry


@pytest.mark.parametrize("change", [b"resulT", b"resul", b"result ", b""])
def test_an_altered_artifact_is_detected_when_it_is_read(tmp_path: Path, change: bytes) -> None:
    store = store_in(tmp_path)
    artifact = put(store, KEY, b"result").artifact
    path = path_of(tmp_path, artifact)
    path.write_bytes(change)
    with pytest.raises(CorruptError, match="lmeraser train") as caught:
        store.read(artifact)
    assert str(path) in str(caught.value)


def test_a_swept_artifact_is_told_apart_from_a_damaged_one(tmp_path: Path) -> None:
    """So that a reader who was overtaken by a writer can look for the served generation again."""
    store = store_in(tmp_path)
    artifact = put(store, KEY, b"result").artifact
    path_of(tmp_path, artifact).unlink()
    with pytest.raises(FileNotFoundError):
        store.read(artifact)


def test_a_memo_entry_whose_artifact_is_gone_counts_as_absent(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    entry = put(store, KEY, b"result")
    path_of(tmp_path, entry.artifact).unlink()
    assert store.find(KEY) is None
    assert put(store, KEY, b"result") == entry
    assert store.find(KEY) == entry


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b"[]", b'{"artifact": "x", "fingerprint": "y", "seconds": 0}']
)
def test_an_altered_memo_entry_is_detected(tmp_path: Path, data: bytes) -> None:
    store = store_in(tmp_path)
    put(store, KEY, b"result")
    path = path_of(tmp_path / "memo", KEY)
    path.write_bytes(data)
    with pytest.raises(CorruptError, match="delete this file") as caught:
        store.find(KEY)
    assert str(path) in str(caught.value)
    path.unlink()
    assert store.find(KEY) is None


def test_a_full_disk_leaves_no_memo_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_in(tmp_path)
    real = Path.replace

    def full(self: Path, target: Path) -> Path:
        if target.suffix == ".json":
            raise OSError(28, "No space left on device")
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(StorageError):
            put(store, KEY, b"result")
    assert store.find(KEY) is None
    assert not [path for path in files(tmp_path) if path.name.startswith(TEMPORARY)]


def test_sweeping_removes_what_is_not_named_and_nothing_else(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    kept = put(store, KEY, b"kept")
    gone = put(store, OTHER, b"gone")
    (tmp_path / "artifacts" / f"{TEMPORARY}1").write_bytes(b"half")
    (tmp_path / "memo" / KEY.hex[:2] / f"{TEMPORARY}2").write_bytes(b"half")
    (tmp_path / "bystander").write_bytes(b"not the store's")
    before = files(tmp_path)
    listed = store.sweep(artifacts={kept.artifact}, keys={KEY}, dry_run=True)
    assert files(tmp_path) == before, "a dry run removes nothing"
    assert store.sweep(artifacts={kept.artifact}, keys={KEY}) == listed
    assert len(listed) == 4
    assert sorted(set(before) - set(map(Path, listed))) == files(tmp_path)
    assert store.find(KEY) == kept
    assert store.read(kept.artifact) == b"kept"
    assert store.find(OTHER) is None
    assert not list(tmp_path.rglob(f"{gone.artifact.hex}*"))
    assert store.sweep(artifacts={kept.artifact}, keys={KEY}) == []


def test_sweeping_an_artifact_makes_the_memo_of_it_absent(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    entry = put(store, KEY, b"result")
    store.sweep(artifacts={entry.artifact}, keys=set())
    assert store.find(KEY) is None
    assert store.read(entry.artifact) == b"result"


def test_a_store_that_was_never_written_to_can_be_swept(tmp_path: Path) -> None:
    assert store_in(tmp_path / "nothing").sweep(artifacts=set(), keys=set()) == []
    assert store_in(tmp_path / "nothing").remove(artifacts={Digest.of(b"a")}, keys={KEY}) == []


def test_removing_names_leaves_what_a_sweep_of_the_others_leaves(tmp_path: Path) -> None:
    stores = [store_in(tmp_path / name) for name in ("removed", "swept")]
    for store in stores:
        kept = put(store, KEY, b"kept")
        gone = put(store, OTHER, b"gone")
    removed = stores[0].remove(artifacts=[gone.artifact, Digest.of(b"never there")], keys=[OTHER])
    swept = stores[1].sweep(artifacts={kept.artifact}, keys={KEY})
    assert [Path(path).name for path in removed] == [Path(path).name for path in swept]
    left = [
        {path.relative_to(tmp_path / name) for path in files(tmp_path / name)} for name in ("removed", "swept")
    ]
    assert left[0] == left[1]


@pytest.mark.parametrize("linked", ["artifact", "its folder", "another folder"])
def test_nothing_is_removed_where_a_link_would_outlive_it(tmp_path: Path, linked: str) -> None:
    store = store_in(tmp_path / "w")
    entry = put(store, KEY, b"result")
    artifact = tmp_path / "w" / "artifacts" / entry.artifact.hex[:2] / f"{entry.artifact.hex}.safetensors"
    place = {"artifact": artifact, "its folder": artifact.parent}.get(linked)
    if place is None:
        (tmp_path / "w" / "artifacts" / "zz").symlink_to(tmp_path)
    else:
        place.rename(tmp_path / "elsewhere")
        place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError, match="Symbolic link"):
        store.remove(artifacts={entry.artifact}, keys=set())
    assert store.read(entry.artifact) == b"result"
