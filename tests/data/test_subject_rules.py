"""Subjects are found by folder, by file name or in a table; where none is found, the row says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmeraser.data.subject_rules import SubjectRule
from lmeraser.errors import InputError


def test_a_folder_of_the_path_is_the_subject() -> None:
    rule = SubjectRule(level=2)
    assert rule.subject_of("x", "cat/patient 17/0001.jpg") == "patient 17"
    assert rule.subject_of("x", "cat/patient 17/left/0001.jpg") == "patient 17"
    for path in ("cat/0001.jpg", "0001.jpg", ""):
        with pytest.raises(ValueError, match="no subject"):
            rule.subject_of("x", path)


@pytest.mark.parametrize("pattern", [r"(p\d+)_", r"/(?P<subject>p\d+)_(\d+)", r"(?:^|/)(p[0-9]+)"])
def test_a_part_of_the_path_is_the_subject(pattern: str) -> None:
    rule = SubjectRule(pattern=pattern)
    assert rule.subject_of("x", "cat/p17_0001.jpg") == "p17"
    with pytest.raises(ValueError, match="does not match"):
        rule.subject_of("x", "cat/0001.jpg")


def test_a_table_names_subjects_by_the_canonical_form_of_ids(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("id,subject,note\nRene\u0301e/1.png,ada,\n17 ,bob,\nb.png,,x\n")
    rule = SubjectRule(file=tmp_path / "s.csv")
    assert rule.subject_of("Ren\u00e9e/1.png", "") == "ada"
    assert rule.subject_of("17", "") == "bob"
    assert rule.subject_of("b.png", "") is None
    assert rule.subject_of("c.png", "") is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("name,subject\na,b\n", r"no id in .*\(there are: name, subject\)"),
        ("id,person\na,b\n", "no subject in"),
        ("id,subject\na,b\na,c\n", "two subjects"),
        ("id,subject\na,b\na ,c\n", "two subjects"),
    ],
)
def test_tables_that_cannot_be_meant_are_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(InputError, match=why):
        SubjectRule(file=tmp_path / "s.csv").subject_of("a", "")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "Not exactly one"),
        ({"level": 1, "pattern": "(a)"}, "Not exactly one"),
        ({"level": 0}, "below 1"),
        ({"pattern": "("}, "Malformed pattern"),
        ({"pattern": "p[0-9]+"}, "parentheses"),
    ],
)
def test_rules_that_cannot_be_meant_are_refused(given: dict[str, object], why: str) -> None:
    with pytest.raises(InputError, match=why):
        SubjectRule(**given)  # type: ignore[arg-type]
    assert SubjectRule.of() is None
