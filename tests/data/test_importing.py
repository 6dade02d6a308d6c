"""An import adds all of a source or nothing, twice is once, and what was deleted stays out."""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from datasets import Image, load_dataset
from PIL import Image as PillowImage
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

from conftest import DIGIT_CLASSES, DIGIT_COLUMNS, NOW, digits, forget, listing, png
from lmeraser import Columns, Eraser
from lmeraser.data import suppression
from lmeraser.data.importing import ImportReport, import_records
from lmeraser.data.provenance import PublicImages, open_public_images
from lmeraser.data.records import Record, Records
from lmeraser.data.sources import Row, Source, open_source
from lmeraser.errors import InputError, SourceError, StorageError
from lmeraser.evidence.ledger import Ledger
from lmeraser.storage.database import Database

DOT = png(np.full((3, 3), 9))
OTHER = png(np.full((3, 3), 10))
NOISE = png(np.random.default_rng(0).integers(0, 256, (20, 20, 3)))
CLASSES = ("cat", "dog")


def row(position: int, **changes: Any) -> Row:
    values = {"id": f"r{position}", "subject": None, "label": "cat", "payload": DOT, "position": position}
    return Row(**{**values, **changes})


def source(*rows: Row, classes: tuple[str, ...] = CLASSES) -> Source:
    return Source("source", classes, len(rows), rows)


def imported(records: Records, opened: Source, **options: Any) -> ImportReport:
    ledger = Ledger(records.database.keys.path.with_name("ledger"), records.database)
    return import_records(records, opened, ledger=ledger, now=NOW, **options)


def add(records: Records, *rows: Row, **options: Any) -> ImportReport:
    classes = options.pop("classes", CLASSES)
    return imported(records, source(*rows, classes=classes), **options)


def counts(report: ImportReport) -> tuple[int, int, int, int]:
    return report.added, report.present, report.suppressed, report.skipped


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records(Database(tmp_path / "records.db"), secret=b"secret")
    yield opened
    opened.database.close()


# --- all or nothing ----------------------------------------------------------------------------------------


def test_rows_become_records(records: Records) -> None:
    report = add(records, row(0), row(1, label="dog", subject="ada", payload=OTHER), row(2, label=1))
    assert counts(report) == (3, 0, 0, 0)
    assert records.classes == CLASSES
    assert [(found.id, found.label) for found in records.index()] == [("r0", 0), ("r1", 1), ("r2", 1)]
    assert records.payloads(["r1", "r0"]) == [OTHER, DOT]
    assert records.of_subjects(["ada"]) == {"ada": ["r1"]}


@pytest.mark.parametrize(("rows", "why"), [((), "Source without rows"), ((row(0),), "The classes are unknown")])
def test_a_source_without_classes_says_whether_it_has_rows(
    records: Records, rows: tuple[Row, ...], why: str
) -> None:
    with pytest.raises(InputError, match=why):
        add(records, *rows, classes=())


def test_numbers_name_the_classes_of_a_workspace_without_any(records: Records) -> None:
    rows = [row(number, label=label) for number, label in enumerate((3, 1, 10))]
    report = imported(records, Source("source", (), 3, rows, numbers=("1", "3", "10")))
    assert (records.classes, report.added) == (("1", "3", "10"), 3)
    assert [(found.id, found.label) for found in records.index()] == [("r0", 1), ("r1", 0), ("r2", 2)]
    assert report.hints[0].startswith("the classes are named by the numbers of the labels (1, 3, 10);")


def test_numbers_are_places_where_the_classes_have_names(records: Records) -> None:
    add(records, row(0))
    report = imported(records, Source("source", (), 1, [row(1, label=1)], numbers=("1",)))
    assert (records.classes, report.added, report.hints) == (CLASSES, 1, [])
    assert [found.label for found in records.index() if found.id == "r1"] == [1]


def test_names_that_are_written_as_missing_values_are_mentioned(records: Records) -> None:
    first, second = add(records, row(0, subject="N/A"), row(1, subject="ada"), classes=("cat", "NaN", "dog")).hints
    assert first.startswith("the classes 'NaN' are written as missing labels are")
    assert second.startswith("the subjects 'N/A' are written as missing names are")
    assert add(records, row(2, subject="ada"), classes=("cat", "NaN", "dog")).hints == []  # no news


def test_names_that_may_be_one_or_several_are_mentioned(records: Records) -> None:
    first = add(records, row(0, subject="ada;bob"), row(1), classes=("cat", "Cat", "dog"))
    assert first.hints == [
        "the classes 'cat', 'Cat' are different classes; if they are one, give them one name in the source, "
        "and import it into a new workspace",
        "subjects that look like several people: 1, for instance 'ada;bob'; a record has one subject, and is "
        "found by all of it and not by a part: give each person's records a subject of their own",
    ]
    names = ["ada", "ada, eve", "Byron, Ada", "eve/17"]
    rows = [row(number, subject=name) for number, name in enumerate(names, start=2)]
    (hint,) = add(records, *rows, classes=("cat", "Cat", "dog")).hints  # the classes are no news
    assert hint.startswith("subjects that look like several people: 1, for instance 'ada, eve'")
    more = ("C", "C++", "tom_cat", "Tom-Cat", "1", "1.0", "10")
    apart = add(records, row(9), classes=("cat", "Cat", "dog", *more), extend_classes=True)
    assert [hint.partition(" are ")[0] for hint in apart.hints] == [
        "the classes 'tom_cat', 'Tom-Cat'",
        "the classes '1', '1.0'",
    ]


def test_a_file_in_base64_is_no_name_and_fills_no_screen(records: Records) -> None:
    with pytest.raises(SourceError) as caught:
        add(records, row(0, id="data:image/png;base64," + "A" * 5000, payload=None, fault="base64"), row(1))
    (fault,) = caught.value.faults
    assert fault.endswith("...'): base64")
    assert len(fault) < 300


@pytest.mark.sqlite
def test_an_import_keeps_more_pages_in_memory_and_what_comes_after_it_does_not(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = list[int]()
    insert = Records.insert

    def observed(self: Records, connection: Connection, *arguments: Any, **options: Any) -> Any:
        sizes.append(connection.exec_driver_sql("PRAGMA cache_size").scalar_one())
        return insert(self, connection, *arguments, **options)

    monkeypatch.setattr(Records, "insert", observed)
    add(records, row(0), row(1))
    with records.database.transaction() as connection:
        sizes.append(connection.exec_driver_sql("PRAGMA cache_size").scalar_one())
    assert sizes == [-256_000, -32_000]


def test_every_fault_is_listed_and_nothing_is_added(records: Records) -> None:
    faulty = [
        row(0),
        row(1, payload=b"not an image"),
        row(2, payload=None),
        row(3, label=None),
        row(4, label=7),
        row(5, label="eel"),
        row(6, id="r0"),
        row(7, id=""),
        row(8, id="x" * 1025),
        row(9, id="two\nlines"),
        row(10, payload=NOISE[: len(NOISE) // 2]),
        row(11),
    ]
    with pytest.raises(SourceError) as caught:
        add(records, *faulty)
    expected = [
        "row 1 (id 'r1'): Not an image file",
        "row 2 (id 'r2'): no image",
        "row 3 (id 'r3'): no label",
        "row 4 (id 'r4'): label 7 is outside 0..1",
        "row 5 (id 'r5'): unknown label 'eel'",
        "row 6 (id 'r0'): the same id as row 0",
        "row 7 (id ''): the id cannot be a name: it is empty",
        "row 8 (id 'xxx",
        "row 9 (id 'two\\nlines'): the id cannot be a name: it holds a control character (U+000A)",
        "row 10 (id 'r10'): Cannot decode image",
    ]
    assert len(caught.value.faults) == len(expected)
    for fault, beginning in zip(caught.value.faults, expected, strict=True):
        assert fault.startswith(beginning)
    assert "--skip-bad" in caught.value.next_step
    assert (records.count(), records.classes, records.changes.revision) == (0, (), 0)
    report = add(records, *faulty, skip_bad=True)
    assert counts(report) == (2, 0, 0, 10)
    assert tuple(report.faults) == caught.value.faults
    assert [found.id for found in records.index()] == ["r0", "r11"]


@pytest.mark.parametrize("name", ["\udcff.png", "a\x00b", "line\u2028break"])
def test_ids_that_no_terminal_shows_are_faults_not_crashes(records: Records, name: str) -> None:
    """A file name that is not UTF-8 reaches Python as lone surrogates, which no database takes."""
    with pytest.raises(SourceError, match="cannot be a name: it holds a"):
        add(records, row(0, id=name))


def test_subjects_that_no_terminal_shows_are_faults_not_crashes(records: Records) -> None:
    with pytest.raises(SourceError, match="subject"):
        add(records, row(0, subject="\udcff"))


# --- names -------------------------------------------------------------------------------------------------

NFC, NFD = "Ren\u00e9e", "Rene\u0301e"


def test_ids_are_stored_in_their_canonical_form(records: Records) -> None:
    report = add(records, row(0, id=NFD), row(1, id=" padded\u00a0"), row(2, id="#1"), row(3, id="two  words"))
    assert (report.added, report.spellings) == (4, [])
    assert [found.id for found in records.index()] == ["#1", NFC, "padded", "two  words"]
    assert records.payloads(["padded"]) == [DOT]
    assert counts(add(records, row(0, id=NFC), row(1, id="padded"), row(2, id=f"{NFD} "))) == (0, 3, 0, 0)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_ids_that_differ_in_white_space_alone_stay_different_whatever_their_order(
    records: Records, order: Sequence[int]
) -> None:
    rows = [row(n, id=name, payload=OTHER if n else DOT) for n, name in enumerate(("17", "17 ", " 18"))]
    report = add(records, *(rows[n] for n in order))
    assert report.spellings == ["ids '17', '17 ' differ in white space alone, and stay different"]
    assert [found.id for found in records.index()] == ["17", "17 ", "18"]
    assert records.names.matches("id", ["17 ", " 17", "18 "]) == {
        "17 ": ("17 ",),
        " 17": ("17", "17 "),
        "18 ": ("18",),
    }
    again = add(records, *rows)
    assert (again.present, again.spellings) == (3, [])
    forget(records, ["17 "])
    assert counts(add(records, *rows)) == (0, 2, 1, 0), "what was deleted stays out, and is not taken for another"
    assert counts(add(records, *rows, allow_deleted=True)) == (1, 2, 0, 0)
    assert [found.id for found in records.index()] == ["17", "17 ", "18"]


def test_two_spellings_of_an_id_that_look_the_same_are_one_id(records: Records) -> None:
    with pytest.raises(SourceError, match="the same id as row 0"):
        add(records, row(0, id=NFC), row(1, id=NFD, payload=OTHER))
    add(records, row(0, id=NFC))
    with pytest.raises(SourceError, match=r"this id exists, as 'Ren\\xe9e', with another image"):
        add(records, row(0, id=f"{NFD} ", payload=OTHER))


def test_the_ledger_knows_records_whose_ids_were_changed(tmp_path: Path) -> None:
    with Eraser.create(tmp_path / "w", classes=CLASSES) as eraser:
        opened = eraser.workspace.records
        rows = source(
            row(0, id="a "), row(1, id=NFD, subject=NFD), row(2, id="b"), row(3, id="c "), row(4, id="c")
        )
        with eraser.workspace.writing("add"):
            import_records(opened, rows, ledger=eraser.workspace.ledger, now=NOW)
        assert eraser.record_ids() == sorted(["a", "b", "c", "c ", NFC])
        assert eraser.check_ledger().sound


def test_a_subject_in_several_spellings_is_one_and_is_told(records: Records) -> None:
    first = add(records, row(0, subject=NFC), row(1, subject=f"{NFC} "), row(2, subject="x"))
    assert first.spellings == [
        rf"subject '{NFC}' is written in 2 ways, which name one subject: 'Ren\xe9e', 'Ren\xe9e '"
    ]
    second = add(records, row(3, subject=NFD), row(4, subject="x"))
    assert second.spellings in [  # with one of those from before
        [rf"subject '{NFC}' is written in 2 ways, which name one subject: 'Rene\u0301e', {earlier!a}"]
        for earlier in (NFC, f"{NFC} ")
    ]
    assert records.of_subjects([NFD]) == {NFD: ["r0", "r1", "r3"]}
    assert counts(add(records, row(0, subject=NFD), row(2, subject=" x"))) == (0, 2, 0, 0)
    with pytest.raises(SourceError, match=r"with another subject\n"):
        add(records, row(0, subject="renee"))


def test_a_row_says_in_what_it_differs_from_the_record_of_its_id(records: Records) -> None:
    """A second table without ids has the numbers of its rows, as the first had."""
    add(records, row(0, id="row-00000000"), row(1))
    again = [row(0, id="row-00000000", payload=OTHER, label="dog"), row(1, subject="ada")]
    with pytest.raises(SourceError) as caught:
        add(records, *again)
    first, second = caught.value.faults
    assert first.endswith(
        "this id exists with another image and label; it is the number of the row: name a column of ids with "
        "--id-column"
    )
    assert second.endswith("this id exists with another subject")


def test_deleted_names_stay_out_in_every_spelling(records: Records) -> None:
    add(records, row(0, id=NFC, subject="x"), row(1, subject=NFD, payload=OTHER))
    forget(records, [NFC, "r1"], subjects=[NFC])
    other = png(np.full((3, 3), 11))
    rows = [row(0, id=f" {NFD}", payload=other), row(1, id="r9", subject=NFC, payload=other)]
    assert counts(add(records, *rows)) == (0, 0, 2, 0)
    assert counts(add(records, *rows, allow_deleted=True)) == (2, 0, 0, 0)
    forget(records, ["r9"])
    assert records.suppression.deleted("record", [NFC, NFD]) == set(), "it is held again"


def test_rows_that_earlier_versions_stored_under_another_spelling_are_recognised(records: Records) -> None:
    with records.database.transaction() as connection:
        old = [Record(NFD, "1.0", 0, DOT), Record("17.0", None, 0, OTHER), Record("18.0", None, 0, DOT)]
        records.set_classes(CLASSES, connection)
        records.insert(connection, old, entry=1)
    rows = [
        row(0, id=NFC, subject="1", earlier_subject="1.0"),
        row(1, id="17", earlier_id="17.0", payload=OTHER),
        row(2, id="18", earlier_id="18.0", payload=OTHER),  # another record: its id was the text 18.0
    ]
    assert counts(add(records, *rows)) == (1, 2, 0, 0)
    forget(records, ["17.0"])
    assert counts(add(records, rows[1])) == (0, 0, 1, 0)


# --- large sources -----------------------------------------------------------------------------------------


def test_faults_beyond_the_first_chunk_are_found_and_undo_it(records: Records) -> None:
    rows = [row(position) for position in range(600)]
    with pytest.raises(SourceError) as caught:
        add(records, *rows, row(600, payload=b""), row(601, id="r3"))
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["row 600 (id 'r600')", "row 601 (id 'r3')"]
    assert records.count() == 0


@pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_import_leaves_nothing_and_can_be_repeated(
    records: Records, kind: type[BaseException]
) -> None:
    def rows(until: int) -> Iterator[Row]:
        for position in range(600):
            if position == until:
                raise kind
            yield row(position)

    with pytest.raises(kind):
        imported(records, Source("source", CLASSES, None, rows(590)))
    assert (records.count(), records.classes, records.changes.revision) == (0, (), 0)
    assert imported(records, Source("source", CLASSES, None, rows(1000))).added == 600


_KILLED_IMPORT = """
import os, signal, sys
from pathlib import Path
from lmeraser.storage.database import Database
from lmeraser.data.importing import import_records
from lmeraser.evidence.ledger import Ledger
from lmeraser.data.records import Records
from lmeraser.data.sources import Row, Source
from lmeraser.core.time import utc_now

image = bytes.fromhex(sys.argv[2])

def rows():
    for position in range(3000):
        if position == 2900:
            os.kill(os.getpid(), signal.SIGKILL)
        yield Row(position, f"r{position}", None, "cat", image)

database = Database(Path(sys.argv[1]))
source = Source("source", ("cat", "dog"), None, rows())
ledger = Ledger(Path(sys.argv[1] + ".ledger"), database)
import_records(Records(database, secret=b"secret"), source, ledger=ledger, now=utc_now())
"""


@pytest.mark.sqlite
def test_a_killed_import_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    command = [sys.executable, "-c", _KILLED_IMPORT, str(path), DOT.hex()]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    records = Records(Database(path), secret=b"secret")
    assert (records.count(), records.classes) == (0, ())
    assert add(records, *(row(position) for position in range(300))).added == 300
    records.database.close()


@pytest.mark.sqlite
def test_a_full_disk_leaves_nothing_and_can_be_repeated(records: Records) -> None:
    def small(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA max_page_count = 30")

    rows = [row(position) for position in range(900)]
    records.database.close()
    event.listen(Engine, "connect", small)
    try:
        with pytest.raises(StorageError, match="full"):
            add(records, *rows)
    finally:
        event.remove(Engine, "connect", small)
    records.database.close()
    assert (records.count(), records.classes) == (0, ())
    assert add(records, *rows).added == 900


# --- twice is once -----------------------------------------------------------------------------------------


def test_where_nothing_was_deleted_no_row_is_looked_up_among_the_deleted(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(suppression, "keyed_digest", refused)
        add(records, row(1), row(2))
    forget(records, ["r1"])
    assert counts(add(records, row(1), row(2))) == (0, 1, 1, 0)


def test_importing_twice_adds_nothing(records: Records) -> None:
    rows = [row(position, subject="ada") for position in range(300)]
    add(records, *rows)
    revision = records.changes.revision
    assert counts(add(records, *rows)) == (0, 300, 0, 0)
    assert records.changes.revision == revision, "the model stays up to date"
    assert counts(add(records, *rows, row(300))) == (1, 300, 0, 0)


@pytest.mark.parametrize("change", [{"payload": OTHER}, {"label": "dog"}, {"subject": "ada"}])
def test_a_known_id_with_other_content_is_a_fault(records: Records, change: dict[str, Any]) -> None:
    add(records, row(0))
    with pytest.raises(SourceError, match="exists with another"):
        add(records, row(0, **change), row(1))
    assert records.count() == 1
    assert counts(add(records, row(0, **change), row(1), skip_bad=True)) == (1, 0, 0, 1)


def test_the_same_image_under_two_ids_is_two_records(records: Records) -> None:
    assert add(records, row(0), row(1)).added == 2


# --- classes -----------------------------------------------------------------------------------------------


def test_the_first_import_fixes_the_classes(records: Records) -> None:
    add(records, row(0))
    with pytest.raises(InputError, match=r"eel \(known: cat, dog\)"):
        add(records, row(1), classes=("cat", "eel"))
    assert records.classes == CLASSES
    assert add(records, row(1, label=0), classes=("dog",)).added == 1
    assert {found.id: found.label for found in records.index()} == {"r0": 0, "r1": 1}


def test_classes_are_appended_on_purpose(records: Records) -> None:
    add(records, row(0))
    add(records, row(1, label="ape"), classes=("ape", "cat"), extend_classes=True)
    assert records.classes == ("cat", "dog", "ape")
    assert {found.id: found.label for found in records.index()} == {"r0": 0, "r1": 2}


def test_two_spellings_of_a_class_are_one_class_as_it_was_spelled_first(records: Records) -> None:
    composed, decomposed = "L\u00f6we", "Lo\u0308we"
    both = (decomposed, composed)
    add(records, row(0, label=0), row(1, label=1), row(2, label=composed), classes=both)
    assert list(records.classes) == [decomposed]
    add(records, row(3, label=0), row(4, label=f"{composed} "), classes=(composed,))
    add(records, row(5, label=0), row(6, label=1), classes=(composed, "ape"), extend_classes=True)
    assert list(records.classes) == [decomposed, "ape"]
    assert [found.label for found in records.index()] == [0, 0, 0, 0, 0, 0, 1]
    for extended in ((*records.classes, composed), (*records.classes, "eel", "eel ")):
        with pytest.raises(InputError, match="repeated"):
            records.set_classes(extended)


def test_two_spellings_that_version_0_1_took_stay_two_classes(records: Records) -> None:
    both = ("L\u00f6we", "Lo\u0308we")
    with records.database.transaction() as connection:
        records.database.set_metadata(connection, "classes", json.dumps(both))
    add(records, row(0, label=1), row(1, label=0), row(2, label="L\u00f6we "), classes=both)
    records.set_classes([*both, "ape"])
    assert [found.label for found in records.index()] == [1, 0, 0]


def test_classes_of_a_refused_source_are_not_kept(records: Records) -> None:
    add(records, row(0))
    with pytest.raises(SourceError):
        add(records, row(1, payload=None), classes=("ape",), extend_classes=True)
    assert records.classes == CLASSES


def test_a_source_without_class_names_needs_known_ones(records: Records) -> None:
    with pytest.raises(InputError, match="init --classes"):
        add(records, row(0), classes=())
    records.set_classes(CLASSES)
    assert add(records, row(0, label=1), row(1, label="cat"), classes=()).added == 2
    assert {found.id: found.label for found in records.index()} == {"r0": 1, "r1": 0}


# --- suppression -------------------------------------------------------------------------------------------


def test_deleted_ids_and_subjects_are_refused_and_counted(records: Records) -> None:
    rows = [row(0), row(1, subject="ada"), row(2, subject="bob"), row(3, subject="ada")]
    add(records, *rows)
    forget(records, ["r0"])
    forget(records, ["r1", "r3"], subjects=["ada"])
    assert counts(add(records, *rows, row(4, subject="ada"))) == (0, 1, 4, 0)
    assert [found.id for found in records.index()] == ["r2"]
    assert counts(add(records, row(0, payload=OTHER))) == (0, 0, 1, 0), "the id counts, not the image"


def test_deleted_records_come_back_on_purpose_only(records: Records) -> None:
    rows = [row(0), row(1, subject="ada"), row(2, subject="bob")]
    add(records, *rows)
    forget(records, ["r0"])
    forget(records, ["r1"], subjects=["ada"])
    assert counts(add(records, *rows, allow_deleted=True)) == (2, 1, 0, 0)
    assert counts(add(records, *rows, row(3, subject="ada"))) == (1, 3, 0, 0), "the suppression is lifted"


def test_restoring_a_subject_by_a_new_record_lifts_its_suppression(records: Records) -> None:
    add(records, row(0, subject="ada"), row(1))
    forget(records, ["r0"], subjects=["ada"])
    assert counts(add(records, row(5, subject="ada"), allow_deleted=True)) == (1, 0, 0, 0)
    assert counts(add(records, row(6, subject="ada"))) == (1, 0, 0, 0)
    assert counts(add(records, row(0, subject="ada"))) == (0, 0, 1, 0), "its deleted id was not asked for"


def test_a_refused_restoration_lifts_nothing(records: Records) -> None:
    add(records, row(0))
    forget(records, ["r0"])
    with pytest.raises(SourceError):
        add(records, row(0), row(1, payload=None), allow_deleted=True)
    assert counts(add(records, row(0))) == (0, 0, 1, 0)


# --- public images -----------------------------------------------------------------------------------------


def public_of(tmp_path: Path, *images: bytes) -> PublicImages:
    public = open_public_images(listing(tmp_path / "backbone", images))
    assert public is not None
    return public


def test_new_records_that_are_public_are_counted(records: Records, tmp_path: Path) -> None:
    assert add(records, row(0)).public is None, "not known"
    again = PillowImage.open(io.BytesIO(OTHER))
    resaved = io.BytesIO()
    again.save(resaved, "PPM")
    public = public_of(tmp_path, DOT, OTHER)
    rows = [row(0), row(1), row(2, payload=resaved.getvalue()), row(3, payload=NOISE)]
    report = add(records, *rows, public=public)
    assert (report.added, report.present, report.public) == (3, 1, 2)
    assert add(records, *rows, public=public).public == 0, "counted when they were added"


def test_public_records_are_refused_all_or_none(records: Records, tmp_path: Path) -> None:
    public, rows = public_of(tmp_path, DOT), [row(0, payload=NOISE), row(1), row(2, payload=None), row(3)]
    with pytest.raises(SourceError) as caught:
        add(records, *rows, public=public, refuse_public=True)
    assert sorted(caught.value.faults) == [
        "row 1 (id 'r1'): the backbone was trained on this file",
        "row 2 (id 'r2'): no image",
        "row 3 (id 'r3'): the backbone was trained on this file",
    ]
    assert "Nothing was added" in str(caught.value)
    assert records.count() == 0
    report = add(records, *rows, public=public, refuse_public=True, skip_bad=True)
    assert (counts(report), report.public) == ((1, 0, 0, 3), 0)


def test_refusing_public_records_needs_a_list_of_them(records: Records) -> None:
    with pytest.raises(InputError, match="lmeraser pretrain"):
        add(records, row(0), refuse_public=True)
    assert (records.count(), records.classes) == (0, ())


def test_a_deleted_record_is_refused_before_it_is_counted(records: Records, tmp_path: Path) -> None:
    add(records, row(0))
    forget(records, ["r0"])
    report = add(records, row(0), public=public_of(tmp_path, DOT))
    assert (counts(report), report.public) == ((0, 0, 1, 0), 0)


# --- streaming ---------------------------------------------------------------------------------------------


def test_rows_are_stored_while_they_stream(records: Records) -> None:
    pulled, most = 0, 0

    def rows() -> Iterator[Row]:
        nonlocal pulled
        for pulled in range(2000):
            yield row(pulled)

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal most, pulled
        if statement.startswith("INSERT INTO images"):
            most, pulled = max(most, pulled - records_before[-1]), pulled
            records_before.append(pulled)

    records_before = [0]
    event.listen(Engine, "before_cursor_execute", note)
    try:
        imported(records, Source("source", CLASSES, None, rows()))
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert records.count() == 2000
    assert 0 < most <= 256


def test_memory_does_not_grow_with_the_source(records: Records) -> None:
    padding = bytes(40_000)  # after the end of the image: decoders pass over it, the database stores it
    total = 1536

    def rows() -> Iterator[Row]:
        for position in range(total):
            yield row(position, payload=DOT + padding + position.to_bytes(4, "big"))

    tracemalloc.start()
    try:
        imported(records, Source("source", CLASSES, None, rows()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert records.count() == total
    assert peak < total * len(padding) / 2


def files_with(root: Path, needle: bytes) -> list[str]:
    return [path.name for path in root.rglob("*") if path.is_file() and needle in path.read_bytes()]


@pytest.mark.sqlite
def test_no_copy_of_an_image_is_left_outside_the_workspace(tmp_path: Path) -> None:
    home, work = tmp_path / "home", tmp_path / "w"
    home.mkdir()
    dataset = digits(range(20)).remove_columns("image").add_column("image", [NOISE] * 20)
    dataset.to_parquet(tmp_path / "digits.parquet")
    names = ("HOME", "HF_HOME", "HF_DATASETS_CACHE", "XDG_CACHE_HOME", "TMPDIR")
    environment = {**os.environ, **dict.fromkeys(names, str(home))}
    Eraser.create(work).close()
    command = [sys.executable, "-m", "lmeraser", "-w", str(work), "add", str(tmp_path / "digits.parquet")]
    subprocess.run([*command, "--id-column", "id"], env=environment, check=True, capture_output=True)
    piece = NOISE[len(NOISE) // 2 :][:32]
    opened = Database(work / "records.db")
    assert any(piece in data for _, data in opened.decrypted_values())
    opened.close()
    assert files_with(work, piece) == [], "sealed"
    assert files_with(home, piece) == []
    assert [path for path in tmp_path.iterdir() if path.name not in ("home", "w", "digits.parquet")] == []


# --- real sources ------------------------------------------------------------------------------------------


def test_two_thousand_cifar_images(records: Records, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "cifar.parquet"
    table = parquet.ParquetFile(data / "cifar10" / "test.parquet").read_row_group(0)
    parquet.write_table(table, path)
    assert imported(records, open_source(path)).added == 2000
    assert imported(records, open_source(path)).present == 2000
    assert len(records.classes) == 10
    first = table["image"][0].as_py()
    assert records.payloads([first["path"]]) == [first["bytes"]]


def test_a_stream_of_cifar_images(records: Records, data: Path) -> None:
    files = str(data / "cifar10" / "test.parquet")
    stream = load_dataset("parquet", data_files=files, split="train", streaming=True)
    assert imported(records, open_source(stream.take(300))).added == 300


def test_faces_belong_to_people(records: Records, data: Path) -> None:
    columns = Columns(subject="subject")
    for split in ("train", "test"):
        imported(records, open_source(data / "orl_faces", split=split, columns=columns))
    assert (records.count(), records.count_subjects()) == (400, 40)
    assert {len(ids) for ids in records.of_subjects(map(str, range(1, 41))).values()} == {10}


def test_digits_from_a_dataset_and_from_its_file_are_the_same_records(records: Records, tmp_path: Path) -> None:
    dataset = digits(range(30))
    dataset.to_parquet(tmp_path / "digits.parquet")
    assert imported(records, open_source(dataset, columns=DIGIT_COLUMNS)).added == 30
    again = imported(records, open_source(tmp_path / "digits.parquet", columns=DIGIT_COLUMNS))
    assert again.present == 30
    assert records.classes == tuple(DIGIT_CLASSES)
    given = dataset.cast_column("image", Image(decode=False))[7]
    assert records.payloads(["digit-0007"]) == [given["image"]["bytes"]]
