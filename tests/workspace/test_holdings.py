"""A privacy desk finds people and records as a deletion would, and sees what looks alike and what is open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Template
from faults import NOW, name, opened
from lmeraser import Eraser
from lmeraser.core.time import to_text
from lmeraser.errors import InputError
from lmeraser.workspace.holdings import find, list_records, list_subjects
from serving import fake_workspace


@pytest.fixture
def eraser(template: Template, tmp_path: Path) -> Iterator[Eraser]:
    with opened(fake_workspace(template, tmp_path)) as one:
        yield one


def test_what_is_held_of_a_person(eraser: Eraser) -> None:
    asked = eraser.request(ids=[name(1)])
    found = find(eraser.workspace, "subject", " person-1 ")
    assert found.names == ("person-1",)
    assert [line.id for line in found.records] == [name(number) for number in (1, 5, 9)]
    assert found.labels == {"cat": 1, "dog": 1, "eel": 1}
    assert found.days == {"2026-01-31": 3}
    assert {line.added for line in found.records} == {to_text(NOW)}
    assert [request.id for request in found.requests] == [asked.id]
    assert [line.requests for line in found.records] == [(asked.id,), (), ()]
    assert (found.duplicates, found.near_misses, found.deleted_before) == ((), (), False)
    assert found.to_json()["requests"] == [asked.id]


def test_names_that_look_alike_are_shown_and_mean_nothing(eraser: Eraser) -> None:
    for given in ("PERSON-1", "person -1", "p\u00e9rson-1"):
        found = find(eraser.workspace, "subject", given)
        assert (found.names, found.records) == ((), ())
        assert [miss.held for miss in found.near_misses] == ["person-1"]
    assert find(eraser.workspace, "id", name(3).upper()).near_misses[0].held == name(3)
    assert find(eraser.workspace, "id", "nobody").near_misses == ()


def test_a_name_that_was_deleted_is_known_as_such(eraser: Eraser) -> None:
    eraser.unlearn(subjects=["person-2"])
    found = find(eraser.workspace, "subject", "person-2")
    assert (found.deleted_before, found.records) == (True, ())


def test_lists_of_people_and_records(eraser: Eraser) -> None:
    eraser.request(subjects=["person-0"])
    people = list_subjects(eraser.workspace)
    assert [line.subject for line in people] == [f"person-{number}" for number in range(4)]
    assert [len(line.requests) for line in people] == [1, 0, 0, 0]
    assert {line.records for line in people} == {3}
    assert [line.subject for line in list_subjects(eraser.workspace, search="PERSON -3")] == ["person-3"]
    assert len(list_records(eraser.workspace)) == 12
    assert {line.label for line in list_records(eraser.workspace, label="eel")} == {"eel"}
    assert [line.id for line in list_records(eraser.workspace, subject="person-3", search="07")] == [name(7)]
    assert list_records(eraser.workspace, subject="nobody") == []


def test_the_plan_warns_of_a_second_request_and_of_a_class_without_records(eraser: Eraser) -> None:
    first = eraser.request(subjects=["person-1"])
    cats = [line.id for line in list_records(eraser.workspace, label="cat")]
    plan = eraser.plan(ids=cats)
    assert plan.open_requests == (first.id,)
    assert plan.emptied_classes == ("cat",)
    assert any(first.id in warning for warning in plan.warnings)
    assert any("'cat'" in warning for warning in plan.warnings)
    harmless = eraser.plan(ids=[name(2)])
    assert (harmless.open_requests, harmless.emptied_classes) == ((), ())


def test_either_a_person_or_a_record_is_found(eraser: Eraser) -> None:
    assert eraser.find(id=name(1)).records[0].subject == "person-1"
    assert len(eraser.find(subject="person-1").records) == 3
    for arguments in ({}, {"subject": "a", "id": "b"}):
        with pytest.raises(InputError):
            eraser.find(**arguments)
