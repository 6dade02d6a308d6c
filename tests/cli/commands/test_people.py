"""Lists of people show names as they are; only in CSV files is a name kept from being a formula."""

from __future__ import annotations

import pytest

from lmeraser.cli.commands.people import _print_list

PEOPLE = [
    {"subject": name, "records": 1, "labels": {"cat": 1}, "requests": ()} for name in ("=17", "+49 30 1", "-5")
]


def test_a_name_in_a_list_is_the_one_that_is_found_and_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    _print_list("people", PEOPLE, as_csv=False, as_json=False)
    table = capsys.readouterr().out
    for person in PEOPLE:
        assert f" {person['subject']} " in table
    assert "'" not in table
    assert "cat: 1" in table


def test_a_spreadsheet_takes_no_name_for_a_formula(capsys: pytest.CaptureFixture[str]) -> None:
    _print_list("people", PEOPLE, as_csv=True, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["subject,records,labels,requests", "'=17,1,cat: 1,", "'+49 30 1,1,cat: 1,", "'-5,1,cat: 1,"]
