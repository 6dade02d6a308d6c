"""A scan finds whatever of a probe is left in any byte of a folder, and nothing that others may have put there."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lmeraser.unlearning.residue as residue
from conftest import DIGIT_COLUMNS, NOW, Run, digits, examples, exchange_payload
from fake import Fake
from lmeraser import Eraser
from lmeraser.config.schema import parse
from lmeraser.errors import InputError, StorageError
from lmeraser.pipeline.executors.provider import ExecutorProvider
from lmeraser.unlearning.residue import WINDOW, Find, ResidueReport, scan

CONFIG = parse({"partition": {"clusters": 4, "sample_size": 12}})


def noise(size: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(size)


@st.composite
def informative(draw: st.DrawFn) -> bytes:
    """A window with more than 8 different bytes."""
    different = draw(st.lists(st.integers(0, 255), min_size=WINDOW // 2 + 1, max_size=WINDOW, unique=True))
    rest = WINDOW - len(different)
    repeated = draw(st.lists(st.sampled_from(different), min_size=rest, max_size=rest))
    return bytes(draw(st.permutations([*different, *repeated])))


@st.composite
def poor(draw: st.DrawFn) -> bytes:
    """Bytes of any length with no more than 8 different ones in any window."""
    few = draw(st.lists(st.integers(0, 255), min_size=1, max_size=WINDOW // 2, unique=True))
    return bytes(draw(st.lists(st.sampled_from(few), max_size=100)))


WINDOWS = informative()
POOR = poor()


def scanned(files: Mapping[str, bytes], probes: Mapping[str, bytes], **options: object) -> ResidueReport:
    """A scan of a folder with these files."""
    with TemporaryDirectory() as folder:
        for name, data in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return scan(Path(folder), probes, **options)  # type: ignore[arg-type]


# --- windows -----------------------------------------------------------------------------------------------


@given(WINDOWS, st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 9))
@settings(examples(fast=100, explore=300))
def test_a_window_is_found_at_any_offset_of_a_file_of_any_size(
    window: bytes, before: int, after: int, seed: int
) -> None:
    data = noise(before, seed) + window + noise(after, seed + 1)
    report = scanned({"folder/file": data}, {"probe": window})
    assert report.finds == (Find("probe", "folder/file", data.find(window)),)
    assert not report.clean
    assert (report.windows, report.shared, report.bytes_searched, report.files) == (1, 0, len(data), 1)


@given(WINDOWS, st.binary(max_size=40), st.binary(max_size=40))
@settings(deadline=None)
def test_one_window_of_a_longer_probe_is_enough(window: bytes, before: bytes, after: bytes) -> None:
    report = scanned({"file": b"..." + window}, {"probe": before + window + after})
    assert [(find.probe, find.file) for find in report.finds] == [("probe", "file")]
    assert report.finds[0].offset <= 3


@pytest.mark.parametrize("size", [15, 16, 17, 23, 24, 31, 32, 33, 47])
def test_every_offset_of_small_files_is_searched(size: int) -> None:
    window = bytes(range(100, 100 + WINDOW))
    for offset in range(size - WINDOW + 1):
        data = bytes(offset) + window + bytes(size - WINDOW - offset)
        assert scanned({"file": data}, {"probe": window}).finds == (Find("probe", "file", offset),)
    assert scanned({"file": window[1:] + bytes(size)}, {"probe": window}).clean, "15 bytes are no window"
    assert scanned({"file": bytes(size) + window[:-1]}, {"probe": window}).clean


@given(WINDOWS, st.integers(1, 5), st.integers(0, 200), st.integers(0, 200))
@settings(examples(fast=66, explore=200))
def test_windows_across_the_boundary_of_chunks_are_found(
    window: bytes, chunk: int, before: int, after: int
) -> None:
    data = noise(before, 1) + window + noise(after, 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(residue, "_CHUNK", chunk)
        assert scanned({"file": data}, {"p": window}).finds == (Find("p", "file", data.find(window)),)


def test_a_file_longer_than_a_chunk_is_searched_to_its_end() -> None:
    window, size = noise(WINDOW, 3), residue._CHUNK * 8
    for offset in (size - WINDOW, size - 9, size - 8, size - 1, size, size + 3):
        data = bytes(offset) + window
        assert scanned({"file": data}, {"probe": window}).finds == (Find("probe", "file", offset),)


def naive(data: bytes) -> dict[int, bytes]:
    """Every window that counts, by its offset."""
    every = {start: data[start : start + WINDOW] for start in range(len(data) - WINDOW + 1)}
    return {start: window for start, window in every.items() if len(set(window)) > 8}


PIECES = st.lists(st.sampled_from([noise(size, size) for size in (3, 7, 20, 31, 50)] + [bytes(9)]), max_size=5)
PAYLOADS = PIECES.map(b"".join)


@given(st.lists(PAYLOADS, max_size=3), PAYLOADS, st.lists(PAYLOADS, max_size=2))
@settings(examples(fast=100, explore=300))
def test_a_scan_finds_what_comparing_all_windows_with_all_windows_finds(
    files: Sequence[bytes], probe: bytes, retained: Sequence[bytes]
) -> None:
    there = set().union(*(naive(data).values() for data in retained))
    every = set(naive(probe).values())
    wanted = every - there
    expected = []
    for number, data in enumerate(files):
        offsets = [offset for offset, window in naive(data).items() if window in wanted]
        expected += [Find("probe", str(number), min(offsets))] if offsets else []
    report = scanned({str(n): data for n, data in enumerate(files)}, {"probe": probe}, retained=retained)
    assert report.finds == tuple(expected)
    assert report.clean == (not expected)
    assert (report.windows, report.shared) == (len(wanted), len(every & there))


@given(WINDOWS, st.integers(0, 40), st.integers(0, 40))
@settings(deadline=None)
def test_what_a_retained_payload_holds_as_well_is_not_reported(window: bytes, before: int, after: int) -> None:
    payload = noise(before, 5) + window + noise(after, 6)
    report = scanned({"file": window}, {"probe": window}, retained=[b"", bytes(50), payload])
    assert (report.clean, report.windows, report.shared) == (True, 0, 1)


def test_what_is_the_probes_own_is_reported_beside_what_is_shared() -> None:
    header, own = noise(40, 7), noise(40, 8)
    report = scanned({"file": header + own}, {"probe": header + own}, retained=[header + noise(40, 9)])
    assert report.finds == (Find("probe", "file", 25),), "the first window with a byte of its own"
    assert (report.shared, report.windows) == (25, 40)


@given(POOR)
@settings(deadline=None)
def test_windows_that_hold_hardly_any_information_are_passed_over(data: bytes) -> None:
    report = scanned({"file": data}, {"probe": data})
    assert (report.clean, report.windows, report.shared) == (True, 0, 0)


def test_probes_of_which_nothing_can_be_searched_are_told() -> None:
    own, shared = noise(20, 14), noise(30, 15)
    probes = {"own": own + shared, "empty": b"", "short": own[:15], "poor": bytes(99), "shared": shared}
    report = scanned({"file": b""}, probes, retained=[shared])
    assert report.clean
    assert report.not_searched == ("empty", "poor", "shared", "short")
    assert scanned({}, {"own": own, "more": own + shared}, retained=[own]).not_searched == ("own",)


def test_nine_different_bytes_are_information_and_eight_are_not() -> None:
    for different, clean in ((8, True), (9, False)):
        window = bytes(place % different for place in range(WINDOW))
        assert scanned({"file": window}, {"probe": window}).clean == clean


def test_a_find_is_told_once_for_each_probe_and_file_in_order() -> None:
    one, two = noise(30, 10), noise(30, 11)
    files = {"b/x": b"-" + two + one + two, "a": one + one, "c": bytes(99)}
    report = scanned(files, {"one": one, "two": two})
    assert report.finds == (Find("one", "a", 0), Find("two", "b/x", 1), Find("one", "b/x", 31))


# --- names -------------------------------------------------------------------------------------------------


@given(st.binary(max_size=50), st.sampled_from(["digit-0007", "Ada L.", "Zoë Grün", "日本", "a b/c"]))
@settings(deadline=None)
def test_a_name_is_found_in_contents_at_its_first_offset(before: bytes, name: str) -> None:
    data = before + name.encode() + b"." + name.encode()
    report = scanned({"-": data}, {}, names=[name, "nobody", ""])
    assert report.finds == (Find(name, "-", data.find(name.encode())),)
    assert report.too_short == ()
    lengths = {each.probe: each.length for each in report.chance}
    assert lengths == {name: len(name.encode()), "nobody": 6}


@pytest.mark.parametrize(
    ("length", "size", "told"), [(2, 65, False), (3, 16, True), (3, 17, False), (4, 4294, True)]
)
def test_a_text_expected_more_than_a_millionth_time_by_chance_is_too_short(
    length: int, size: int, told: bool
) -> None:
    name = "nameless"[:length]
    report = scanned({"file": name.encode() * 2 + bytes(size - 2 * length)}, {}, names=[name])
    (chance,) = report.chance
    assert (chance.probe, chance.length) == (name, length)
    assert chance.expected == pytest.approx(size / 256**length)
    assert (chance.expected <= 1e-6) == told
    assert chance.occurrences == (None if told else 2)
    assert report.too_short == (() if told else (name,))
    assert report.finds == ((Find(name, "file", 0),) if told else ())
    assert not report.clean


def test_a_short_text_that_stands_nowhere_is_not_clean_either() -> None:
    report = scanned({"file": bytes(9999)}, {}, names=["w2"])
    assert (report.clean, report.finds, report.too_short) == (False, (), ("w2",))


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b'["id", "w2", null]', True),
        (b'{"a": [{"subject": "w2"}]}', True),
        (b'{"w2": 1}', True),
        (b'{"a": 1}\n{"b": "w2"}\n', True),
        (b'["w22", "aw2"]', False),
        (b'["w2", ', False),
        (b'["w2"]\xff', False),
        (b"w2", False),
        (b"[" * 5000 + b'"w2"', False),
    ],
)
def test_a_short_text_is_found_where_it_is_a_whole_value(data: bytes, found: bool) -> None:
    report = scanned({"file": data, "rest": bytes(9999)}, {}, names=["w2"])
    assert report.finds == ((Find("w2", "file", data.find(b"w2")),) if found else ())


@pytest.mark.parametrize(("name", "found"), [("w2", True), ("a/w2/b", True), ("w2.png", True), ("aw2", False)])
def test_a_short_text_is_found_where_it_is_a_whole_name(name: str, found: bool) -> None:
    report = scanned({name: bytes(9999)}, {}, names=["w2"])
    assert report.finds == ((Find("w2", name, -1),) if found else ())


def test_random_bytes_are_no_find() -> None:
    data = noise(300_000, 1)
    names = [f"{first}{second}" for first in "aw" for second in range(10)]
    report = scanned({"file": data}, {}, names=names)
    assert (report.finds, report.too_short) == ((), tuple(names))
    assert sum(each.occurrences or 0 for each in report.chance) == sum(data.count(name.encode()) for name in names)


def test_the_chance_of_a_probe_is_that_of_its_windows() -> None:
    report = scanned({"file": bytes(1000)}, {"probe": noise(25, 1), "empty": b""})
    assert [(each.probe, each.length, each.occurrences) for each in report.chance] == [
        ("probe", WINDOW, None),
        ("empty", WINDOW, None),
    ]
    assert report.chance[0].expected == pytest.approx(10 * 1000 / 256**16)
    assert report.chance[1].expected == 0
    assert report.clean


def test_a_name_is_found_in_the_names_of_files_and_folders() -> None:
    files = {"artifacts/digit-0007/part": b"", "digit-0007.png": b"..digit-0007", "digit-000": b"7"}
    report = scanned(files, {}, names=["digit-0007"])
    assert report.finds == (
        Find("digit-0007", "artifacts/digit-0007/part", -1),
        Find("digit-0007", "digit-0007.png", -1),
        Find("digit-0007", "digit-0007.png", 2),
    )


def test_the_name_of_the_folder_itself_is_not_searched(tmp_path: Path) -> None:
    (tmp_path / "Ada").mkdir()
    (tmp_path / "Ada" / "file").write_bytes(b"")
    assert scan(tmp_path / "Ada", {}, ["Ada"]).clean


# --- files -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"x", bytes(15)])
def test_empty_and_tiny_files_and_probes_hold_nothing(data: bytes) -> None:
    window = bytes(range(WINDOW))
    assert scanned({"empty": data}, {"probe": window, "none": data}, retained=[data]).clean
    assert scanned({"file": window}, {"probe": data}, retained=[data, window]).clean
    report = scanned({}, {"probe": window})
    assert (report.clean, report.files, report.bytes_searched) == (True, 0, 0)


def test_what_symbolic_links_lead_to_is_searched_once(tmp_path: Path) -> None:
    window = noise(WINDOW, 12)
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    (outside / "folder").mkdir(parents=True)
    inside.mkdir()
    for path in (outside / "file", outside / "folder" / "file"):
        path.write_bytes(window)
    (inside / "link").symlink_to(outside / "file")
    (inside / "folder").symlink_to(outside / "folder")
    (inside / "loop").symlink_to(inside)
    (inside / "nowhere").symlink_to(inside / "missing")
    (inside / "file").write_bytes(b"nothing")
    report = scan(inside, {"probe": window})
    assert [(find.file, find.offset) for find in report.finds] == [("folder/file", 0), ("link", 0)]
    assert (report.files, report.bytes_searched) == (3, 7 + 2 * WINDOW)
    assert report.not_read == ("nowhere",)
    for path in (inside / "link", inside / "folder"):
        path.unlink()
    report = scan(inside, {"probe": window})
    assert (report.clean, report.finds, report.not_read) == (False, (), ("nowhere",))
    (inside / "nowhere").unlink()
    assert scan(inside, {"probe": window}).clean


def test_a_linked_shard_of_artifacts_is_searched_and_stops_a_purge(eraser: Eraser, tmp_path: Path) -> None:
    root = eraser.workspace.root
    shard = next((root / "artifacts").iterdir())
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    probe = next((tmp_path / "elsewhere").iterdir())
    report = eraser.residue([probe], features=False)
    assert f"artifacts/{shard.name}/{probe.name}" in {find.file for find in report.finds}
    gone = eraser.sampled_ids()[0]
    with pytest.raises(StorageError, match="Symbolic link"):
        eraser.unlearn(ids=[gone])
    assert eraser.requests()[0].state == "in_progress", "not certified"
    shard.unlink()
    (tmp_path / "elsewhere").rename(shard)
    eraser.train()
    assert eraser.requests()[0].state == "completed"


@pytest.mark.parametrize("name", ["reports", "generations"])
def test_a_linked_file_stops_a_purge(eraser: Eraser, tmp_path: Path, name: str) -> None:
    (tmp_path / "outside").write_bytes(b"a picture")
    (eraser.workspace.root / name).mkdir(exist_ok=True)
    (eraser.workspace.root / name / "link.png").symlink_to(tmp_path / "outside")
    with pytest.raises(StorageError, match="Symbolic link"):
        eraser.purge()
    assert (tmp_path / "outside").exists()


def test_artifacts_may_lie_on_another_disk(eraser: Eraser, tmp_path: Path) -> None:
    artifacts = eraser.workspace.root / "artifacts"
    artifacts.rename(tmp_path / "disk")
    artifacts.symlink_to(tmp_path / "disk")
    before = {path.name for path in (tmp_path / "disk").rglob("*.safetensors")}
    eraser.unlearn(ids=[eraser.sampled_ids()[0]])
    after = {path.name for path in (tmp_path / "disk").rglob("*.safetensors")}
    model = eraser.workspace.generations.require()
    assert after == {f"{result.artifact.hex}.safetensors" for result in model.stages.values()}
    assert before - after


def test_hidden_files_and_folders_are_searched(tmp_path: Path) -> None:
    window = noise(WINDOW, 13)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / ".tmp-left").write_bytes(window)
    assert scan(tmp_path, {"probe": window}).finds == (Find("probe", ".git/.tmp-left", 0),)


def test_progress_is_told_for_every_file(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / name).write_bytes(b"")
    told: list[tuple[str, int, int | None]] = []
    scan(tmp_path, {}, progress=lambda step, done, total: told.append((step, done, total)))
    assert told == [("searching files", done, 3) for done in (1, 2, 3)]


# --- a workspace -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained workspace of 40 digits; only copied by the tests."""
    root = tmp_path_factory.mktemp("residue") / "w"
    with Eraser.create(root, CONFIG, clock=lambda: NOW) as eraser:
        eraser.session.executors.use(Fake())
        eraser.add(digits(range(40)), columns=DIGIT_COLUMNS)
        eraser.train()
    return root


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "w"))


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def eraser(root: Path, fake: Fake) -> Iterator[Eraser]:
    with Eraser(root, clock=lambda: NOW) as opened:
        opened.session.executors.use(fake)
        yield opened


def held(eraser: Eraser, record_id: str, folder: Path) -> Path:
    """The exact image file of a record."""
    path = folder / "held.png"
    path.write_bytes(eraser.workspace.records.payloads([record_id])[0])
    return path


def chosen(eraser: Eraser, *, sampled: bool) -> str:
    sample = eraser.sampled_ids()
    return sample[0] if sampled else next(i for i in eraser.record_ids() if i not in sample)


@pytest.mark.parametrize("sampled", [True, False])
def test_a_record_is_found_while_it_is_held_and_not_after_it_is_unlearned(
    eraser: Eraser, tmp_path: Path, sampled: bool
) -> None:
    gone = chosen(eraser, sampled=sampled)
    probe = held(eraser, gone, tmp_path)
    before = eraser.residue([probe], ids=[gone])
    assert {find.probe for find in before.finds} == {str(probe), f"features of {probe}", gone}
    assert all(find.file.startswith("records.db") for find in before.finds)
    assert all(find.offset >= 0 for find in before.finds)
    assert before.shared > 0, "images of one format begin alike"
    eraser.unlearn(ids=[gone], audit=True)
    after = eraser.residue([str(probe)], ids=[gone])
    assert (after.clean, after.finds) == (True, ())
    assert after.windows > 50
    eraser.close()
    assert eraser.residue([probe], ids=[gone]).clean


def test_a_deleted_image_in_the_row_of_another_record_is_found(eraser: Eraser, tmp_path: Path) -> None:
    gone = chosen(eraser, sampled=False)
    probe = held(eraser, gone, tmp_path)
    eraser.unlearn(ids=[gone])
    exchange_payload(eraser.workspace.records, eraser.record_ids()[0], probe.read_bytes())
    report = eraser.residue([probe], features=False)
    assert (report.clean, report.mismatched, report.held) == (False, 1, 0)
    assert {find.file for find in report.finds} == {"records.db, images"}
    assert not eraser.residue(ids=["nobody at all"], features=False).clean


def test_a_person_is_found_while_one_record_of_theirs_is_held(eraser: Eraser) -> None:
    report = eraser.residue(ids=["w2"])
    assert report.too_short == ("w2",)
    assert {find.file for find in report.finds} == {"records.db, records"}
    eraser.unlearn(subjects=["w2"])
    assert eraser.residue(ids=["w2"]).finds == ()
    assert eraser.residue(ids=[f"digit-{number:04d}" for number in range(2, 40, 5)]).clean


def test_records_that_are_still_held_are_still_found(eraser: Eraser, tmp_path: Path) -> None:
    gone, other = eraser.record_ids()[:2]
    eraser.unlearn(ids=[gone])
    report = eraser.residue([held(eraser, other, tmp_path)], ids=[other])
    assert {find.probe.split()[0] for find in report.finds} == {str(tmp_path / "held.png"), "features", other}


def test_features_are_computed_only_of_images_and_only_if_wanted(
    eraser: Eraser, fake: Fake, tmp_path: Path
) -> None:
    image, text = held(eraser, "digit-0001", tmp_path), tmp_path / "text"
    text.write_bytes(b"The quick brown fox jumps over the lazy dog")
    assert eraser.residue([text]).clean
    assert fake.embedded == []
    report = eraser.residue([image, text], features=False)
    assert {find.probe for find in report.finds} == {str(image)}
    assert fake.embedded == []
    eraser.residue([image, text])
    assert fake.embedded == [str(image)]


def test_features_alone_are_found(eraser: Eraser, tmp_path: Path) -> None:
    probe = held(eraser, "digit-0001", tmp_path)
    eraser.unlearn(ids=["digit-0001"])
    ((_, vector),) = Fake().embed(["x"], lambda ids: [probe.read_bytes()], lambda *_: None)
    (eraser.workspace.root / "left").write_bytes(b"?" + vector.tobytes())
    assert eraser.residue([probe]).finds == (Find(f"features of {probe}", "left", 1),)


def test_anything_left_anywhere_in_the_workspace_is_found(eraser: Eraser, tmp_path: Path) -> None:
    probe = held(eraser, "digit-0001", tmp_path)
    eraser.unlearn(ids=["digit-0001"])
    data = probe.read_bytes()
    for name in ("lmeraser.toml", "ledger", "artifacts/.tmp-left", "certificates/x", "digit-0001"):
        path = eraser.workspace.root / name
        old = path.read_bytes() if path.exists() else None
        path.write_bytes((old or b"") + data[-40:-8])
        report = eraser.residue([probe], ids=["digit-0001"])
        assert {find.file for find in report.finds} == {name}
        path.write_bytes(old) if old is not None else path.unlink()
    assert eraser.residue([probe], ids=["digit-0001"]).clean


def test_a_probe_that_cannot_be_read_is_named(eraser: Eraser, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing"):
        eraser.residue([tmp_path / "missing"])


def test_a_scan_changes_nothing(eraser: Eraser, tmp_path: Path) -> None:
    probe = held(eraser, "digit-0001", tmp_path)
    eraser.close()

    def contents() -> dict[Path, bytes]:
        paths = (path for path in eraser.workspace.root.rglob("*") if path.is_file())
        return {path: path.read_bytes() for path in paths if path.suffix != ".db-shm"}

    before = contents()
    eraser.residue([probe], ids=["digit-0001"])
    eraser.close()
    assert contents() == before


# --- the command line --------------------------------------------------------------------------------------


@pytest.fixture
def run(run: Run, root: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line on the workspace, without torch."""
    fake = Fake()
    monkeypatch.setattr(ExecutorProvider, "local", lambda _: fake)
    return partial(run, "-w", root)


def test_the_exit_status_tells_whether_something_was_found(run: Run, root: Path, tmp_path: Path) -> None:
    with Eraser(root) as eraser:
        probe = held(eraser, "digit-0001", tmp_path)
    search = ("residue", "--probe", probe, "--id", "digit-0001")
    code, out, _ = run(*search)
    assert code == 1
    for found in (probe, f"features of {probe}", "digit-0001"):
        assert f"FOUND {found} in records.db" in out
    assert "2 finds" in run(*search, "--no-features")[1]
    code, out, _ = run(*search, "--json")
    report = json.loads(out)
    assert code == 1
    keys = {"clean", "finds", "windows", "shared", "not_searched", "too_short", "chance", "held"}
    keys |= {"bytes_searched", "files", "mismatched", "not_read", "near_duplicates"}
    assert report.keys() == keys
    assert (report["clean"], len(report["finds"])) == (False, 3)
    assert all(find.keys() == {"probe", "file", "offset"} for find in report["finds"])
    assert run("unlearn", "--id", "digit-0001")[0] == 0
    code, out, _ = run(*search)
    assert (code, "nothing found" in out, "FOUND" in out) == (0, True, False)
    code, out, _ = run(*search, "--json")
    assert (code, json.loads(out)["clean"], json.loads(out)["finds"]) == (0, True, [])


def test_the_exit_status_tells_that_an_id_is_too_short(run: Run) -> None:
    code, out, _ = run("residue", "--id", "w2")
    assert (code, "FOUND w2 in records.db, records" in out, "TOO SHORT TO TELL w2: " in out) == (1, True, True)
    assert run("unlearn", "--subject", "w2")[0] == 0
    code, out, _ = run("residue", "--id", "w2")
    assert (code, "nothing found" in out, "FOUND" in out, "TOO SHORT TO TELL w2: " in out) == (
        3,
        True,
        False,
        True,
    )
    code, out, _ = run("residue", "--id", "w2", "--json")
    report = json.loads(out)
    assert (code, report["clean"], report["finds"], report["too_short"]) == (3, False, [], ["w2"])
    assert report["chance"][0]["expected"] == report["bytes_searched"] / 256**2
    code, out, _ = run("residue", "--id", "digit-0002")
    assert (code, "digit-0002: " in out, "finds expected by chance" in out) == (0, True, True)


def test_a_scan_for_nothing_and_a_missing_probe_are_refused(run: Run, tmp_path: Path) -> None:
    for arguments in ([], ["--probe", tmp_path / "missing"]):
        code, out, err = run("residue", *arguments)
        assert (code, out) == (2, "")
        assert err.startswith("lmeraser: ")


def test_a_name_beyond_ascii_is_found_in_the_name_of_a_file(run: Run, root: Path) -> None:
    name = "Zürich-digit-0001"
    (root / name).write_bytes(b"")
    _, out, _ = run("residue", "--id", "Zürich", "--json")
    assert json.loads(out)["finds"] == [{"probe": "Zürich", "file": name, "offset": -1}]


def test_two_probes_with_the_same_bytes_are_both_found(tmp_path: Path) -> None:
    data = bytes(range(200))
    (tmp_path / "file").write_bytes(data)
    report = scan(tmp_path, {"one": data, "two": data[50:150], "three": bytes(range(200, 250))})
    assert {(find.probe, find.offset) for find in report.finds} == {("one", 0), ("two", 50)}
    assert report.not_searched == ()


def test_a_name_that_is_not_utf_8_is_searched_as_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc\xff\xfe\xfd\xfcdef")
    name = b"\xff\xfe\xfd\xfc".decode(errors="surrogateescape")
    assert [find.offset for find in scan(tmp_path, {}, [name]).finds] == [3]
