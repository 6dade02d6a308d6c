"""What a name means: any spelling of it, in workspaces of this version and of before, and what looks like it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import text

from conftest import forget, png, respell
from lmeraser.data.name_lookup import NameSurvey, NearMiss, note_new_workspace
from lmeraser.data.records import Record, Records
from lmeraser.storage.database import Database

DOT = png(np.zeros((3, 3)))
NFC = "Ren\u00e9e"
NFD = unicodedata.normalize("NFD", NFC)

Make = Callable[..., Records]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Records with these ids and subjects, of this version or as 0.1 stored them."""
    opened: list[Records] = []

    def records(rows: Sequence[tuple[str, str | None]], *, before: bool = False) -> Records:
        made = Records(Database(tmp_path / f"{len(opened)}.db"), secret=b"secret")
        opened.append(made)
        with made.database.transaction() as connection:
            note_new_workspace(made.database, connection)
            made.insert(connection, [Record(i, s, 0, DOT) for i, s in rows], entry=1)
        for record_id, _ in rows if before else ():
            respell(made, record_id, before=True)
        return made

    yield records
    for one in opened:
        one.database.close()


def test_a_subject_is_found_in_every_spelling(make: Make) -> None:
    records = make([("a", NFC), ("b", NFD), ("c", f" {NFC}\u00a0"), ("d", "Rene"), ("e", None)])
    for spelling in (NFC, NFD, f"{NFD} "):
        assert records.names.matches("subject", [spelling]) == {spelling: (NFC,)}
        assert records.of_subjects([spelling]) == {spelling: ["a", "b", "c"]}
    assert records.count_subjects() == 2
    assert records.names.matches("subject", ["Anna", "", "\udcff"]) == {}


def test_the_metadata_keep_the_spelling_of_the_source(make: Make) -> None:
    records = make([("a", NFD)])
    assert [each.subject for _, each in records._index.read_all()] == [NFD]


def test_an_id_means_itself_before_it_means_its_canonical_form(make: Make) -> None:
    records = make([("17", None), ("17 ", None), ("18", None)], before=True)
    assert records.names.matches("id", ["17", "17 ", "18", "18 ", "19"]) == {
        "17": ("17",),
        "17 ": ("17 ",),
        "18": ("18",),
        "18 ": ("18",),
    }
    assert records.names.matches("id", [" 17"]) == {" 17": ("17", "17 ")}


def test_an_id_that_was_deleted_means_no_other(make: Make) -> None:
    records = make([("17", None), ("17 ", None)], before=True)
    forget(records, ["17 "])
    assert records.names.matches("id", ["17", "17 "]) == {"17": ("17",)}
    assert records.suppression.deleted("record", ["17 "]) == {"17 "}


@pytest.mark.parametrize("held", [NFD, " x", "x "])
def test_ids_of_before_are_found_by_other_spellings(make: Make, held: str) -> None:
    form = unicodedata.normalize("NFC", held).strip()
    records = make([(held, None), ("other", None)], before=True)
    assert records.names.matches("id", [form, f"{form} "]) == {form: (held,), f"{form} ": (held,)}


def test_subjects_of_before_are_kept_apart_until_they_are_merged(make: Make) -> None:
    records = make([("a", NFC), ("b", NFD), ("c", "x "), ("d", "y"), ("e", None)], before=True)
    assert records.names.matches("subject", [NFC, "x", "y"]) == {
        NFC: tuple(sorted((NFC, NFD))),
        "x": ("x ",),
        "y": ("y",),
    }
    survey = records.names.survey()
    assert survey.respelled == {NFC: {NFD}, "x": {"x "}}
    assert survey.merging == {NFC: {NFC, NFD}}
    assert survey.describe_merging() == [rf"'{NFC}' is written 'Rene\u0301e', 'Ren\xe9e'"]
    before = records.commitments.by_entry()
    with records.database.transaction() as connection:
        records.names.merge_subjects(connection)
    assert records.names.merged
    assert records.names.survey() == NameSurvey()
    assert records.names.matches("subject", [NFD, "x", "y"]) == {NFD: (NFC,), "x": ("x",), "y": ("y",)}
    assert records.of_subjects([NFC]) == {NFC: ["a", "b"]}
    assert records.commitments.by_entry() == before
    assert records.count_subjects() == 3


def test_a_request_of_before_finds_its_subject_after_the_merge(make: Make) -> None:
    records = make([("a", NFD), ("b", NFC)], before=True)
    assert records.of_subjects([NFD]) == {NFD: ["a"]}, "until then, what was named and nothing else"
    with records.database.transaction() as connection:
        records.names.merge_subjects(connection)
    assert records.of_subjects([NFD]) == {NFD: ["a", "b"]}


def test_ids_of_before_stay_as_they_are_and_are_reported(make: Make) -> None:
    records = make([("17", None), ("17 ", None), (NFD, None)], before=True)
    assert records.names.survey().ids == {"17": {"17", "17 "}, NFC: {NFD}}
    with records.database.transaction() as connection:
        records.names.merge_subjects(connection)
    assert [ref.id for ref in records.index()] == sorted(("17", "17 ", NFD))
    assert records.names.matches("id", [NFC, " 17"]) == {NFC: (NFD,), " 17": ("17", "17 ")}
    assert records.names.survey().to_json() == {"subjects": {}, "ids": {"17": ["17", "17 "], NFC: [NFD]}}


def test_names_that_look_alike_are_found_and_other_spellings_of_a_subject_are_not_among_them(make: Make) -> None:
    records = make([("r1", NFD), ("R1", "renee"), ("r1 ", "Anna"), ("r2", "anna"), ("r3", None)], before=True)
    near = records.names.near_misses
    assert near("subject", [NFC], meant=[NFC]) == [NearMiss("subject", NFC, "renee")]
    assert near("subject", ["Anna"], meant=["Anna"]) == [NearMiss("subject", "Anna", "anna")]
    assert near("id", ["r1"], meant=["r1"]) == [NearMiss("id", "r1", "R1"), NearMiss("id", "r1", "r1 ")]
    assert near("id", ["r4"]) == near("subject", []) == []
    assert str(near("id", ["rl"])[0]) == "record id 'rl' looks like 'R1', which is not selected"


def test_nothing_is_decrypted_where_all_names_are_canonical(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    records = make([("a", NFC), ("b", "x")])
    monkeypatch.setattr(records.database.keys, "decrypt", None)
    assert records.names.matches("subject", [NFD, "y"]) == {NFD: (NFC,)}
    assert records.names.matches("id", ["a ", "c"]) == {"a ": ("a",)}


def test_what_earlier_versions_suppressed_is_recognised(make: Make) -> None:
    """Their lists have the digest of the name as it was given, and nothing else."""
    records = make([])
    with records.database.transaction() as connection:
        for raw in (NFD, "x "):
            digest = str(records.suppression._digest("subject", raw))
            connection.execute(text("INSERT INTO suppressed VALUES (:digest)"), {"digest": digest})
    asked = [NFC, NFD, f"{NFC} ", "x ", "x", "\udcff"]
    assert records.suppression.deleted("subject", asked) == {NFC, NFD, f"{NFC} ", "x "}


@pytest.mark.parametrize("given", [NFD, f"{NFD} ", f" {NFC}"])
def test_what_is_suppressed_is_recognised_in_every_spelling(make: Make, given: str) -> None:
    records = make([])
    with records.database.transaction() as connection:
        records.suppression.add(connection, {"subject": [given]})
    assert records.suppression.deleted("subject", [NFC, NFD, f"{NFC}\t", "x"]) == {NFC, NFD, f"{NFC}\t"}
