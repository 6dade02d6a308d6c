"""A backup and the newest ledger give back the workspace; a damaged one gives nothing."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from conftest import Run
from faults import ALL, CLASSES, CONFIG, NOW, add, name, opened, stopped
from lmeraser import Eraser
from lmeraser.config.schema import parse
from lmeraser.core.digests import Digest
from lmeraser.errors import CorruptError, FormatError, InputError, LmeraserError, VerificationError, WorkspaceError
from lmeraser.evidence.certificate import verify, verify_in_ledger
from lmeraser.evidence.dsse import PublicKey, SigningKey
from lmeraser.storage import migrate as schema
from lmeraser.storage.engines import open_backend
from lmeraser.workspace import backup as module
from lmeraser.workspace.backup import PAYLOAD_TYPE, BackupReport, backup
from lmeraser.workspace.restore import restore
from lmeraser.workspace.workspace import Workspace


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained workspace of twelve records, one deleted, one pending; only copied."""
    root = tmp_path_factory.mktemp("base") / "w"
    Eraser.create(root, CONFIG, classes=CLASSES, clock=lambda: NOW).close()
    with opened(root) as eraser:
        add(eraser, ALL)
        eraser.train()
        eraser.unlearn(ids=[name(0)])
        request = eraser.request(ids=[name(4)])
        with eraser.workspace.write_transaction() as connection:
            told = ["https://told.example"]
            eraser.workspace.subscriptions.add(connection, request.id, told, now=NOW)
        eraser.workspace.api_keys.create("somebody", ["read"], now=NOW)
    return root


@pytest.fixture
def work(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "w"))


def made(root: Path, target: Path) -> BackupReport:
    with opened(root) as eraser:
        return backup(eraser.workspace, target)


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive.getmembers()}  # type: ignore[union-attr]


def repacked(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for member, data in files.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_a_backup_has_the_files_of_large_values(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmeraser.data.statistics._IN_FILE_BYTES", 0)
    with opened(work) as eraser:
        records = eraser.workspace.records
        with eraser.workspace.writing("test"), eraser.workspace.write_transaction() as connection:
            records.delete(connection, [name(1)])
        before = records.statistics.current()
    made(work, tmp_path / "backup.tar")
    shutil.rmtree(work)
    restore(tmp_path / "backup.tar", work)
    with opened(work) as eraser:
        restored = eraser.workspace.records.statistics.current()
        assert before is not None
        assert restored is not None
        assert restored.digest == before.digest
        assert len(list((work / "records.files").iterdir())) == 1


@pytest.mark.parametrize("pages", [False, True])
def test_a_backup_gives_back_everything_but_what_was_deleted_since(
    work: Path, tmp_path: Path, request: pytest.FixtureRequest, pages: bool
) -> None:
    if pages:
        request.getfixturevalue("in_pages")
    report = made(work, tmp_path / "backup.tar")
    assert report.records == 11
    with opened(work) as eraser:
        eraser.unlearn(ids=[name(1)])  # the pending one stays
        before, held, head = eraser.model_digest, eraser.record_ids(), eraser.workspace.ledger.head
    newest = (work / "ledger").read_bytes()
    shutil.rmtree(work)
    restored = restore(tmp_path / "backup.tar", work, newest=newest, head=head)
    assert restored.records_deleted == 1
    with opened(work) as eraser:
        assert eraser.workspace.generations.current() is None, "nothing is served before it is derived"
        training = eraser.train()
        assert (eraser.model_digest, eraser.record_ids()) == (before, held)
        assert bool(training.model.pages) is pages
        assert eraser.check_ledger().sound
        assert [request.state for request in eraser.requests() if request.open] == ["pending"]
        assert eraser.workspace.requests.pending_selection().ids == (name(4),)
        assert all(key.revoked for key in eraser.workspace.api_keys.all())
        assert eraser.residue(ids=[name(1)], features=False).clean
        for url in ("https://one.example", "https://two.example"):  # numbers go on where they were
            with eraser.workspace.write_transaction() as connection:
                eraser.workspace.subscriptions.add(connection, eraser.requests()[0].id, [url], now=NOW)
        assert training.model.generation == 3
        certificates = eraser.unlearn().certificates
        assert eraser.audit().identical
        for path in certificates:
            data = Path(path).read_bytes()
            stated = verify(data, eraser.workspace.signing_key.public)
            verify_in_ledger(data, stated, eraser.workspace.ledger.path.read_bytes())


@pytest.mark.long
def test_a_workspace_of_many_clusters_is_restored(tmp_path: Path) -> None:
    chosen = CONFIG.model_copy(
        update={"partition": parse({"partition": {"method": "class_tree", "max_records": 3}}).partition}
    )
    Eraser.create(tmp_path / "w", chosen, classes=CLASSES, clock=lambda: NOW).close()
    with opened(tmp_path / "w") as eraser:
        add(eraser, range(2000))
        eraser.train()
        eraser.unlearn(ids=[name(0)])
    made(tmp_path / "w", tmp_path / "backup.tar")
    with opened(tmp_path / "w") as eraser:
        eraser.unlearn(ids=[name(1), name(2)])
        model, head = eraser.workspace.generations.require(), eraser.workspace.ledger.head
        assert len(model.pages) > 1
    newest = (tmp_path / "w" / "ledger").read_bytes()
    shutil.rmtree(tmp_path / "w")
    assert restore(tmp_path / "backup.tar", tmp_path / "w", newest=newest, head=head).records_deleted == 2
    with opened(tmp_path / "w") as eraser:
        assert eraser.train().model.model_digest == model.model_digest
        assert [page.digest for page in eraser.workspace.generations.require().pages] == [
            page.digest for page in model.pages
        ]
        eraser.unlearn(ids=[name(3)])
        assert eraser.audit().identical
        assert eraser.check_ledger().sound


def test_finished_parts_are_found_in_the_backup(work: Path, tmp_path: Path) -> None:
    made(work, tmp_path / "backup.tar")
    newest = (work / "ledger").read_bytes()
    restore(tmp_path / "backup.tar", tmp_path / "new", newest=newest)
    with opened(tmp_path / "new") as eraser:
        assert eraser.train().stage_counts["tuned"] == 0
        certificates = sorted(path.name for path in eraser.workspace.certificates.iterdir())
    assert certificates == sorted(path.name for path in (work / "certificates").iterdir())
    assert (tmp_path / "new" / "secret.key").stat().st_mode & 0o777 == 0o600


def test_without_a_newer_ledger_the_restoration_is_noted(work: Path, tmp_path: Path) -> None:
    made(work, tmp_path / "backup.tar")
    restore(tmp_path / "backup.tar", tmp_path / "new")
    with opened(tmp_path / "new") as eraser:
        eraser.train()
        last = eraser.workspace.ledger.entries()[-2]
        assert (last.kind, last.body["entries"]) == ("restored", last.position)
        assert eraser.check_ledger().sound


def test_a_backup_holds_neither_the_model_nor_pictures_nor_what_was_deleted(work: Path, tmp_path: Path) -> None:
    (work / "reports").mkdir()
    (work / "reports" / "clusters.png").write_bytes(b"a picture")
    report = made(work, tmp_path / "backup.tar")
    found = members(tmp_path / "backup.tar")
    assert not any(member.startswith(("generations", "reports", "lock", ".tmp")) for member in found)
    assert {"rows.db", "records.keys", "ledger", "lmeraser.toml", "workspace.json", "backup.json"} <= found.keys()
    assert json.loads(found["backup.json"])["ledger"] == report.head.to_json()
    assert (tmp_path / "backup.tar").stat().st_mode & 0o077 == 0
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []


def test_requests_are_accepted_and_cancelled_while_rows_are_copied(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What happens after the moment that the backup is of comes from the newer ledger."""

    def copying(source: Connection, target: Connection) -> None:
        with opened(work) as other:
            other.cancel(other.requests()[0].id if other.requests()[0].open else other.requests()[1].id)
            other.request(ids=[name(5)])
        copy_rows(source, target)

    copy_rows = module.copy_rows
    monkeypatch.setattr(module, "copy_rows", copying)
    made(work, tmp_path / "backup.tar")
    with opened(work) as eraser, eraser.workspace.writing("flush"):
        newest = eraser.workspace.ledger.path.read_bytes()
    restore(tmp_path / "backup.tar", tmp_path / "before")
    report = restore(tmp_path / "backup.tar", tmp_path / "after", newest=newest)
    with opened(tmp_path / "before") as before, opened(tmp_path / "after") as after:
        copied = before.workspace.requests.pending_selection()
        assert copied.ids == (name(4),), "its key was copied before it was erased"
        assert after.workspace.requests.pending_selection().ids == ()
        assert len(report.requests_lost) == 1


@pytest.mark.sqlite
def test_older_tables_are_brought_to_this_version(work: Path, tmp_path: Path) -> None:
    made(work, tmp_path / "backup.tar")
    found = members(tmp_path / "backup.tar")
    old = tmp_path / "rows.db"
    old.write_bytes(found["rows.db"])
    rows = open_backend(old)
    with rows.engine.begin() as connection:
        for table in ("api_keys", "subscriptions", "exports", "receipts"):
            connection.execute(text(f"DROP TABLE {table}"))
        for column in ("payload", "near_id", "near_subject"):
            connection.execute(text(f"DROP INDEX ix_records_{column}"))
            connection.execute(text(f"ALTER TABLE records DROP COLUMN {column}"))
        desk = ("starts", "filed_by", "extended", "extension_reason", "cancel_reason", "reference_slot")
        for column in ("asked", "duplicates", "near_duplicates", *desk, "sealed_reference"):
            connection.execute(text(f"ALTER TABLE requests DROP COLUMN {column}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    rows.engine.dispose()
    found["rows.db"] = old.read_bytes()
    contents = json.loads(found["backup.json"])
    contents["files"]["rows.db"] = Digest.of(found["rows.db"])
    contents["format"] = 1
    contents["files"]["notes.txt"] = Digest.of(b"what else lay in the folder")
    found["backup.json"] = json.dumps(contents).encode()
    del found["backup.sig"]
    with pytest.raises(VerificationError, match="not signed"):
        restore(repacked(tmp_path / "old.tar", found), tmp_path / "new")
    found["notes.txt"] = b"what else lay in the folder"
    restore(
        repacked(tmp_path / "old.tar", found),
        tmp_path / "new",
        newest=(work / "ledger").read_bytes(),
        unsigned=True,
    )
    assert not (tmp_path / "new" / "notes.txt").exists()
    with opened(tmp_path / "new") as eraser:
        assert len(eraser.record_ids()) == 11
    assert schema.VERSION > "0001"


# --- refused -----------------------------------------------------------------------------------------------


def another_format(files: dict[str, bytes]) -> None:
    files["backup.json"] = json.dumps({**json.loads(files["backup.json"]), "format": 99}).encode()


def another_byte(files: dict[str, bytes]) -> None:
    files["ledger"] = files["ledger"].replace(b"added", b"adder", 1)


def a_file_less(files: dict[str, bytes]) -> None:
    del files["records.keys"]


def a_file_more(files: dict[str, bytes]) -> None:
    files["generations/current"] = b"00000000.json"


def a_way_out(files: dict[str, bytes]) -> None:
    files["../outside"] = b"not here"


def no_contents(files: dict[str, bytes]) -> None:
    del files["backup.json"]


def no_signature(files: dict[str, bytes]) -> None:
    del files["backup.sig"]


def described(files: dict[str, bytes]) -> None:
    """Let the digests fit whatever is there."""
    contents = json.loads(files["backup.json"])
    contents["files"] = {name: Digest.of(files[name]) for name in contents["files"]}
    files["backup.json"] = json.dumps(contents).encode()


def a_setting_changed(files: dict[str, bytes]) -> None:
    files["lmeraser.toml"] += b"\n[requests]\nquarantine = false\n"
    described(files)


def another_signing_key(files: dict[str, bytes]) -> None:
    files["signing.key"] = SigningKey.new().pem
    described(files)


def signed_by_somebody_else(files: dict[str, bytes]) -> None:
    key = SigningKey.new()
    files["signing.key"], files["signing.pub"] = key.pem, key.public.pem
    described(files)
    files["backup.sig"] = key.sign(files["backup.json"], payload_type=PAYLOAD_TYPE).to_bytes()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("unsigned", [True, False])
def test_a_backup_is_made_of_regular_files_alone(work: Path, tmp_path: Path, kind: bytes, unsigned: bool) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as archive:
        info = tarfile.TarInfo("calibration.json")
        info.type, info.linkname = kind, "../../outside"
        archive.addfile(info)
    with pytest.raises(InputError, match="link, folder or device"):
        restore(tmp_path / "bad.tar", tmp_path / "new", unsigned=unsigned)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_backup_of_another_workspace_is_told_by_a_key_kept_elsewhere(work: Path, tmp_path: Path) -> None:
    made(work, tmp_path / "backup.tar")
    with pytest.raises(VerificationError, match="another key"):
        restore(tmp_path / "backup.tar", tmp_path / "new", key=SigningKey.new().public)
    restore(tmp_path / "backup.tar", tmp_path / "new", key=PublicKey.read(work / "signing.pub"))


def test_sigterm_leaves_no_keys_beside_the_target(
    work: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "disk"

    def terminated(*_: object) -> None:
        assert list(folder.iterdir())
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(module, "_pack", terminated)
    before = signal.getsignal(signal.SIGTERM)
    assert run("-w", work, "backup", folder / "backup.tar").code == 130
    assert list(folder.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("attack", "error", "told"),
    [
        (another_format, FormatError, "format 99"),
        (another_byte, CorruptError, "ledger"),
        (a_file_less, CorruptError, "records.keys"),
        (a_file_more, InputError, "generations"),
        (a_way_out, InputError, "outside"),
        (no_contents, InputError, "backup.json"),
        (no_signature, InputError, "backup.sig"),
        (a_setting_changed, VerificationError, "another one"),
        (another_signing_key, VerificationError, "another key"),
        (signed_by_somebody_else, VerificationError, "another key"),
    ],
)
def test_a_damaged_backup_gives_nothing(
    work: Path,
    tmp_path: Path,
    attack: Callable[[dict[str, bytes]], None],
    error: type[LmeraserError],
    told: str,
) -> None:
    made(work, tmp_path / "backup.tar")
    files = members(tmp_path / "backup.tar")
    attack(files)
    with pytest.raises(error, match=told):
        restore(repacked(tmp_path / "bad.tar", files), tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    assert not (tmp_path / "outside").exists()


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_backup_that_was_cut_off_gives_nothing(work: Path, tmp_path: Path, size: int) -> None:
    made(work, tmp_path / "backup.tar")
    (tmp_path / "cut.tar").write_bytes((tmp_path / "backup.tar").read_bytes()[:size])
    with pytest.raises((InputError, CorruptError)):
        restore(tmp_path / "cut.tar", tmp_path / "new")
    with pytest.raises(WorkspaceError):
        Workspace(tmp_path / "new")


def test_a_shortened_or_foreign_ledger_gives_no_workspace(work: Path, tmp_path: Path) -> None:
    made(work, tmp_path / "backup.tar")
    lines = (work / "ledger").read_bytes().splitlines(keepends=True)
    for newest, told in (
        (b"".join(lines[:-1]), "shortened"),
        (b"".join(lines)[:-1], "no line end"),
        (b"", "0 entries"),
    ):
        with pytest.raises(VerificationError, match=told):
            restore(tmp_path / "backup.tar", tmp_path / "new", newest=newest)
        assert list((tmp_path / "new").iterdir()) == []


def test_nothing_is_overwritten(work: Path, tmp_path: Path) -> None:
    made(work, tmp_path / "backup.tar")
    with pytest.raises(InputError, match="File already exists"):
        made(work, tmp_path / "backup.tar")
    with pytest.raises(InputError, match="inside the workspace"):
        made(work, work / "inside.tar")
    with pytest.raises(InputError, match="Folder is not empty"):
        restore(tmp_path / "backup.tar", work)
    with pytest.raises(InputError, match="Not a complete backup"):
        restore(tmp_path / "none.tar", tmp_path / "new")


def test_what_an_interrupted_restoration_left_is_in_nobodys_way(work: Path, tmp_path: Path) -> None:
    made(work, tmp_path / "backup.tar")
    left = tmp_path / "new" / ".tmp-restore"
    left.mkdir(parents=True)
    (left / "records.keys").write_bytes(b"half")
    with pytest.raises(WorkspaceError):
        Workspace(tmp_path / "new")
    restore(tmp_path / "backup.tar", tmp_path / "new", newest=(work / "ledger").read_bytes())
    with opened(tmp_path / "new") as eraser:
        assert len(eraser.record_ids()) == 11
    assert not left.exists()


def test_a_restoration_that_is_killed_leaves_no_workspace_or_all_of_it(work: Path, tmp_path: Path) -> None:
    made(work, tmp_path / "backup.tar")
    with opened(work) as eraser:
        eraser.unlearn(ids=[name(1)])
        held = eraser.record_ids()
    newest = (work / "ledger").read_bytes()
    for at in itertools.count(1, 40):
        new = tmp_path / f"new-{at}"
        code = stopped(work, lambda _: restore(tmp_path / "backup.tar", new, newest=newest), "kill", at)  # noqa: B023
        if (new / "workspace.json").exists():
            with opened(new) as eraser:
                assert eraser.record_ids() == held
                assert eraser.workspace.generations.current() is None
                eraser.train()
                assert eraser.check_ledger().sound
        if code == 0:
            break
        shutil.rmtree(new, ignore_errors=True)
