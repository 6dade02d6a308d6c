"""Changed bytes and malicious files: detected or harmless, never a wrong answer, never a foreign exception."""

from __future__ import annotations

import io
import json
import pickle
import random
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import faults
from conftest import png
from faults import CLASSES, CONFIG, NOW, name, opened
from lmeraser import Eraser
from lmeraser.core.digests import Digest
from lmeraser.core.tensors import from_bytes
from lmeraser.data.images import decode
from lmeraser.data.importing import import_records
from lmeraser.data.sources import Row, Source, open_source
from lmeraser.errors import CorruptError, ImageError, InputError, LmeraserError, SourceError, VerificationError
from lmeraser.evidence import certificate, hash_chain
from lmeraser.evidence.dsse import PublicKey


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace after a certified deletion; the tests work on copies."""
    root = tmp_path_factory.mktemp("tamper") / "w"
    Eraser.create(root, CONFIG, classes=CLASSES, clock=lambda: NOW).close()
    with opened(root) as eraser:
        faults.trained(eraser)
        eraser.unlearn(ids=[name(2)], request=faults.REQUEST)
        eraser.workspace.database.compact()
    return root


@pytest.fixture
def copy(workspace: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(workspace, tmp_path / "w"))


def facts(root: Path) -> dict[str, Any]:
    """What a workspace answers: records with their images, model, tensors, requests, ledger, certificate."""
    with opened(root) as eraser:
        inside = eraser.workspace
        index = inside.records.index()
        images = inside.records.payloads([record.id for record in index])
        model = inside.generations.require()
        parts = model.stages.values()
        data = (root / "certificates" / f"{faults.REQUEST}.json").read_bytes()
        return {
            "records": index,
            "classes": inside.records.classes,
            "images": [Digest.of(image) for image in images],
            "features": [
                vector.tobytes()
                for vector in inside.records.derived.features([r.id for r in index], key=_key(eraser)).values()
            ],
            "model": model.model_dump_json(),
            "tensors": [Digest.of(inside.store.read(part.artifact)) for part in parts],
            "status": eraser.status(),
            "requests": eraser.requests(),
            "ledger": eraser.check_ledger().to_json(),
            "key": inside.signing_key.public.key_id,
            "certificate": certificate.verify(data, PublicKey.read(root / "signing.pub")),
        }


def _key(eraser: Eraser) -> str:
    from lmeraser.pipeline.derive import feature_key

    return feature_key(CONFIG, eraser.executor().backbone, eraser.executor().fingerprint)


def positions(size: int, wanted: int, seed: int) -> list[int]:
    return list(range(size)) if size <= wanted else random.Random(seed).sample(range(size), wanted)


def files_of(root: Path, what: str) -> Path:
    found = {
        "ledger": [root / "ledger"],
        "certificate": [root / "certificates" / f"{faults.REQUEST}.json"],
        "manifest": sorted((root / "generations").glob("*.json")),
        "pointer": [root / "generations" / "current"],
        "artifact": sorted((root / "artifacts").rglob("*.safetensors")),
        "memo": sorted((root / "memo").rglob("*.json")),
        "marker": [root / "workspace.json"],
        "secret": [root / "secret.key"],
        "key": [root / "signing.key"],
        "database": [root / "records.db"],
    }[what]
    return found[0]


FLIPS = {
    "ledger": 900,
    "certificate": 500,
    "manifest": 500,
    "pointer": 90,
    "artifact": 150,
    "marker": 20,
    "secret": 64,
    "key": 119,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("share", [pytest.param(1, marks=pytest.mark.long, id="all"), pytest.param(24, id="some")])
@pytest.mark.parametrize("what", FLIPS)
def test_every_flipped_byte_is_detected_or_harmless(copy: Path, what: str, share: int) -> None:
    """More than 2,300 positions over all, in the fast suite every 24th; each byte is changed in one way."""
    path, truth = files_of(copy, what), facts(copy)
    original = path.read_bytes()
    draw = random.Random(what)
    for position in positions(len(original), FLIPS[what], 7)[::share]:
        changed = bytearray(original)
        changed[position] ^= draw.randrange(1, 256)
        path.write_bytes(changed)
        try:
            assert facts(copy) == truth, f"{what}: byte {position} gives another answer"
        except LmeraserError:
            continue
    path.write_bytes(original)
    assert facts(copy) == truth


def flipped(data: bytes, seed: str) -> Iterator[bytes]:
    """The data with each of its bytes changed in one random way."""
    draw = random.Random(seed)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= draw.randrange(1, 256)
        yield bytes(changed)


def test_every_flipped_byte_of_a_ledger_is_detected_by_its_check_alone(workspace: Path) -> None:
    data = (workspace / "ledger").read_bytes()
    entries = hash_chain.check(data)
    head = hash_chain.LedgerHead(len(entries), entries[-1].digest)
    for changed in flipped(data, "ledger"):
        with pytest.raises(VerificationError):
            hash_chain.check(changed, head=head)


def test_every_flipped_byte_of_a_certificate_is_detected_or_harmless_by_its_verification_alone(
    workspace: Path,
) -> None:
    data, key = files_of(workspace, "certificate").read_bytes(), PublicKey.read(workspace / "signing.pub")
    truth = certificate.verify(data, key)
    for changed in flipped(data, "certificate"):
        try:
            assert certificate.verify(changed, key) == truth
        except VerificationError:
            continue


@pytest.mark.timeout(300)
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.long, id="all"), pytest.param(8, id="some")])
def test_every_flipped_byte_of_the_database_header_is_detected_or_harmless(copy: Path, every: int) -> None:
    path, truth = files_of(copy, "database"), facts(copy)
    original = path.read_bytes()
    for position in range(100):
        ways = (1, 255, random.Random(position).randrange(1, 256))
        for bits in [ways[position // every % len(ways)]] if every > 1 else ways:
            if position % every:
                continue
            changed = bytearray(original)
            changed[position] ^= bits
            path.write_bytes(changed)
            for other in ("records.db-wal", "records.db-shm"):
                (copy / other).unlink(missing_ok=True)
            try:
                assert facts(copy) == truth, f"byte {position} gives another answer"
            except LmeraserError:
                continue


@pytest.mark.parametrize("share", [pytest.param(1, marks=pytest.mark.long, id="all"), pytest.param(16, id="some")])
@pytest.mark.parametrize("what", ["ledger", "manifest", "pointer", "artifact"])
def test_every_truncation_is_detected(copy: Path, what: str, share: int) -> None:
    path = files_of(copy, what)
    original = path.read_bytes()
    for size in positions(len(original), 120, 3)[::share]:
        path.write_bytes(original[:size])
        with pytest.raises(LmeraserError):
            facts(copy)


def test_a_missing_ledger_is_detected(copy: Path) -> None:
    (copy / "ledger").unlink()
    with pytest.raises(LmeraserError):
        facts(copy)
    with opened(copy) as eraser, pytest.raises(CorruptError, match="same backup"):
        eraser.train()


def test_a_deleted_record_that_is_put_back_behind_the_ledgers_back_is_detected(copy: Path) -> None:
    with opened(copy) as eraser:
        from lmeraser.data.records import Record

        back = Record(name(2), "person-2", 2, faults.picture(2))
        with eraser.workspace.database.transaction() as connection:
            eraser.workspace.records.insert(connection, [back], entry=1)
        report = eraser.check_ledger()
    assert not report.sound
    assert "not the same ones" in report.differences[0]


def test_an_old_database_beside_a_new_ledger_is_detected(workspace: Path, tmp_path: Path) -> None:
    shutil.copytree(workspace, tmp_path / "w")
    with opened(tmp_path / "w") as eraser:
        eraser.unlearn(ids=[name(3)])
    shutil.copy(workspace / "records.db", tmp_path / "w" / "records.db")
    with opened(tmp_path / "w") as eraser, pytest.raises(LmeraserError):
        eraser.check_ledger()


# --- malicious files -----------------------------------------------------------------------------------------


class _Bomb:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (exec, ("raise SystemExit('code of an artifact was run')",))


def _header(length: int, text: bytes = b"{}") -> bytes:
    return struct.pack("<Q", length) + text


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(_Bomb()),
        b"PK\x03\x04" + bytes(60),
        b"",
        _header(2**63),
        _header(100_000_000, b"{" + b" " * 1000),
        _header(2, b"{}") + b"trailing",
        _header(61, b'{"a":{"dtype":"F32","shape":[9999999999],"data_offsets":[0,4]}}') + bytes(4),
        _header(0, b""),
    ],
    ids=["pickle", "zip", "empty", "huge header", "header bomb", "trailing", "shape bomb", "no header"],
)
def test_an_artifact_that_is_no_tensor_file_is_refused_even_under_its_right_digest(
    copy: Path, data: bytes
) -> None:
    with pytest.raises(CorruptError):
        from_bytes(data)


@pytest.mark.parametrize(
    "target", ["../../../etc/passwd", "sha256:../../../etc/passwd", "sha256:" + "0" * 63 + "/"]
)
def test_a_manifest_that_names_a_path_is_refused(copy: Path, target: str) -> None:
    path = files_of(copy, "manifest")
    values = json.loads(path.read_bytes())
    values["partition"]["artifact"] = target
    path.write_text(json.dumps(values))
    (copy / "generations" / "current").write_text(f"{path.name} {Digest.of(path.read_bytes())}\n")
    with opened(copy) as eraser, pytest.raises(CorruptError):
        eraser.workspace.generations.require()


@pytest.mark.parametrize("pointer", ["../../secret.key", "/etc/passwd", "00000001.json/../x.json"])
def test_a_pointer_out_of_the_folder_is_refused(copy: Path, pointer: str) -> None:
    (copy / "generations" / "current").write_text(f"{pointer} {Digest.of(b'')}\n")
    with opened(copy) as eraser, pytest.raises(CorruptError):
        eraser.workspace.generations.require()


def test_ids_are_never_paths(copy: Path) -> None:
    before = set(copy.parent.rglob("*"))
    evil = Row(0, "../../../evil", None, "cat", faults.picture(50))
    source = Source("evil", CLASSES, 1, [evil])
    with opened(copy) as eraser:
        inside = eraser.workspace
        with inside.writing("add"):
            import_records(inside.records, source, ledger=inside.ledger, now=NOW)
        eraser.train()
        eraser.unlearn(ids=["../../../evil"])
        with pytest.raises(InputError, match="UUID"):
            eraser.unlearn(ids=[name(4)], request="../../../evil")
    made = set(copy.parent.rglob("*")) - before
    assert all(copy in path.parents for path in made)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "good.png").write_bytes(faults.picture(1))
    return folder


def test_symbolic_links_in_an_imported_folder_are_refused(photos: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "private.png").write_bytes(faults.picture(2))
    (photos / "cat" / "link.png").symlink_to(outside / "private.png")
    (photos / "cat" / "gone.png").symlink_to(outside / "nothing.png")
    (photos / "dog").symlink_to(outside, target_is_directory=True)
    Eraser.create(tmp_path / "w", CONFIG, clock=lambda: NOW).close()
    with opened(tmp_path / "w") as eraser:
        with pytest.raises(SourceError) as caught:
            eraser.add(photos)
        assert {line.split("'")[1] for line in caught.value.faults} == {
            "cat/link.png",
            "cat/gone.png",
            "dog/private.png",
        }
        assert eraser.add(photos, skip_bad=True).added == 1
        assert eraser.record_ids() == ["cat/good.png"]


def test_links_are_not_followed_while_a_source_is_opened(photos: Path) -> None:
    (photos / "cat" / "loop").symlink_to(photos, target_is_directory=True)
    rows = list(open_source(photos).rows)
    assert [(row.id, bool(row.fault)) for row in rows] == [("cat/good.png", False), ("cat/loop", True)]


def _png_bomb(side: int) -> bytes:
    """A PNG of a few hundred bytes that claims side x side pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def _text_bomb() -> bytes:
    """A PNG with a compressed text of 100 MB."""
    from PIL import PngImagePlugin

    buffer, text = io.BytesIO(), PngImagePlugin.PngInfo()
    text.add_text("comment", "a" * 100_000_000, zip=True)
    from PIL import Image

    Image.new("L", (4, 4)).save(buffer, "PNG", pnginfo=text)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "bomb", [_png_bomb(60_000), _png_bomb(2**31 - 1), _text_bomb()], ids=["60k", "2G", "text"]
)
def test_decompression_bombs_are_refused(bomb: bytes) -> None:
    assert len(bomb) < 1_000_000
    with pytest.raises(ImageError):
        decode(bomb)
    assert decode(png([[0, 1], [2, 3]])).size == (2, 2)
